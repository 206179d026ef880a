"""Which room looks after which of ocickpt's operations: imported by whoever may come upon one that was interrupted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ocickpt import rendezvous
from ocickpt.operations import verbs

if TYPE_CHECKING:
    from ocickpt.model import Progress


def _checkpoints() -> verbs.Verb[Any]:
    from ocickpt.save.recovery import Checkpoints

    return Checkpoints()


def _intercepts() -> verbs.Verb[Any]:
    from ocickpt.save.recovery import Intercepts

    return Intercepts()


def _restores() -> verbs.Verb[Any]:
    from ocickpt.restoration.recovery import Restores

    return Restores()


def _forsaken(progress: Progress) -> None:
    """Lazy restores whose guard died: those instead of a start have no journal."""
    if any(rendezvous.LAZY.glob("*.json")):
        from ocickpt.lazy import attach

        attach.end_forsaken(progress)


verbs.register("checkpoint", _checkpoints)
verbs.register("intercept", _intercepts)
verbs.register("restore", _restores)
verbs.register_first(_forsaken)
