"""The seccomp filters that CRIU gives to threads: the container's profile, as it is compiled here, and then their own.

Filters that a process has added itself come later in its chain (`chains`), and can only forbid more.

Source: images/seccomp.proto, core.proto; criu/seccomp.c, cr-restore.c; seccomp(2).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ocickpt.errors import IntegrityError
from ocickpt.gate import profile
from ocickpt.gate.bpf import Program, allows_no_more, only_refuses
from ocickpt.gate.chains import FILTER, LOG, SPEC_ALLOW, Chains, Filter, Thread
from ocickpt.gate.expected import Expected
from ocickpt.gate.images import Images, Message, encoded
from ocickpt.oci import Seccomp

_IMAGE: Final = "seccomp"
_MOST_COMPARED: Final = 4
"""Filters that are compared by what they answer, which takes long. A container has one oldest filter; moved between
hosts whose libseccomp differ it may have some."""
_CALLS: Final = 1024
"""No architecture has as many; x32 has its own from 2^30 on."""
_X32: Final = 1 << 30
_X86_64: Final = 0xC000003E


def confined(images: Images, expected: Expected) -> dict[str, bytes]:
    """The images that CRIU has to be given instead, by name: those which make the container's profile the oldest filter
    of every thread that has it not. None where all have it.

    Raises IntegrityError for chains of filters that cannot be.
    """
    entry = images.changeable(_IMAGE)
    filters = _filters(entry)
    chains = Chains(filters, _processes(images))
    if not expected.seccomp:
        return {}
    wanted = Wanted(expected.seccomp, filters[0].code if filters else b"")
    more, oldest = chains.begin_with(wanted.filter, wanted.is_profile, wanted.is_enough)
    for code, flags, younger in more:
        entry.seccomp_filters.add(filter=code, flags=flags, **({} if younger is None else {"prev": younger}))
    changed = {_IMAGE: entry} if more else {}
    for number, position in oldest.items():
        core = changed[f"core-{number}"] = images.changeable(f"core-{number}")
        core.thread_core.seccomp_mode, core.thread_core.seccomp_filter = FILTER, position
    return {f"{name}.img": encoded(name, message) for name, message in changed.items()}


def counts(images: Images) -> dict[int, int]:
    """How many filters each thread will have, by its id inside the container; errors as of `confined`."""
    return Chains(_filters(images.changeable(_IMAGE)), _processes(images)).counts()


def _filters(entry: Message) -> list[Filter]:
    return [
        Filter(bytes(each.filter), each.flags, each.prev if each.HasField("prev") else None)
        for each in entry.seccomp_filters
    ]


def _processes(images: Images) -> Iterator[list[Thread]]:
    """The threads of each process that has not ended."""
    for task in images.messages("pstree"):
        threads = []
        for number in dict.fromkeys((task.pid, *task.threads)):
            core = images.one(f"core-{number}")
            if number == task.pid and not core.HasField("thread_core"):
                break
            found = core.thread_core
            oldest = found.seccomp_filter if found.HasField("seccomp_filter") else None
            threads.append(Thread(number, found.seccomp_mode, oldest))
        yield threads


class Wanted:
    """A container's profile, and what is as good."""

    def __init__(self, wanted: Seccomp, like: bytes) -> None:
        """Of its two forms `filter` is that which is sorted as `like`."""
        self._profile = wanted
        self._flags = profile.flags(wanted)
        self._equal: dict[bytes, bool] = {}
        self._compared: dict[bytes, bool] = {}
        self.filter = Filter(next(profile.compiled(wanted, like=like)), self._flags, None)

    def is_profile(self, found: Filter) -> bool:
        """Whether it is what the runtimes make of the profile on this host."""
        if found.code not in self._equal:
            forms = profile.compiled(self._profile, like=found.code)
            self._equal[found.code] = any(_is(found.code, form) for form in forms)
        return self._equal[found.code] and self._has_flags(found)

    def is_enough(self, found: Filter) -> bool:
        """Whether it permits no more than the profile; another libseccomp may have compiled it, in another order."""
        if found.code not in self._compared:
            if len(self._compared) >= _MOST_COMPARED:
                return False
            try:
                self._compared[found.code] = not allowed_more(found.code, self.filter.code)
            except IntegrityError:  # no runtime's: nobody knows what it answers
                self._compared[found.code] = False
        return self._compared[found.code] and self._has_flags(found)

    def _has_flags(self, found: Filter) -> bool:
        """Whether as much is logged, and as little speculated, as with the profile."""
        return not (self._flags & ~found.flags & LOG or found.flags & ~self._flags & SPEC_ALLOW)


def _is(code: bytes, compiled: bytes) -> bool:
    """Whether a filter is the compiled one, perhaps with instructions in front that only refuse."""
    front = code.removesuffix(compiled)
    return not front or (len(front) < len(code) and only_refuses(front))


def allowed_more(code: bytes, limit: bytes) -> str:
    """A system call that the filter `code` allows and `limit` does not, in words; nothing if there is none.

    It may have been compiled by another libseccomp, in another order: so they are compared by what they answer.
    """
    from ocickpt.gate import libseccomp  # hardly ever, and it takes long to load

    found, wanted = Program(code), Program(limit)
    for architecture in libseccomp.architectures():
        bases = (0, _X32) if architecture == _X86_64 else (0,)
        for number in (base + each for base in bases for each in range(_CALLS)):
            answer, most = found.answer(architecture, number), wanted.answer(architecture, number)
            if not allows_no_more(answer, most):
                return f"it allows {libseccomp.name_of(architecture, number)}, which the profile does not"
    return ""
