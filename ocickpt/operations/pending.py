"""Checkpoints that were dumped and are not published, whichever verb has made them.

Each has a name by which `ocickpt push` publishes it and `ocickpt rm` removes it, whether its container is still
there or not. What else a checkpoint that died has left, or a journal that cannot be read, `ocickpt rm` ends as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ocickpt import rendezvous
from ocickpt.engine.podman import roots
from ocickpt.errors import BusyError, UsageError
from ocickpt.model import Progress, Published
from ocickpt.operations import journal, verbs, workdir
from ocickpt.operations.journal import Journal, Record
from ocickpt.store import Access

_SHORT_ID = 12


def waiting() -> list[Record]:
    """The dumps that are whole, those that somebody is publishing right now among them."""
    return [each for each in journal.records() if isinstance(each, journal.Dumping) and verbs.of(each).waits(each)]


def name_of(record: Record) -> str:
    """What `push` and `rm` find a waiting dump by: no other has the same."""
    if called := verbs.of(record).called(record):
        return called
    others = {each.container for each in waiting() if each.name == record.name}
    return record.name if others <= {record.container} else record.container[:_SHORT_ID]


def size(work: Path) -> int:
    """Bytes of what a dump keeps in its directory `work`."""
    total = 0
    if work == Path():
        return total
    for path in work.rglob("*"):
        with suppress(OSError):
            status = path.lstat()
            total += status.st_size if not path.is_dir() else 0
    return total


def find(source: str) -> Journal[Any] | None:
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
    return _locked(max(meant, key=lambda each: verbs.of(each).made_at(each))) if meant else None


def push(waits: Journal[Any], ref: str | None, access: Access, progress: Progress) -> Published:
    """Publish a dump where it was to go, or as `ref`; when that fails it goes on waiting."""
    return verbs.of(waits.record).publish(waits, ref or waits.record.reference, access, progress)


def remove(source: str, progress: Progress) -> int | None:
    """End what `source` means of what dead operations left here, a dump that waits or any other, and what it keeps.

    The bytes that are free now; None when it means nothing. Raises what `find` does, and what is in the way.
    """
    ends = find(source) or _dead(source)
    if ends is None:
        return _remove_unreadable(source)
    freed = size(Path(ends.record.work))
    try:
        return freed + verbs.of(ends.record).give_up(ends, progress)
    finally:
        ends.leave()


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
        verb = verbs.of(record)
        if journal.is_busy(record) or verb.goes_on(record):
            continue
        why = f": {record.reason}" if record.reason else ""
        if verb.waits(record):
            name = name_of(record)
            found = f"the checkpoint of {record.name!r} is not published as {record.reference}{why}"
            yield Left(found, f"`ocickpt push {name}` publishes it, `ocickpt rm {name}` removes it")
            continue
        found = f"{record.verb} of container {record.name!r} ({record.reference}) stopped at {record.step!r}{why}"
        yield Left(found, f"the same command again finishes it or puts things back; {verb.remedy(record)}")
    for path, trouble in journal.unreadable():
        yield Left(trouble, f"`ocickpt rm {path.stem}` removes it, and what was kept for it")


def _means(source: str, record: Record) -> bool:
    by_id = len(source) >= _SHORT_ID and record.container.startswith(source)
    called = verbs.of(record).called(record)
    return by_id or source == record.name or bool(called and source == called)


def _locked(record: Record) -> Journal[Any]:
    for orphan in journal.orphans():
        if orphan.record.key == record.key:
            return orphan.keep()
    raise BusyError(f"somebody is at work on the {record.verb} of container {record.name!r}")


def _dead(source: str) -> Journal[Any] | None:
    """What a checkpoint that died left at any other step; a restore is whoever's container it made."""
    for orphan in journal.orphans():
        record = orphan.record
        if not isinstance(record, journal.Restore) and (source == record.key or _means(source, record)):
            return orphan.keep()
    return None


def _remove_unreadable(key: str) -> int | None:
    if not any(key == path.stem for path, _ in journal.unreadable()):
        return None
    work = rendezvous.work_directory(roots.roots().graph, key)
    freed = size(work)
    workdir.remove(work)
    journal.remove_unreadable(key)
    return freed
