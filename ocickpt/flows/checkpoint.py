"""A running container becomes an artifact in a store: dumped, packed, sent, and last of all tagged."""

from __future__ import annotations

import os
from contextlib import closing
from dataclasses import asdict

from ocickpt.engine import criu, podman
from ocickpt.errors import IncompatibleError, OcickptError, PrerequisiteError, RegistryError, UsageError
from ocickpt.flows import dump, dumped, operation, publish, recover, status
from ocickpt.flows.dump import CheckpointOptions
from ocickpt.flows.journal import CHECKPOINT, Journal, Record
from ocickpt.flows.publish import Published
from ocickpt.model import Progress
from ocickpt.store import Access, open_store
from ocickpt.store.local import LocalStore
from ocickpt.store.reference import Reference

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
        return record.verb == CHECKPOINT and recover.means(container, podman.container_or_none(container), record)

    finished = recover.recover(progress, mine)
    subject = podman.container_or_none(container)
    running = bool(subject and subject.status == "running")
    for record in finished if not running else ():
        # This very checkpoint had been interrupted when all but saying so was done.
        if record.reference == str(reference):
            return Published(**record.published)
    with LocalStore() as local, closing(open_store(reference, access, create=True)) as store:
        journal = recover.pending(container, subject)
        if journal:
            again = "; it was started anew since, which a further checkpoint takes" if running else ""
            progress.note(f"container {container!r} was dumped before: that checkpoint is published now{again}")
        else:
            subject = podman.container(container)
            _check(subject)
            if subject.executing:
                progress.note("what `podman exec` started in the container is not part of a checkpoint")
            publish.check_writable(store)
            status.wait_for_memory(subject.id, progress)
            with operation.undisturbed():
                journal = dump.begin(subject, str(reference), options, progress)
        try:
            if subject and journal.record.step == "begun":
                dump.dump(subject, options, journal, progress)
            published = dumped.publish(journal.record, store, local, reference, progress)
            journal.step("published", reference=str(reference), published=asdict(published))
        except BaseException as error:
            with operation.undisturbed():
                _settle(journal, error, progress)
            raise
        with operation.undisturbed():
            dump.discard(journal)
    publish.sweep()
    return published


def _check(subject: podman.Container) -> None:
    criu.pycriu_images()  # the description needs it: without, the container is not even touched
    podman.check_supported(subject)
    if subject.status != "running":
        hint = f"`podman {'unpause' if subject.status == 'paused' else 'start'} {subject.name}` lets it run"
        if subject.checkpointed:
            hint = f"podman checkpointed it; `podman container restore {subject.name}` lets it run on"
        raise IncompatibleError(f"container {subject.name!r} is not running but {subject.status}", hint=hint)


def _settle(journal: Journal, error: BaseException, progress: Progress) -> None:
    """After `error` the container runs again, unless only the store is in the way; what became of it is told."""
    told = ""
    record = journal.record
    try:
        if record.step == "published" or (record.step == "dumped" and record.leave_running):
            dump.discard(journal)
        elif record.step != "dumped":
            told = _KEPT if dump.settle(journal) else ""
        elif isinstance(error, RegistryError | KeyboardInterrupt):
            dump.keep(journal, error.message if isinstance(error, RegistryError) else "interrupted")
            told = _KEPT
        else:
            dump.undo(journal)
    except OcickptError as problem:
        told = f"{problem.message}; {_KEPT if journal.record.step == 'dumped' else '`ocickpt doctor` tries again'}"
        journal.leave()
    if told and isinstance(error, OcickptError):
        error.hint = told
    elif told:
        progress.note(told)
