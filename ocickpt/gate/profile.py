"""A seccomp profile becomes a filter, by libseccomp: what the runtimes have done it with, and are linked against.

Source: runtime-spec, config-linux.md, "Seccomp"; runc libcontainer/seccomp/seccomp_linux.go, crun
src/libcrun/seccomp.c; libseccomp include/seccomp.h.in.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import functools
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from ocickpt.errors import IntegrityError, PrerequisiteError, UnsupportedError

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
_OPTIMIZE: Final = 8
"""SCMP_FLTATR_CTL_OPTIMIZE."""
_LIST, _TREE = 1, 2
"""How libseccomp sorts calls: as crun has it, and as runc has it when there are many."""
_GREATER, _LOOK = 0x25, 32
"""The first byte of BPF_JMP|JGT, of which a tree begins with many, and how far to look for it."""
_SORTED_FROM: Final = 32
"""With more calls than that runc has libseccomp make a binary tree of them."""
_UNKNOWN: Final = -1
"""__NR_SCMP_ERROR."""
_EXISTS: Final = 17
_MOST_CALLS: Final = 10_000


class _Condition(ctypes.Structure):
    _fields_ = (
        ("argument", ctypes.c_uint),
        ("operator", ctypes.c_int),
        ("first", ctypes.c_uint64),
        ("second", ctypes.c_uint64),
    )


@dataclass(frozen=True, slots=True)
class Call:
    """What a profile says of one system call; `conditions` on its arguments, all of which must hold."""

    name: str
    action: int
    conditions: tuple[tuple[int, int, int, int], ...]


def compiled(profile: dict[str, Any], *, like: bytes = b"") -> Iterator[bytes]:
    """The filters that the runtimes make of `profile` on this host, which sort it in two ways; that of crun first.

    With `like` a filter, that which is sorted as it is comes first. Raises IntegrityError for a profile that is none,
    UnsupportedError for an architecture that is unknown here, PrerequisiteError without libseccomp.
    """
    text = json.dumps(profile, sort_keys=True)
    levels = (_TREE, _LIST) if _GREATER in like[: 8 * _LOOK : 8] else (_LIST, _TREE)
    for level in levels:
        yield _compiled(text, level)


@functools.lru_cache(8)
def _compiled(text: str, level: int) -> bytes:
    profile = json.loads(text)
    try:
        default = _action(profile["defaultAction"], profile.get("defaultErrnoRet"))
        calls = list(_calls(profile, default))
        architectures = [str(each) for each in profile.get("architectures") or ()]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise IntegrityError(f"the container's seccomp profile is not of the right form: {error}") from error
    return _compile(default, architectures, calls, level)


def architectures() -> tuple[int, ...]:
    """The AUDIT_ARCH_… numbers of what this host's processor can run; x32 has that of x86-64."""
    native = int(_library().seccomp_arch_native())
    return (native, *_COMPANIONS.get(native, ()))


_COMPANIONS: Final = {0xC000003E: (0x40000003,), 0xC00000B7: (0x40000028,)}
"""i386 beside x86-64, arm beside aarch64 (linux/audit.h)."""


def name_of(architecture: int, number: int) -> str:
    """The name of a system call; its number where libseccomp knows none."""
    library = _library()
    found = library.seccomp_syscall_resolve_num_arch(architecture, number)
    if not found:
        return str(number)
    try:
        return str(ctypes.string_at(found).decode("ascii"))
    finally:
        _libc().free(ctypes.c_void_p(found))


def _calls(profile: dict[str, Any], default: int) -> Iterator[Call]:
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


def _compile(default: int, architectures: list[str], calls: list[Call], level: int) -> bytes:
    library = _library()
    with _context(default) as context:
        for name in architectures:
            _check(library.seccomp_arch_add(context, _architecture(name)), f"architecture {name[:50]!r}")
        if level == _TREE and len(calls) > _SORTED_FROM:
            library.seccomp_attr_set(context, _OPTIMIZE, level)
        for call in calls:
            number = library.seccomp_syscall_resolve_name(call.name.encode("utf-8", "surrogateescape"))
            if number == _UNKNOWN:
                continue  # the runtimes leave out what they do not know
            conditions = (_Condition * len(call.conditions))(*(_Condition(*each) for each in call.conditions))
            done = library.seccomp_rule_add_array(context, call.action, number, len(conditions), conditions)
            _check(done, f"system call {call.name[:50]!r}")
        return _export(context)


@contextmanager
def _context(default: int) -> Iterator[ctypes.c_void_p]:
    made = _library().seccomp_init(default)
    if not made:
        raise IntegrityError("the container's seccomp profile has a default action that libseccomp does not know")
    context = ctypes.c_void_p(made)
    try:
        yield context
    finally:
        _library().seccomp_release(context)


def _export(context: ctypes.c_void_p) -> bytes:
    handle = os.memfd_create("filter", os.MFD_CLOEXEC)
    try:
        _check(_library().seccomp_export_bpf(context, handle), "whole")
        return os.pread(handle, os.fstat(handle).st_size, 0)
    finally:
        os.close(handle)


def _check(status: int, what: str) -> None:
    if status < 0 and -status != _EXISTS:
        raise IntegrityError(f"the container's seccomp profile cannot be compiled: {what}: {os.strerror(-status)}")


def _architecture(name: str) -> int:
    token = int(_library().seccomp_arch_resolve_name(name.removeprefix("SCMP_ARCH_").lower().encode()))
    if not token:
        raise UnsupportedError(f"the container's seccomp profile is for the architecture {name[:50]!r}, unknown here")
    return token


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)


@functools.cache
def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL("libseccomp.so.2")
    except OSError as error:
        raise PrerequisiteError(
            "libseccomp cannot be loaded", hint="install libseccomp2 (Debian) or libseccomp (Fedora)"
        ) from error
    library.seccomp_init.argtypes, library.seccomp_init.restype = [ctypes.c_uint32], ctypes.c_void_p
    library.seccomp_arch_resolve_name.restype = ctypes.c_uint32
    library.seccomp_arch_native.restype = ctypes.c_uint32
    library.seccomp_arch_add.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
    library.seccomp_attr_set.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32]
    library.seccomp_rule_add_array.argtypes = [
        ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint, ctypes.c_void_p,
    ]  # fmt: skip
    library.seccomp_export_bpf.argtypes = [ctypes.c_void_p, ctypes.c_int]
    library.seccomp_release.argtypes = [ctypes.c_void_p]
    library.seccomp_syscall_resolve_num_arch.argtypes = [ctypes.c_uint32, ctypes.c_int]
    library.seccomp_syscall_resolve_num_arch.restype = ctypes.c_void_p
    return library
