"""Checkpoints that podman made, on their way into a store: published, or kept in the local store until they can be.

Recovery works on the work directory and the local store alone (`collect`): podman's container and its result
are as podman left them, but for a container that was left frozen.
"""

from __future__ import annotations

import time
from contextlib import closing, suppress
from pathlib import Path
from typing import TypeGuard

from ocickpt import artifact, proc, rendezvous
from ocickpt.artifact import publishing
from ocickpt.errors import IntegrityError, NotFoundError, OcickptError
from ocickpt.model import Progress, Published
from ocickpt.operations import channel, journal, workdir
from ocickpt.operations.journal import UNPUBLISHED, Intercept, Journal, Record
from ocickpt.save import collect, publication
from ocickpt.store import Access, open_store
from ocickpt.store.local import LocalStore
from ocickpt.store.reference import Reference

_BEFORE = ("begun", "frozen")
"""Steps at which there is nothing whole yet."""


def conclude(made: Journal[Intercept], access: Access, progress: Progress) -> Published:
    """Publish a checkpoint that is in its work directory; when that fails it is kept, and the error raised."""
    record = made.record
    _wait_for_older(record)
    try:
        reference = Reference.parse(record.reference)
        with LocalStore() as local, closing(open_store(reference, access, create=True)) as store:
            published = publication.publish(record, store, local, reference, progress)
        made.step("published", published=published)
    except OcickptError as error:
        with suppress(OcickptError):
            keep(made, error.message, progress)
        raise
    drop(made)
    _supersede(record)
    publishing.sweep()
    return published


def keep(made: Journal[Intercept], reason: str, progress: Progress) -> None:
    """Bring a checkpoint into the local store, where it needs nothing of podman's; its journal says why it is there.

    When not even that can be done (the disk is full) it stays in its work directory.
    """
    record = made.record
    reference = Reference.parse(local_name(record))
    made.step("dumped", reason=reason)
    try:
        with LocalStore() as local, closing(open_store(reference, create=True)) as store:
            published = publication.publish(record, store, local, reference, progress)
        made.step(UNPUBLISHED, published=published)
        workdir.remove(Path(record.work))
    finally:
        made.leave()
    _supersede(record)
    publishing.sweep()


def drop(made: Journal[Intercept]) -> None:
    """Forget a checkpoint."""
    workdir.remove(Path(made.record.work))
    made.close()


def settle(orphan: Journal[Intercept], progress: Progress) -> None:
    """Put right what a shim or hook that died has left."""
    record = orphan.record
    if record.step == UNPUBLISHED:
        if not _is_kept(record):  # somebody removed it
            orphan.close()
        return
    if record.step in _BEFORE:
        channel.wait_for_runtime(record)
    if record.thaw and record.step == "frozen":
        proc.run(record.thaw, check=False)
    if record.step == "dumped" and _is_untouched(record):
        keep(orphan, record.reason or "interrupted", progress)
        progress.note(f"the checkpoint of {record.name!r} is in the local store: `ocickpt push {record.name}` ends it")
        return
    drop(orphan)
    if record.step != "published":
        progress.note(f"podman's checkpoint of {record.name!r} was interrupted, nothing of it was published")


def settle_all(progress: Progress, container: str = "", *, whole: bool = True) -> None:
    """Put right what dead shims and hooks have left (of one container); asks podman nothing.

    Those that are `whole` are brought into the local store, which takes time.
    """
    for orphan in journal.orphans():
        record = orphan.record
        if not isinstance(record, Intercept):
            continue
        due = record.step != UNPUBLISHED and (whole or record.step in _BEFORE)
        if due and container in ("", record.container):
            try:
                settle(orphan, progress)
            except OcickptError as error:
                progress.note(f"the checkpoint of {record.name!r} could not be put right: {error.message}")


def kept() -> list[Intercept]:
    """The checkpoints that are in the local store because they could not be published."""
    return [each for each in journal.records() if isinstance(each, Intercept) and each.step == UNPUBLISHED]


def local_name(record: Intercept) -> str:
    """What a checkpoint is called in the local store, when it is kept there: ``NAME:TAG``."""
    return str(Reference("local", "", record.name, collect.stamp(collect.made_at(record))))


def forget(made: Journal[Intercept]) -> None:
    """Remove a kept checkpoint from the local store: it is published."""
    remove(made.record)
    made.close()
    publishing.sweep()


def _is_untouched(record: Intercept) -> bool:
    """Whether nobody wrote to the pages since: the next dump of a runtime without the shim writes to the same files."""
    work = Path(record.work)
    try:
        taken = (work / rendezvous.CAPTURED).stat().st_mtime_ns
        return all(pages.stat().st_mtime_ns <= taken for pages in work.glob("pages-*.img"))
    except OSError:
        return False


def _is_kept(record: Intercept) -> bool:
    with LocalStore() as local:
        return local_name(record) in {name for name, _ in local.references()}


def remove(record: Intercept) -> int:
    """Take a kept checkpoint out of the local store, if it is there; the bytes that it had."""
    reference = Reference.parse(local_name(record))
    with suppress(NotFoundError, IntegrityError), LocalStore(repository=reference.repository) as local:
        found = artifact.open(local, reference)
        local.untag(reference.tag)
        return found.size
    return 0


def _supersede(record: Intercept) -> None:
    """A checkpoint takes the place of older ones of the same container for the same reference that were kept."""
    for orphan in journal.orphans():
        old = orphan.record
        if _is_older(old, record) and old.step == UNPUBLISHED:
            remove(old)
            orphan.close()
        elif _is_older(old, record) and old.step == "dumped":
            drop(orphan)


def _wait_for_older(record: Intercept) -> None:
    """Wait while an older checkpoint is being published under the same reference: the newest is to have it."""
    while True:
        older = {each.key for each in journal.records() if _is_older(each, record) and each.step == "dumped"}
        if not older - {orphan.record.key for orphan in journal.orphans()}:
            return
        time.sleep(0.2)


def _is_older(other: Record, record: Intercept) -> TypeGuard[Intercept]:
    return (
        isinstance(other, Intercept)
        and (other.container, other.reference) == (record.container, record.reference)
        and collect.made_at(other) < collect.made_at(record)
    )
