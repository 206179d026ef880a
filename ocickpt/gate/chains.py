"""Chains of seccomp filters: those that CRIU writes and the kernel takes, and the container's profile in each of them.

A thread installs its chain oldest first, or has that of its process's first thread, which installs it with TSYNC for
all of them. What a filter answers is unknown here.

Source: images/seccomp.proto; criu/seccomp.c (try_use_tsync, seccomp_prepare_threads); linux/kernel/seccomp.c.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

from ocickpt.errors import IntegrityError, UnsupportedError
from ocickpt.gate import bpf

DISABLED, STRICT, FILTER = 0, 1, 2
"""The modes of a thread (linux/seccomp.h)."""
TSYNC, LOG, SPEC_ALLOW = 1, 2, 4
"""The flags that CRIU restores; of these it never writes the last (SECCOMP_FILTER_FLAG_…)."""
_LONGEST: Final = 32768
"""Instructions of a chain, at most (MAX_INSNS_PER_PATH)."""
_EACH: Final = 4
"""What the kernel adds to that for each filter but the newest (seccomp_attach_filter)."""
_MOST_ADDED: Final = 64 << 20
"""Bytes of what is put in front of chains."""


class Filter(NamedTuple):
    """An entry of seccomp.img."""

    code: bytes
    flags: int
    younger: int | None
    """Which entry is installed next; the image calls it ``prev``."""


class Thread(NamedTuple):
    """What its core image says of a thread."""

    number: int
    mode: int
    oldest: int | None
    """Which entry of seccomp.img begins its chain, in mode FILTER."""


class _Rest(NamedTuple):
    """A filter and those that are installed after it."""

    length: int
    """As the kernel counts, with what it adds for each."""
    filters: int
    """How many they are."""
    synchronizing: int
    """How many of them have the flag TSYNC."""


class Chains:
    """The filters of a checkpoint, and the threads of each of its processes, the first thread first.

    IntegrityError for what CRIU does not write or the kernel does not take.
    """

    def __init__(self, filters: Sequence[Filter], processes: Iterable[Sequence[Thread]]) -> None:
        self._filters = filters
        self._younger_first = _younger_first(filters)
        self._rests = self._measured()
        self._processes = [process for process in processes if process]
        seen = set[int]()
        for process in self._processes:
            for thread in process:
                if thread.number in seen:
                    raise IntegrityError(f"thread {thread.number} of the checkpoint belongs to two processes")
                seen.add(thread.number)
                self._check(thread)
            self._check_synchronized(process)

    def _measured(self) -> list[_Rest]:
        """Every filter with what follows it."""
        lengths = {code: bpf.expanded(code) + _EACH for code in {each.code for each in self._filters}}
        found = [_Rest(0, 0, 0)] * len(self._filters)
        for at in self._younger_first:
            code, flags, younger = self._filters[at]
            if flags & ~(TSYNC | LOG | SPEC_ALLOW):
                raise IntegrityError(f"a seccomp filter of the checkpoint has the flags {flags:#x}")
            rest = found[younger] if younger is not None else _Rest(0, 0, 0)
            synchronizing = rest.synchronizing + bool(flags & TSYNC)
            found[at] = _Rest(lengths[code] + rest.length, rest.filters + 1, synchronizing)
        return found

    def _check(self, thread: Thread) -> None:
        if thread.mode in (DISABLED, STRICT):
            return
        if thread.mode != FILTER or thread.oldest is None:
            raise IntegrityError(f"thread {thread.number} of the checkpoint has a seccomp mode but no filter")
        if thread.oldest >= len(self._filters):
            raise IntegrityError(f"thread {thread.number} of the checkpoint has a seccomp filter that is not there")
        _check_length(thread, self._rests[thread.oldest].length)

    def _check_synchronized(self, process: Sequence[Thread]) -> None:
        """All of the first thread's chain is for all threads, which then have none of their own, or none of any is."""
        leader, *others = process
        chains = {thread.number: self._rests[thread.oldest or 0] for thread in process if thread.mode == FILTER}
        whole = self._is_for_all(leader)
        if (
            any(0 < rest.synchronizing < rest.filters for rest in chains.values())
            or any(thread.number in chains and chains[thread.number].synchronizing for thread in others)
            or (whole and any(thread.mode != DISABLED for thread in others))
        ):
            raise IntegrityError(
                f"process {leader.number} of the checkpoint has seccomp filters for all of its threads, and others"
            )

    def _is_for_all(self, leader: Thread) -> bool:
        """Whether the chain of a first thread becomes that of all threads of its process."""
        return leader.mode == FILTER and self._rests[leader.oldest or 0].synchronizing > 0

    def counts(self) -> dict[int, int]:
        """How many filters each thread has, by its number."""
        found = dict[int, int]()
        for process in self._processes:
            whole = self._is_for_all(process[0])
            for each in process:
                chain = process[0] if whole else each
                found[each.number] = self._rests[chain.oldest or 0].filters if chain.mode == FILTER else 0
        return found

    def begin_with(
        self, profile: Filter, is_profile: Callable[[Filter], bool], is_enough: Callable[[Filter], bool]
    ) -> tuple[list[Filter], dict[int, int]]:
        """What makes `profile` the oldest filter of every thread: the entries that are needed besides, and by thread
        which of all entries begins its chain from now on, where another one did.

        A chain is kept when `is_enough` says so of its oldest filter, or `is_profile` of any: the kernel takes the
        least that any filter of a chain permits, in whatever order they are. Else hosts that compile a profile
        differently would add to a chain at every move between them.
        """
        kept, added = self._with_profile(is_profile), dict[tuple[int | None, bool], int]()
        more: list[Filter] = []
        oldest: dict[int, int] = {}
        length = bpf.expanded(profile.code) + _EACH
        for process in self._processes:
            whole = self._is_for_all(process[0])
            bare = all(thread.mode == DISABLED for thread in process)
            for number, thread in enumerate(process):
                if thread.mode == STRICT:  # whoever has a filter cannot come into it (seccomp_may_assign_mode)
                    raise IntegrityError(
                        f"thread {thread.number} of the checkpoint is in seccomp's strict mode, without a filter"
                    )
                first = thread.oldest if thread.mode == FILTER else None
                if first is None and number and (whole or bare):
                    continue  # it gets that of the first thread
                if first is not None and (kept[first] or is_enough(self._filters[first])):
                    continue
                key = first, whole or bare
                if key not in added:
                    if (len(more) + 1) * len(profile.code) > _MOST_ADDED:
                        raise UnsupportedError(
                            "too many threads of the checkpoint are without the seccomp filter of their container"
                        )
                    rest = self._rests[first].length if first is not None else 0
                    _check_length(thread, length + rest, " with that of its container")
                    more.append(Filter(profile.code, profile.flags | (TSYNC if whole or bare else 0), first))
                    added[key] = len(self._filters) + len(more) - 1
                oldest[thread.number] = added[key]
        return more, oldest

    def _with_profile(self, is_profile: Callable[[Filter], bool]) -> list[bool]:
        """For every filter whether it or one that is installed after it is the profile."""
        found = [False] * len(self._filters)
        for at in self._younger_first:
            younger = self._filters[at].younger
            found[at] = (younger is not None and found[younger]) or is_profile(self._filters[at])
        return found


def _younger_first(filters: Sequence[Filter]) -> list[int]:
    """The entries, each after the one that is installed next; IntegrityError where that cannot be."""
    found: dict[int, None] = {}
    for first in range(len(filters)):
        path: dict[int, None] = {}
        at: int | None = first
        while at is not None and at not in found:
            if at >= len(filters):
                raise IntegrityError("a seccomp filter of the checkpoint is followed by one that is not there")
            if at in path:
                raise IntegrityError("seccomp filters of the checkpoint follow one another in a circle")
            path[at] = None
            at = filters[at].younger
        found |= dict.fromkeys(reversed(path))
    return list(found)


def _check_length(thread: Thread, length: int, more: str = "") -> None:
    if length - _EACH > _LONGEST:
        raise IntegrityError(
            f"the seccomp filters of thread {thread.number} of the checkpoint{more} are {length - _EACH} instructions"
            f" long, and the kernel takes {_LONGEST}"
        )
