"""A host is made ready for checkpoints, and examined; artifacts are unknown here."""
