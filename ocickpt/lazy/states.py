"""What `ocickpt status` shows of a lazy restore: a file that guard, page server and restore change in turn.

It is gone when all memory is there, and stays when the container had to be killed. Standard library only: the guard
loads this.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from pathlib import Path

from ocickpt import atomic, processes, rendezvous

TYPE_CHECKING = False  # see `rendezvous`
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Literal, TypedDict, Unpack

    class State(TypedDict, total=False):
        """All that is known of one."""

        reference: str
        """Of the checkpoint, with its digest."""
        state: Literal["restoring", "running", "failed"]
        later: int
        """Bytes of memory that were to follow."""
        arrived: int
        """Bytes fetched so far; compressed, as they are stored."""
        work: str
        """The restore's directory."""
        helpers: str
        """What guard and page server are called in their command lines."""
        kill: list[str]
        """The command that kills the container; without, podman does."""
        since: float
        """When it began, in seconds since the epoch."""
        container: str
        """The container's id, once it runs; and its name."""
        name: str
        guard: tuple[int, int]
        """The guard: pid and start time."""
        process: tuple[int, int]
        """The container's first process: pid and start time."""
        error: str


def read(key: str) -> State:
    """What is known of a lazy restore; nothing when there is none."""
    try:
        state = json.loads((rendezvous.LAZY / f"{key}.json").read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    found: State = state if isinstance(state, dict) else {}  # type: ignore[assignment]
    return found


def begin(key: str, state: State) -> None:
    """Have `ocickpt status` show a lazy restore."""
    rendezvous.LAZY.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _alone():
        _replace(key, state)


def change(key: str, **changes: Unpack[State]) -> None:
    """Change what `ocickpt status` shows of a lazy restore; what is over stays so."""
    if rendezvous.LAZY.exists():
        with _alone():
            if state := read(key):
                _replace(key, state | changes)


def forget(key: str) -> None:
    """A lazy restore is over."""
    if rendezvous.LAZY.exists():
        with _alone():
            (rendezvous.LAZY / f"{key}.json").unlink(missing_ok=True)


def is_forsaken(key: str, state: State) -> bool:
    """Whether a container runs without its guard, and without all of its memory; `state` is what was just read."""
    if state.get("state") != "running" or processes.is_alive(*state["guard"]):
        return False
    # One that came to its end has said so before it ended.
    return not (Path(state["work"]) / rendezvous.COMPLETE).exists() and read(key).get("state") == "running"


def known() -> list[tuple[Path, State]]:
    """What is known of each lazy restore, and the file that says so; those that end meanwhile are left out."""
    found = ((path, read(path.stem)) for path in rendezvous.LAZY.glob("*.json"))
    return [(path, state) for path, state in found if state]


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """One process at a time reads, changes and writes."""
    directory = os.open(rendezvous.LAZY, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        yield
    finally:
        os.close(directory)


def _replace(key: str, state: State) -> None:
    atomic.replace(rendezvous.LAZY / f"{key}.json", json.dumps(state).encode())
