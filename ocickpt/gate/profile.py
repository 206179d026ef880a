"""A seccomp profile becomes the filter that the runtimes make of it.

Source: runtime-spec, config-linux.md, "Seccomp"; runc libcontainer/seccomp/seccomp_linux.go, crun
src/libcrun/seccomp.c.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ocickpt import atomic
from ocickpt.errors import IntegrityError

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


def compiled(profile: dict[str, Any], *, like: bytes = b"") -> Iterator[bytes]:
    """The filters that the runtimes make of `profile` on this host, which sort it in two ways; that of crun first.

    With `like` a filter, that which is sorted as it is comes first. Raises IntegrityError for a profile that is none,
    UnsupportedError for an architecture that is unknown here, PrerequisiteError without libseccomp.
    """
    text = json.dumps(profile, sort_keys=True)
    levels = (_TREE, _LIST) if _GREATER in like[: 8 * _LOOK : 8] else (_LIST, _TREE)
    for level in levels:
        yield _compiled(text, level)


def _compiled(text: str, level: int) -> bytes:
    """The filter, from where it was put when it was compiled before: mostly it is the same few profiles."""
    path = CACHE / f"{hashlib.sha256(text.encode()).hexdigest()}-{level}"
    with contextlib.suppress(OSError):
        return path.read_bytes()
    code = _compile_text(text, level)
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


def _compile_text(text: str, level: int) -> bytes:
    profile = json.loads(text)
    try:
        default = _action(profile["defaultAction"], profile.get("defaultErrnoRet"))
        calls = list(_calls(profile, default))
        architectures = [str(each) for each in profile.get("architectures") or ()]
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise IntegrityError(f"the container's seccomp profile is not of the right form: {error}") from error
    from ocickpt.gate import libseccomp  # not for a profile that was compiled before

    return libseccomp.compile_calls(default, architectures, calls, sort=level == _TREE and len(calls) > _SORTED_FROM)


def _calls(profile: dict[str, Any], default: int) -> Iterator[Call]:
    from ocickpt.gate.libseccomp import Call

    count = 0
    for rule in profile.get("syscalls") or ():
        action = _action(rule["action"], rule.get("errnoRet"))
        conditions = tuple(
            (int(each["index"]), _OPERATORS[each["op"]], int(each.get("value") or 0), int(each.get("valueTwo") or 0))
            for each in rule.get("args") or ()
        )
        if any(not (0 <= index < 6 and 0 <= min(values) <= max(values) < 1 << 64) for index, _, *values in conditions):
            raise ValueError("a system call has six arguments of 64 bits")
        # Two conditions on one argument are alternatives (runc, crun: "Revert to old behavior").
        twice = len({index for index, *_ in conditions}) < len(conditions)
        for name in rule["names"]:
            count += 1
            if count > _MOST_CALLS:
                raise ValueError("it has too many rules")
            if action == default:
                continue
            for each in ((one,) for one in conditions) if twice else (conditions,):
                yield Call(str(name), action, each)


def _action(name: Any, errno: Any) -> int:
    if name not in _ACTIONS:
        raise ValueError(f"{str(name)[:100]!r} is no action")
    if name not in _WITH_ERRNO:
        return _ACTIONS[name]
    number = _EPERM if errno is None else int(errno)
    if not 0 <= number <= 0xFFFF:
        raise ValueError(f"{number} is no errno")
    return _ACTIONS[name] | number
