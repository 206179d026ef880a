"""Which checkpoints of a repository are kept, as backup tools have it, and the removal of the others.

What remains needs nothing of what goes: each checkpoint lists all the blobs that it needs itself.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase

from ocickpt.errors import NotFoundError, UsageError
from ocickpt.library.catalog import Listed, list_checkpoints
from ocickpt.model import Progress
from ocickpt.store import Access, Store, open_store
from ocickpt.store.reference import Reference

_SPAN = re.compile(r"(?:(\d{1,9})w)?(?:(\d{1,9})d)?(?:(\d{1,9})h)?(?:(\d{1,9})m)?", re.ASCII)
_MOST = 1 << 20
"""Tags that are looked at: whoever removes looks at all."""


@dataclass(frozen=True)
class Keep:
    """What is kept of each container's checkpoints; whatever one of these names is."""

    last: int = 0
    hourly: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    within: timedelta | None = None
    """Of the newest one."""
    tags: tuple[str, ...] = ()
    """Patterns of a shell, held against tags."""

    def __post_init__(self) -> None:
        counts = self.last, self.hourly, self.daily, self.weekly, self.monthly
        if min(counts) < 0:
            raise UsageError("a number of checkpoints to keep is below zero")
        if not any(counts) and self.within is None and not self.tags:
            raise UsageError(
                "nothing says what is to be kept", hint="--keep-last 5 keeps the five newest ones of each container"
            )

    @staticmethod
    def span(text: str) -> timedelta:
        """A span of time like ``36h`` or ``2w3d``: weeks, days, hours, minutes; UsageError."""
        found = _SPAN.fullmatch(text)
        if not text or not found:
            raise UsageError(f"{text!r} is no span of time, as 36h or 2w3d are")
        weeks, days, hours, minutes = (int(each or 0) for each in found.groups())
        try:
            return timedelta(weeks=weeks, days=days, hours=hours, minutes=minutes)
        except OverflowError as error:
            raise UsageError(f"{text!r} is longer than there was time") from error


@dataclass(frozen=True)
class Pruned:
    """One checkpoint, and what became of it."""

    name: str
    digest: str
    created: str
    container: str
    size: int
    kept: tuple[str, ...]
    """Why it stays: `last`, `daily`, …, those of each of its tags, or what is wrong with it; nothing when it goes."""


def prune(repo: str, keep: Keep, access: Access, progress: Progress, *, dry_run: bool) -> list[Pruned]:
    """Remove the checkpoints of the repository `repo` that `keep` does not name; the newest comes first.

    With `dry_run` nothing is removed. What is damaged, or of a later format, stays.
    """
    decided = decide(list_checkpoints(repo, access, _MOST, progress), keep)
    if dry_run:
        return decided
    reference = Reference.parse(repo)
    with closing(open_store(reference, access)) as store:
        for each in decided:
            if not each.kept:
                _remove(store, reference, each)
    return decided


def _remove(store: Store, reference: Reference, gone: Pruned) -> None:
    """One checkpoint, unless somebody else has removed it, or given its tag to another."""
    tag = gone.name.rpartition(":")[2]
    with suppress(NotFoundError):
        if reference.transport == "docker":  # where a tag is deleted with the manifest that it has by then
            store.delete(gone.digest)
        elif store.resolve(tag)[0].digest == gone.digest:  # another repository's tag may be the same manifest's
            store.delete(tag)


def decide(found: Iterable[Listed], keep: Keep) -> list[Pruned]:
    """What becomes of each of these, the newest first. One manifest has one fate, whatever its tags."""
    groups = defaultdict[str, list[tuple[datetime, Listed]]](list)
    reasons = defaultdict[str, list[str]](list)
    damaged = list[Listed]()
    for each in found:
        created = _time(each.created)
        if each.state or created is None:
            damaged.append(each)
            reasons[each.digest].append(each.state or "undated")
        else:
            groups[each.container].append((created, each))
    for group in groups.values():
        group.sort(key=lambda pair: (pair[0], pair[1].name), reverse=True)
        for (_, each), why in zip(group, _reasons(group, keep), strict=True):
            reasons[each.digest] += why
    dated = sorted((pair for group in groups.values() for pair in group), key=lambda pair: pair[0], reverse=True)
    return [
        Pruned(
            each.name, each.digest, each.created, each.container, each.size, tuple(dict.fromkeys(reasons[each.digest]))
        )
        for each in (*(each for _, each in dated), *damaged)
    ]


def _reasons(group: Sequence[tuple[datetime, Listed]], keep: Keep) -> list[list[str]]:
    """Why each of a container's checkpoints, the newest first, is kept."""
    found: list[list[str]] = [[] for _ in group]
    rules: tuple[tuple[str, int, Callable[[int, datetime], object]], ...] = (
        ("last", keep.last, lambda number, _: number),
        ("hourly", keep.hourly, lambda _, when: (when.date(), when.hour)),
        ("daily", keep.daily, lambda _, when: when.date()),
        ("weekly", keep.weekly, lambda _, when: when.isocalendar()[:2]),
        ("monthly", keep.monthly, lambda _, when: (when.year, when.month)),
    )
    for name, most, period in rules:
        periods = set[object]()
        for number, (when, _) in enumerate(group):
            if (value := period(number, when)) not in periods and len(periods) < most:
                periods.add(value)
                found[number].append(name)
    newest = group[0][0]
    for number, (when, each) in enumerate(group):
        if keep.within is not None and newest - when <= keep.within:
            found[number].append("within")
        tag = each.name.rpartition(":")[2]
        if any(fnmatchcase(tag, pattern) for pattern in keep.tags):
            found[number].append("tag")
    return found


def _time(created: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(created)
    except ValueError:
        return None
    return found.astimezone(UTC) if found.tzinfo else None
