"""A seccomp profile becomes the filter that the runtimes make of it.

Source: runtime-spec, config-linux.md, "Seccomp"; runc libcontainer/seccomp/seccomp_linux.go, crun
src/libcrun/seccomp.c.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from ocickpt import atomic
from ocickpt.errors import IntegrityError
from ocickpt.gate.chains import LOG, SPEC_ALLOW
from ocickpt.oci import Condition, Seccomp

if TYPE_CHECKING:
    from ocickpt.gate.libseccomp import Call

_ACTIONS: Final = {
    "SCMP_ACT_KILL": 0x00000000, "SCMP_ACT_KILL_THREAD": 0x00000000, "SCMP_ACT_KILL_PROCESS": 0x80000000,
    "SCMP_ACT_TRAP": 0x00030000, "SCMP_ACT_ERRNO": 0x00050000, "SCMP_ACT_NOTIFY": 0x7FC00000,
    "SCMP_ACT_TRACE": 0x7FF00000, "SCMP_ACT_LOG": 0x7FFC0000, "SCMP_ACT_ALLOW": 0x7FFF0000,
}  # fmt: skip
_WITH_ERRNO: Final = ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE")
_EPERM: Final = 1
_OPERATORS: Final = {
    "SCMP_CMP_NE": 1, "SCMP_CMP_LT": 2, "SCMP_CMP_LE": 3, "SCMP_CMP_EQ": 4, "SCMP_CMP_GE": 5, "SCMP_CMP_GT": 6,
    "SCMP_CMP_MASKED_EQ": 7,
}  # fmt: skip
_LIST, _TREE = 1, 2
"""How libseccomp sorts calls: as crun has it, and as runc has it when there are many."""
CACHE = Path("/run/ocickpt/filters")
"""Root's alone, and gone with the next boot."""
_MOST_KEPT: Final = 64
_GREATER, _LOOK = 0x25, 32
"""The first byte of BPF_JMP|JGT, of which a tree begins with many, and how far to look for it."""
_SORTED_FROM: Final = 32
"""With more calls than that runc has libseccomp make a binary tree of them."""
_MOST_CALLS: Final = 10_000
_FLAGS: Final = {
    "SECCOMP_FILTER_FLAG_TSYNC": 0, "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": 0,
    "SECCOMP_FILTER_FLAG_LOG": LOG, "SECCOMP_FILTER_FLAG_SPEC_ALLOW": SPEC_ALLOW,
}  # fmt: skip
"""The first two say nothing of a filter that is there: how it gets to threads, and how its agent is asked."""


def compiled(profile: Seccomp, *, like: bytes = b"") -> Iterator[bytes]:
    """The filters that the runtimes make of `profile` on this host, which sort it in two ways; that of crun first.

    With `like` a filter, that which is sorted as it is comes first. Raises IntegrityError for a profile that says what
    cannot be, UnsupportedError for an architecture that is unknown here, PrerequisiteError without libseccomp.
    """
    name = hashlib.sha256(msgspec.json.encode(profile)).hexdigest()
    levels = (_TREE, _LIST) if _GREATER in like[: 8 * _LOOK : 8] else (_LIST, _TREE)
    for level in levels:
        yield _compiled(profile, name, level)


def flags(profile: Seccomp) -> int:
    """Those that the runtimes install the filter with; without any that is said, they have one.

    IntegrityError for one that they do not know.
    """
    if profile.flags is None:
        return SPEC_ALLOW
    if unknown := set(profile.flags) - _FLAGS.keys():
        raise IntegrityError(f"the container's seccomp profile has the flag {min(unknown)[:100]!r}, which is none")
    return sum(_FLAGS[each] for each in set(profile.flags))


def _compiled(profile: Seccomp, name: str, level: int) -> bytes:
    """The filter, from where it was put when it was compiled before: mostly it is the same few profiles."""
    path = CACHE / f"{name}-{level}"
    with contextlib.suppress(OSError):
        return path.read_bytes()
    code = _compile(profile, level)
    with contextlib.suppress(OSError):  # it is compiled again the next time
        _keep(path, code)
    return code


def _keep(path: Path, code: bytes) -> None:
    if os.geteuid():
        return
    for directory in (path.parent.parent, path.parent):
        directory.mkdir(mode=0o700, exist_ok=True)
    if len(list(path.parent.iterdir())) < _MOST_KEPT:  # a checkpoint may have any profile
        atomic.replace(path, code, suffix=f".{os.getpid()}")


def _compile(profile: Seccomp, level: int) -> bytes:
    try:
        default = _action(profile.default_action, profile.default_errno_ret)
        calls = list(_calls(profile, default))
    except ValueError as error:
        raise IntegrityError(f"the container's seccomp profile is not of the right form: {error}") from error
    from ocickpt.gate import libseccomp  # not for a profile that was compiled before

    sort = level == _TREE and len(calls) > _SORTED_FROM
    return libseccomp.compile_calls(default, list(profile.architectures), calls, sort=sort)


def _calls(profile: Seccomp, default: int) -> Iterator[Call]:
    from ocickpt.gate.libseccomp import Call

    count = 0
    for rule in profile.syscalls:
        action = _action(rule.action, rule.errno_ret)
        conditions = tuple(map(_condition, rule.args))
        # Two conditions on one argument are alternatives (runc, crun: "Revert to old behavior").
        twice = len({index for index, *_ in conditions}) < len(conditions)
        for name in rule.names:
            count += 1
            if count > _MOST_CALLS:
                raise ValueError("it has too many rules")
            if action == default:
                continue
            for each in ((one,) for one in conditions) if twice else (conditions,):
                yield Call(name, action, each)


def _condition(given: Condition) -> tuple[int, int, int, int]:
    if given.op not in _OPERATORS:
        raise ValueError(f"{given.op[:100]!r} is no operator")
    values = (given.value, given.value_two)
    if not (0 <= given.index < 6 and 0 <= min(values) <= max(values) < 1 << 64):
        raise ValueError("a system call has six arguments of 64 bits")
    return given.index, _OPERATORS[given.op], given.value, given.value_two


def _action(name: str, errno: int | None) -> int:
    if name not in _ACTIONS:
        raise ValueError(f"{name[:100]!r} is no action")
    if name not in _WITH_ERRNO:
        return _ACTIONS[name]
    number = _EPERM if errno is None else errno
    if not 0 <= number <= 0xFFFF:
        raise ValueError(f"{number} is no errno")
    return _ACTIONS[name] | number
