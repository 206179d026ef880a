"""Checkpoints that were dumped and are not published: those of `ocickpt checkpoint`, and those that podman made.

Each has a name by which `ocickpt push` publishes it and `ocickpt rm` removes it, whether its container is still
there or not. What else a checkpoint that died has left, or a journal that cannot be read, `ocickpt rm` ends as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from ocickpt.engine import roots
from ocickpt.errors import BusyError, OcickptError, UsageError
from ocickpt.flows import dump, dumped, journal, lazy, operation, package, publish, unpublished
from ocickpt.flows.journal import CHECKPOINT, INTERCEPT, RESTORE, UNPUBLISHED, Journal, Record
from ocickpt.flows.publish import Published
from ocickpt.model import Progress
from ocickpt.shim import EXPORT
from ocickpt.store import Access, open_store
from ocickpt.store.local import LocalStore
from ocickpt.store.reference import Reference

_SHORT_ID = 12


def waiting() -> list[Record]:
    """The dumps that are whole, those that somebody is publishing right now among them."""
    return [each for each in journal.records() if _waits(each)]


def name_of(record: Record) -> str:
    """What `push` and `rm` find a waiting dump by: no other has the same."""
    if record.verb == INTERCEPT:
        return unpublished.local_name(record)
    others = {each.container for each in waiting() if each.name == record.name}
    return record.name if others <= {record.container} else record.container[:_SHORT_ID]


def size(record: Record) -> int:
    """Bytes of what a dump keeps in its work directory."""
    total = 0
    for path in Path(record.work).rglob("*") if record.work else ():
        with suppress(OSError):
            status = path.lstat()
            total += status.st_size if not path.is_dir() else 0
    return total


def find(source: str) -> Journal | None:
    """The dump that `source` (a name of `name_of`, a container's name or id) means, locked; the newest of a container.

    UsageError when it means those of several containers, BusyError when somebody is at work on it.
    """
    meant = [each for each in waiting() if _means(source, each)]
    if len({each.container for each in meant}) > 1:
        ids = ", ".join(sorted(each.container[:_SHORT_ID] for each in meant))
        raise UsageError(
            f"several containers called {source!r} were dumped and not published",
            hint=f"name one by its id: {ids}",
        )
    return _locked(max(meant, key=_made_at)) if meant else None


def push(waits: Journal, ref: str | None, access: Access, progress: Progress) -> Published:
    """Publish a dump from its work directory, where it was to go or as `ref`; when that fails it goes on waiting."""
    record = waits.record
    reference = Reference.parse(ref or record.reference)
    try:
        with LocalStore() as local, closing(open_store(reference, access, create=True)) as store:
            published = dumped.publish(record, store, local, reference, progress)
        waits.step("published", reference=str(reference), published=asdict(published))
    except BaseException as error:
        with suppress(OcickptError):
            waits.step("dumped", reason=error.message if isinstance(error, OcickptError) else "interrupted")
        waits.leave()
        raise
    _forget(waits)
    publish.sweep()
    return published


def remove(source: str, progress: Progress) -> int | None:
    """End what `source` means of what dead operations left here, a dump that waits or any other, and what it keeps.

    The bytes that are free now; None when it means nothing. Raises what `find` does, and what is in the way.
    """
    ends = find(source) or _dead(source)
    if ends is None:
        return _remove_unreadable(source)
    record, freed = ends.record, size(ends.record)
    try:
        if record.verb == CHECKPOINT:
            dump.forget(ends)
        elif record.step in (UNPUBLISHED, "dumped"):
            freed += unpublished.remove(record)
            unpublished.drop(ends)
        else:
            unpublished.settle(ends, progress)
    finally:
        ends.leave()
    publish.sweep()
    return freed


@dataclass(frozen=True, slots=True)
class Left:
    """What a dead operation left, in a sentence, and what ends it."""

    found: str
    remedy: str


def left() -> list[Left]:
    """All that dead operations have left on this host and nobody is at work on."""
    return list(_left())


def _left() -> Iterator[Left]:
    for record in journal.records():
        if journal.is_busy(record) or lazy.follows(record):
            continue
        why = f": {record.reason}" if record.reason else ""
        if _waits(record):
            name = name_of(record)
            found = f"the checkpoint of {record.name!r} is not published as {record.reference}{why}"
            yield Left(found, f"`ocickpt push {name}` publishes it, `ocickpt rm {name}` removes it")
            continue
        found = f"{record.verb} of container {record.name!r} ({record.reference}) stopped at {record.step!r}{why}"
        ends = f"`ocickpt rm {record.key}` gives it up, and leaves the container as it is"
        if record.verb == RESTORE:
            ends = f"`podman rm --force {record.name}` and then `ocickpt doctor` take it back"
        yield Left(found, f"the same command again finishes it or puts things back; {ends}")
    for path, trouble in journal.unreadable():
        yield Left(trouble, f"`ocickpt rm {path.stem}` removes it, and what was kept for it")


def _waits(record: Record) -> bool:
    whole = record.step == "dumped" and not (record.verb == CHECKPOINT and record.leave_running)
    return record.verb in (CHECKPOINT, INTERCEPT) and (whole or record.step == UNPUBLISHED)


def _means(source: str, record: Record) -> bool:
    by_id = len(source) >= _SHORT_ID and record.container.startswith(source)
    return by_id or source == record.name or (record.verb == INTERCEPT and source == unpublished.local_name(record))


def _made_at(record: Record) -> int:
    if record.verb == INTERCEPT:
        return package.made_at(record)
    with suppress(OSError):
        return (Path(record.work) / EXPORT).stat().st_mtime_ns
    return 0


def _locked(record: Record) -> Journal:
    for orphan in journal.orphans():
        if orphan.record.key == record.key:
            return orphan.keep()
    raise BusyError(f"somebody is at work on the {record.verb} of container {record.name!r}")


def _dead(source: str) -> Journal | None:
    """What a checkpoint that died left at any other step; a restore is whoever's container it made."""
    for orphan in journal.orphans():
        record = orphan.record
        if record.verb != RESTORE and (source == record.key or _means(source, record)):
            return orphan.keep()
    return None


def _remove_unreadable(key: str) -> int | None:
    if not any(key == path.stem for path, _ in journal.unreadable()):
        return None
    work = roots.roots().graph / "ocickpt" / key
    freed = size(Record("", key, "", "", "", work=str(work)))
    operation.remove_directory(work)
    journal.remove_unreadable(key)
    return freed


def _forget(waits: Journal) -> None:
    """A dump is published."""
    if waits.record.verb == CHECKPOINT:
        dump.discard(waits)
    else:
        unpublished.drop(waits)
