"""Pagemaps and process memory by address. Reads through what it is given."""
