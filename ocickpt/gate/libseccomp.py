"""libseccomp, which runc and crun are linked against: what it makes of a profile's calls, and what it knows of them.

Source: libseccomp, include/seccomp.h.in.
"""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

from ocickpt.errors import IntegrityError, PrerequisiteError, UnsupportedError

_OPTIMIZE, _TREE = 8, 2
"""SCMP_FLTATR_CTL_OPTIMIZE, and its value for a binary tree."""
_UNKNOWN: Final = -1
"""__NR_SCMP_ERROR."""
_EXISTS: Final = 17


class _Condition(ctypes.Structure):
    _fields_ = (
        ("argument", ctypes.c_uint),
        ("operator", ctypes.c_int),
        ("first", ctypes.c_uint64),
        ("second", ctypes.c_uint64),
    )


class Call(NamedTuple):
    """What a profile says of one system call; `conditions` on its arguments, all of which must hold."""

    name: str
    action: int
    conditions: tuple[tuple[int, int, int, int], ...]


class _Version(ctypes.Structure):
    _fields_ = (("major", ctypes.c_uint), ("minor", ctypes.c_uint), ("micro", ctypes.c_uint))


def version() -> str:
    """That of the library: ``2.6.0``."""
    found = _library().seccomp_version().contents
    return f"{found.major}.{found.minor}.{found.micro}"


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


def compile_calls(default: int, architectures: Iterable[str], calls: Iterable[Call], *, sort: bool) -> bytes:
    """The filter for these architectures (``SCMP_ARCH_…``) and calls; with `sort` as a binary tree.

    Raises IntegrityError, UnsupportedError for what libseccomp does not take.
    """
    library = _library()
    with _context(default) as context:
        for name in architectures:
            _check(library.seccomp_arch_add(context, _architecture(name)), f"architecture {name[:50]!r}")
        if sort:
            library.seccomp_attr_set(context, _OPTIMIZE, _TREE)
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
            "libseccomp cannot be loaded, which makes a container's seccomp filter of its profile",
            hint="install libseccomp2 (Debian) or libseccomp (Fedora)",
        ) from error
    library.seccomp_version.restype = ctypes.POINTER(_Version)
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
