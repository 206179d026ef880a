"""Lazy restores whose memory is still on its way, and those that had to be given up."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from ocickpt import processes
from ocickpt.errors import IncompatibleError
from ocickpt.lazy import states
from ocickpt.model import Progress, Stage

RUNNING, FAILED = "running", "failed"
_FORSAKEN = "what brings its memory was killed; `ocickpt doctor` kills the container, which would miss some"


@dataclass(frozen=True)
class Following:
    """A container and the memory that follows it."""

    container: str
    name: str
    reference: str
    state: str
    """``running``: it runs, memory arrives. ``failed``: it was killed, for memory could not be brought."""
    later: int
    """Bytes of memory that were to follow."""
    arrived: int
    """Bytes fetched so far; compressed, as they are stored."""
    error: str


def following(is_there: Callable[[str], bool]) -> list[Following]:
    """What the guards of lazy restores say, oldest first; what failed is told as long as its container `is_there`."""
    found = []
    for path, told in sorted(states.known(), key=lambda each: each[1].get("since", 0.0)):
        container, state = told.get("container", ""), told
        if states.is_forsaken(path.stem, told):
            state = {**told, "state": "failed", "error": _FORSAKEN}
        if state.get("state") == FAILED and not is_there(container):
            states.forget(path.stem)
        else:
            found.append(
                Following(
                    container,
                    state.get("name", ""),
                    state.get("reference", ""),
                    state.get("state", ""),
                    state.get("later", 0),
                    state.get("arrived", 0),
                    state.get("error", ""),
                )
            )
    return found


def wait_for_memory(container: str, progress: Progress) -> None:
    """Return when no memory of that container (by id) is on its way any more: only then it can be checkpointed.

    IncompatibleError when it will never be complete: the container is about to be killed.
    """
    told = False
    while _on_its_way(container):
        if not told:
            progress.stage(Stage.WAITING_FOR_MEMORY)
            told = True
        time.sleep(0.1)


def _on_its_way(container: str) -> bool:
    for path, state in states.known():
        if (state.get("container"), state.get("state")) == (container, RUNNING):
            if state.get("error"):
                # Not waited for: who kills the container may wait for podman's lock, which our caller may hold.
                raise IncompatibleError(f"the memory of its lazy restore cannot be completed: {state['error']}")
            if states.is_forsaken(path.stem, state) and processes.is_alive(*state["process"]):
                raise IncompatibleError(
                    "the memory of its lazy restore is not all there, and what brought it was killed",
                    hint="`ocickpt doctor` kills the container",
                )
            return processes.is_alive(*state["guard"])
    return False
