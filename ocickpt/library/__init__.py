"""Artifacts without containers: push, pull, list, inspect, remove; no engine is known here."""
