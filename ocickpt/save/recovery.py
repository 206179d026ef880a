"""What is done about checkpoints that somebody began and did not end (`operations.verbs`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import TypeVar

from ocickpt import rendezvous
from ocickpt.artifact import copying, publishing
from ocickpt.errors import OcickptError
from ocickpt.model import Progress, Published
from ocickpt.operations import workdir
from ocickpt.operations.journal import UNPUBLISHED, Checkpoint, Dumping, Intercept, Journal, Record
from ocickpt.operations.verbs import Verb
from ocickpt.save import collect, dump, publication, unpublished
from ocickpt.store import Access, open_store
from ocickpt.store.local import LocalStore
from ocickpt.store.reference import Reference

D = TypeVar("D", bound=Dumping)


class Checkpoints(Verb[Checkpoint]):
    """Those of `ocickpt checkpoint`."""

    def settle(
        self, orphan: Journal[Checkpoint], mine: Callable[[Record], bool], progress: Progress
    ) -> Sequence[Record]:
        """Its container runs on, or its dump is kept."""
        record = orphan.record
        if record.step == "published":
            if not mine(record):
                workdir.remove(Path(record.work))
                return []
            progress.note(f"the interrupted checkpoint of {record.name!r} had come to its end: {record.reference}")
            dump.discard(orphan)
            return [record]
        if dump.settle(orphan):  # which also puts pages back, in case that was not done
            if record.step != "dumped":
                progress.note(
                    f"the interrupted checkpoint of {record.name!r} is kept: `ocickpt push {record.name}` publishes it"
                )
        else:
            progress.note(f"an interrupted checkpoint of {record.name!r} was undone")
        return []

    def tidy(self) -> None:
        """What the spool holds for them goes."""
        publishing.sweep()

    def waits(self, record: Checkpoint) -> bool:
        """A dump is worth something when its container has ended with it."""
        return record.step == "dumped" and not record.options.leave_running

    def made_at(self, record: Checkpoint) -> int:
        """When podman's export was whole."""
        with suppress(OSError):
            return (Path(record.work) / rendezvous.EXPORT).stat().st_mtime_ns
        return 0

    def publish(self, waiting: Journal[Checkpoint], reference: str, access: Access, progress: Progress) -> Published:
        """From its work directory."""
        published = _publish(waiting, reference, access, progress)
        dump.discard(waiting)
        publishing.sweep()
        return published

    def give_up(self, dead: Journal[Checkpoint], progress: Progress) -> int:  # noqa: ARG002
        """At whatever step."""
        dump.forget(dead)
        publishing.sweep()
        return 0

    def remedy(self, record: Checkpoint) -> str:
        """By its key: its container may be called like others."""
        return f"`ocickpt rm {record.key}` gives it up, and leaves the container as it is"


class Intercepts(Verb[Intercept]):
    """Those that podman made by itself."""

    def settle(
        self,
        orphan: Journal[Intercept],
        mine: Callable[[Record], bool],  # noqa: ARG002
        progress: Progress,
    ) -> Sequence[Record]:
        """It is published later, or gone."""
        unpublished.settle(orphan, progress)
        return []

    def waits(self, record: Intercept) -> bool:
        """In its work directory, or in the local store."""
        return record.step in ("dumped", UNPUBLISHED)

    def called(self, record: Intercept) -> str:
        """As in the local store: there may be several of a container."""
        return unpublished.local_name(record)

    def made_at(self, record: Intercept) -> int:
        """It is part of its key."""
        return collect.made_at(record)

    def publish(self, waiting: Journal[Intercept], reference: str, access: Access, progress: Progress) -> Published:
        """From where it is."""
        if waiting.record.step == UNPUBLISHED:
            source = Reference.parse(unpublished.local_name(waiting.record))
            try:
                published = copying.copy(source, Reference.parse(reference), access, progress)
            except BaseException:
                waiting.leave()
                raise
            unpublished.forget(waiting)
            return published
        published = _publish(waiting, reference, access, progress)
        unpublished.drop(waiting)
        publishing.sweep()
        return published

    def give_up(self, dead: Journal[Intercept], progress: Progress) -> int:
        """What is not whole is put right first: its container may be frozen."""
        freed = 0
        if self.waits(dead.record):
            freed = unpublished.remove(dead.record)
            unpublished.drop(dead)
        else:
            unpublished.settle(dead, progress)
        publishing.sweep()
        return freed

    def remedy(self, record: Intercept) -> str:
        """As of any checkpoint."""
        return f"`ocickpt rm {record.key}` gives it up, and leaves the container as it is"


def _publish(waiting: Journal[D], reference: str, access: Access, progress: Progress) -> Published:
    """Publish what lies in a work directory; the journal waits on when that fails."""
    parsed = Reference.parse(reference)
    try:
        with LocalStore() as local, closing(open_store(parsed, access, create=True)) as store:
            published = publication.publish(waiting.record, store, local, parsed, progress)
        waiting.step("published", reference=str(parsed), published=published)
    except BaseException as error:
        with suppress(OcickptError):
            waiting.step("dumped", reason=error.message if isinstance(error, OcickptError) else "interrupted")
        waiting.leave()
        raise
    return published
