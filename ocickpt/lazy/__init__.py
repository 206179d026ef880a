"""Memory that follows its container: what brings it, who guards that, what is told of it. No engine is asked here."""
