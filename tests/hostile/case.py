"""What a crafted checkpoint is, and the good containers that they are made of."""

from __future__ import annotations

from dataclasses import dataclass

from tests.hostile.changing import Change

PLAIN, USER, VOLUME = "plain", "user", "volume"
OPTIONS = {
    PLAIN: (),
    VOLUME: ("--volume", "held:/data:ro"),
    USER: ("--user", "33:33", "--security-opt", "no-new-privileges"),
}
"""How the good containers are made."""


@dataclass(frozen=True)
class Case:
    """One crafted checkpoint."""

    change: Change
    said: str = ""
    """A part of the sentence that refuses it; empty for what is made harmless instead."""
    on_start: str | None = None
    """What is said where the new container's own specification is what counts, if it is something else."""
    container: str = PLAIN
