"""The security settings of a checkpoint. Knows no engines."""
