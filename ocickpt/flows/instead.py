"""A container that is created and annotated is restored instead of started (being built)."""

from __future__ import annotations


def create(call: list[str], rest: list[str]) -> int:
    """Restore instead."""
    raise NotImplementedError(call, rest)


def before_it_runs(call: list[str], verb: str, rest: list[str]) -> int:
    """What comes before it runs."""
    raise NotImplementedError(call, verb, rest)
