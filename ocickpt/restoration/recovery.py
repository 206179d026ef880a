"""What is done about restores that somebody began and did not end (`operations.verbs`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from ocickpt.errors import UsageError
from ocickpt.lazy import attach
from ocickpt.model import Progress
from ocickpt.operations.journal import Journal, Record, Restore
from ocickpt.operations.verbs import Verb
from ocickpt.restoration import outcome


class Restores(Verb[Restore]):
    """Those of `ocickpt restore`; what is restored instead of started has no journal."""

    def goes_on(self, record: Restore) -> bool:
        """While its memory follows, under its guard."""
        return attach.follows(record)

    def settle(self, orphan: Journal[Restore], mine: Callable[[Record], bool], progress: Progress) -> Sequence[Record]:
        """The container runs, or there is none."""
        record = orphan.record
        container = outcome.settle(orphan, progress, keep=not mine(record))
        if container is None:
            if record.step not in outcome.COMPLETE:
                progress.note(f"an interrupted restore of {record.name!r} was undone")
            return []
        if not mine(record):
            return []
        progress.note(f"the interrupted restore of {record.name!r} had come to its end: it is {container.status}")
        running = container.status == "running"
        return [msgspec.structs.replace(record, container=container.id)] if running else []

    def give_up(self, dead: Journal[Restore], progress: Progress) -> int:  # noqa: ARG002
        """A restore is whoever's container it made."""
        raise UsageError(f"{dead.record.name!r} is a restore that stopped", hint=self.remedy(dead.record))

    def remedy(self, record: Restore) -> str:
        """podman's own command."""
        return f"`podman rm --force {record.name}` and then `ocickpt doctor` take it back"
