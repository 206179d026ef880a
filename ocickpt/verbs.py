"""Which room looks after which of ocickpt's operations: imported by whoever may come upon one that was interrupted."""

from __future__ import annotations

from typing import Any

from ocickpt import rendezvous
from ocickpt.model import Progress
from ocickpt.operations import verbs
from ocickpt.operations.journal import Checkpoint, Intercept, Restore


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


verbs.register(Checkpoint, _checkpoints)
verbs.register(Intercept, _intercepts)
verbs.register(Restore, _restores)
verbs.register_first(_forsaken)
