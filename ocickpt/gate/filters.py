"""The seccomp filters that CRIU would give to threads: the container's profile is the oldest of every chain.

Filters that a process has added itself come later in its chain, and can only forbid more.

Source: images/seccomp.proto; criu/seccomp.c, cr-restore.c; seccomp(2).
"""

from __future__ import annotations

from typing import Final

from ocickpt.errors import IntegrityError
from ocickpt.gate import profile
from ocickpt.gate.expected import Expected
from ocickpt.gate.images import Images, Message
from ocickpt.oci import Seccomp

_DISABLED, _FILTER = 0, 2
_TSYNC: Final = 1
_KNOWN_FLAGS: Final = 0b111
"""TSYNC, LOG, SPEC_ALLOW (linux/seccomp.h)."""
_MOST_OLDEST: Final = 4
_CALLS: Final = 1024
"""No architecture has as many; x32 has its own from 2^30 on."""
_X32: Final = 1 << 30
_X86_64: Final = 0xC000003E


def check_filters(images: Images, expected: Expected) -> None:
    """Refuse threads that run under less than the container's profile. IntegrityError."""
    found = images.messages("seccomp")
    filters = list(found[0].seccomp_filters) if found else []
    oldest = dict[bytes, int]()
    cores = {number: messages[0] for number, messages in images.numbered("core").items()}
    for task in images.messages("pstree"):
        synchronized = False
        for thread in dict.fromkeys((task.pid, *task.threads)):
            core = cores.get(thread)
            if core is None or not core.HasField("thread_core"):
                continue
            chain = _chain(core.thread_core, filters, thread)
            if thread == task.pid:
                synchronized = bool(chain) and all(each.flags & _TSYNC for each in chain)
            if chain:
                oldest[bytes(chain[0].filter)] = thread
            elif expected.seccomp and (thread == task.pid or not synchronized):
                raise IntegrityError(
                    f"thread {thread} of the checkpoint has no seccomp filter, and its container has one"
                )
    if len(oldest) > _MOST_OLDEST:
        raise IntegrityError("the checkpoint's threads have different oldest seccomp filters: a container has one")
    if expected.seccomp:
        for code, thread in oldest.items():
            if problem := _weaker(code, expected.seccomp):
                raise IntegrityError(f"the oldest seccomp filter of thread {thread} is not the container's: {problem}")


def _chain(thread: Message, filters: list[Message], number: int) -> list[Message]:
    """The filters of a thread, oldest first: an image's `prev` is the one that is installed next (criu/seccomp.c)."""
    if thread.seccomp_mode == _DISABLED:
        return []
    found: list[Message] = []
    position: int | None = thread.seccomp_filter
    if thread.seccomp_mode != _FILTER or not thread.HasField("seccomp_filter"):
        raise IntegrityError(f"thread {number} of the checkpoint has a seccomp mode but no filter")
    while position is not None:
        if position >= len(filters) or len(found) > len(filters):
            raise IntegrityError(f"thread {number} of the checkpoint has a seccomp filter that is not there")
        each = filters[position]
        if each.flags & ~_KNOWN_FLAGS:
            raise IntegrityError(f"a seccomp filter of the checkpoint has the flags {each.flags:#x}")
        found.append(each)
        position = each.prev if each.HasField("prev") else None
    return found


def _weaker(code: bytes, wanted: Seccomp) -> str:
    """What a filter allows that the profile does not; nothing if there is none."""
    from ocickpt.gate.bpf import only_refuses

    compiled = b""
    for compiled in profile.compiled(wanted, like=code):
        front = code.removesuffix(compiled)
        if not front or (len(front) < len(code) and only_refuses(front)):
            return ""
    return allowed_more(code, compiled)


def allowed_more(code: bytes, limit: bytes) -> str:
    """A system call that the filter `code` allows and `limit` does not, in words; nothing if there is none.

    It may have been compiled by another libseccomp, in another order: so they are compared by what they answer.
    """
    from ocickpt.gate import libseccomp  # hardly ever, and it takes long to load
    from ocickpt.gate.bpf import Program, allows_no_more

    found, wanted = Program(code), Program(limit)
    for architecture in libseccomp.architectures():
        bases = (0, _X32) if architecture == _X86_64 else (0,)
        for number in (base + each for base in bases for each in range(_CALLS)):
            answer, most = found.answer(architecture, number), wanted.answer(architecture, number)
            if not allows_no_more(answer, most):
                return f"it allows {libseccomp.name_of(architecture, number)}, which the profile does not"
    return ""
