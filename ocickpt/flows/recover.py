"""What operations that died left behind is put right: by every later call, and by `ocickpt doctor`.

A checkpoint comes to one of two ends: podman had dumped the container, and all parts are whole, then
the dump is kept until `ocickpt checkpoint` or `ocickpt push` publishes it; or the container runs on as if nothing
had been. So does a restore: the container runs, or nothing of it is left. A checkpoint that podman made by itself is
podman's; ours of it is whole or gone. See `dump.py`, `made.py` and `unpublished.py`: what is needed to put a
checkpoint right is loaded only where there is one, for a restore that looks first would run later for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ocickpt.engine import podman
from ocickpt.errors import OcickptError
from ocickpt.flows import journal, lazy, made, operation
from ocickpt.flows.journal import CHECKPOINT, INTERCEPT, Journal, Record
from ocickpt.model import Progress, Stage

_SHORT_ID = 12


def recover(progress: Progress, mine: Callable[[Record], bool] = lambda _: True) -> list[Record]:
    """Put right whatever dead operations left; those that are `mine` and turned out to have come to their end.

    Of one that came to its end but is not `mine` the journal is left, for whoever runs that command again to
    be told. What cannot be put right is told, and left for the next call.
    """
    finished, found = [], False
    lazy.end_forsaken(progress)
    for orphan in journal.orphans():
        record = orphan.record
        if lazy.follows(record):
            continue
        if record.verb == INTERCEPT:
            _intercepted(orphan, progress)
            continue
        found = True
        try:
            if record.podman_runs():
                progress.stage(Stage.WAITING_FOR_PODMAN, record.verb)
            settle = _checkpoint if record.verb == CHECKPOINT else _restore
            finished += settle(orphan, mine, progress)
        except OcickptError as error:
            progress.note(f"the interrupted {record.verb} of {record.name!r} could not be put right: {error.message}")
    if found:
        from ocickpt.flows import publish

        publish.sweep()
    return finished


def pending(container: str, subject: podman.Container | None) -> Journal | None:
    """The dump of that container (see `means`) that waits to be published, locked for the caller."""
    for orphan in journal.orphans():
        record = orphan.record
        if record.verb == CHECKPOINT and record.step == "dumped" and means(container, subject, record):
            return orphan.keep()
    return None


def means(container: str, subject: podman.Container | None, record: Record) -> bool:
    """Whether who writes `container`, which podman knows as `subject` if at all, means the one of that record."""
    if subject:
        return record.container == subject.id
    return container == record.name or (len(container) >= _SHORT_ID and record.container.startswith(container))


def _intercepted(orphan: Journal, progress: Progress) -> None:
    from ocickpt.flows import unpublished

    try:
        unpublished.settle(orphan, progress)
    except OcickptError as error:
        progress.note(f"the checkpoint of {orphan.record.name!r} could not be put right: {error.message}")


def _checkpoint(orphan: Journal, mine: Callable[[Record], bool], progress: Progress) -> list[Record]:
    from ocickpt.flows import dump

    record = orphan.record
    if record.step == "published":
        if not mine(record):
            operation.remove_directory(Path(record.work))
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


def _restore(orphan: Journal, mine: Callable[[Record], bool], progress: Progress) -> list[Record]:
    record = orphan.record
    container = made.settle(orphan, progress, keep=not mine(record))
    if container is None and record.step in made.COMPLETE:
        return []
    if container is None:
        progress.note(f"an interrupted restore of {record.name!r} was undone")
        return []
    if not mine(record):
        return []
    progress.note(f"the interrupted restore of {record.name!r} had come to its end: it is {container.status}")
    return [replace(record, container=container.id)] if container.status == "running" else []
