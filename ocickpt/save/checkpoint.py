"""A running container becomes an artifact in a store: dumped, packed, sent, and last of all tagged."""

from __future__ import annotations

import os
from contextlib import closing

from ocickpt.artifact import publishing
from ocickpt.engine import criu, podman
from ocickpt.engine.container import Container
from ocickpt.errors import IncompatibleError, OcickptError, PrerequisiteError, RegistryError, UsageError
from ocickpt.lazy import following
from ocickpt.model import Progress, Published
from ocickpt.operations import interrupts, recovery
from ocickpt.operations.journal import Checkpoint, Journal, Record, orphans
from ocickpt.save import dump, publication, unrestorable
from ocickpt.save.dump import CheckpointOptions
from ocickpt.store import Access, open_store
from ocickpt.store.local import LocalStore
from ocickpt.store.reference import Reference

_SHORT_ID = 12
_KEPT = "the checkpoint is kept on this host: the same command again publishes it"

__all__ = ["CheckpointOptions", "Published", "checkpoint"]


def checkpoint(container: str, ref: str, options: CheckpointOptions, access: Access, progress: Progress) -> Published:
    """Checkpoint `container` into the artifact `ref`.

    A container that an earlier call dumped but did not get to publish is published now. When the store
    fails in the middle the dump is kept, for the same command to finish the job; when anything else
    fails the container runs again.
    """
    reference = Reference.parse(ref)
    if reference.digest:
        raise UsageError(f"{ref} names a digest: a new checkpoint goes under a tag")
    if os.geteuid():
        raise PrerequisiteError("podman checkpoints containers of root only", hint="run ocickpt as root")

    def mine(record: Record) -> bool:
        return isinstance(record, Checkpoint) and _means(container, podman.container_or_none(container), record)

    finished = recovery.recover(progress, mine)
    subject = podman.container_or_none(container)
    running = bool(subject and subject.status == "running")
    for record in finished if not running else ():
        # This very checkpoint had been interrupted when all but saying so was done.
        if record.reference == str(reference) and isinstance(record, Checkpoint) and record.published:
            return record.published
    with LocalStore() as local, closing(open_store(reference, access, create=True)) as store:
        journal = _pending(container, subject)
        if journal:
            again = "; it was started anew since, which a further checkpoint takes" if running else ""
            progress.note(f"container {container!r} was dumped before: that checkpoint is published now{again}")
        else:
            subject = podman.container(container)
            _check(subject)
            if subject.executing:
                progress.note("what `podman exec` started in the container is not part of a checkpoint")
            publishing.check_writable(store)
            following.wait_for_memory(subject.id, progress)
            with interrupts.undisturbed():
                journal = dump.begin(subject, str(reference), options, progress)
        try:
            if subject and journal.record.step == "begun":
                dump.dump(subject, options, journal, progress)
            published = publication.publish(journal.record, store, local, reference, progress)
            journal.step("published", reference=str(reference), published=published)
        except BaseException as error:
            with interrupts.undisturbed():
                _settle(journal, error, progress)
            raise
        with interrupts.undisturbed():
            dump.discard(journal)
    publishing.sweep()
    return published


def _pending(container: str, subject: Container | None) -> Journal[Checkpoint] | None:
    """The dump of that container (see `_means`) that waits to be published, locked for the caller."""
    for orphan in orphans():
        record = orphan.record
        if isinstance(record, Checkpoint) and record.step == "dumped" and _means(container, subject, record):
            return orphan.keep()
    return None


def _means(container: str, subject: Container | None, record: Record) -> bool:
    """Whether who writes `container`, which podman knows as `subject` if at all, means the one of that record."""
    if subject:
        return record.container == subject.id
    return container == record.name or (len(container) >= _SHORT_ID and record.container.startswith(container))


def _check(subject: Container) -> None:
    criu.pycriu_images()  # the description needs it: without, the container is not even touched
    if subject.status != "running":
        hint = f"`podman {'unpause' if subject.status == 'paused' else 'start'} {subject.name}` lets it run"
        if subject.checkpointed:
            hint = f"podman checkpointed it; `podman container restore {subject.name}` lets it run on"
        raise IncompatibleError(f"container {subject.name!r} is not running but {subject.status}", hint=hint)
    unrestorable.check(subject)


def _settle(journal: Journal[Checkpoint], error: BaseException, progress: Progress) -> None:
    """After `error` the container runs again, unless only the store is in the way; what became of it is told."""
    told = ""
    record = journal.record
    try:
        if record.step == "published" or (record.step == "dumped" and record.options.leave_running):
            dump.discard(journal)
        elif record.step != "dumped":
            told = _KEPT if dump.settle(journal) else ""
        elif isinstance(error, RegistryError | KeyboardInterrupt):
            dump.keep(journal, error.message if isinstance(error, RegistryError) else "interrupted")
            told = _KEPT
        else:
            dump.undo(journal)
    except (OcickptError, OSError) as problem:
        told = f"{problem}; {_KEPT if journal.record.step == 'dumped' else '`ocickpt doctor` tries again'}"
        journal.leave()
    if told and isinstance(error, OcickptError):
        error.hint = told
    elif told:
        progress.note(told)
