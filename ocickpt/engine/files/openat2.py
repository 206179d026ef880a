"""openat2(2), which Python does not have: paths that cannot lead out of a directory, and removing below one.

See man 2 openat2 and include/uapi/linux/openat2.h.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from ocickpt.errors import PrerequisiteError

RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

STRICT = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS
"""Nothing but names of real directories."""

_SYS_OPENAT2 = 437
"""The same on every architecture (it is younger than their unification)."""
_ATTEMPTS = 32
_libc = ctypes.CDLL(None, use_errno=True)


class _OpenHow(ctypes.Structure):
    """struct open_how."""

    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def openat2(directory: int, path: str, flags: int, *, mode: int = 0, resolve: int = 0) -> int:
    """A descriptor for `path` below the open `directory`.

    Raises OSError as open(2) does, ELOOP and EXDEV where `resolve` forbids what the path needs, and
    PrerequisiteError where the kernel is older than 5.6 or a seccomp filter hides the call.
    """
    how = _OpenHow(flags | os.O_CLOEXEC, mode, resolve)
    name = os.fsencode(path)
    if b"\0" in name:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), path)
    for _ in range(_ATTEMPTS):
        found = int(_libc.syscall(_SYS_OPENAT2, directory, name, ctypes.byref(how), ctypes.sizeof(how)))
        if found >= 0:
            return found
        number = ctypes.get_errno()
        if number == errno.ENOSYS:
            raise PrerequisiteError("this kernel has no openat2(2)", hint="Linux 5.6 or newer is needed")
        if number not in (errno.EAGAIN, errno.EINTR):  # EAGAIN: somebody renamed a directory of the path meanwhile
            break
    raise OSError(number, os.strerror(number), path)


def make_directory(parent: int, name: str) -> None:
    """See that `name` is a directory; anything else of that name gives way."""
    if name == ".":
        return
    try:
        if stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
            return
        os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        pass
    os.mkdir(name, 0o755, dir_fd=parent)


def remove(parent: int, name: str) -> None:
    """See that there is no `name`, whatever it is."""
    try:
        os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        return
    except IsADirectoryError:
        empty(parent, name)
        os.rmdir(name, dir_fd=parent)


def empty(parent: int, name: str) -> None:
    """Remove all that is in the directory `name`, crossing no symlink and no mount."""
    found: list[tuple[str, str]] = []
    pending = [name]
    while pending:
        path = pending.pop()
        with _strictly(parent, path) as opened:
            with os.scandir(opened) as entries:
                inner = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
            for child, is_directory in inner:
                if is_directory:
                    pending.append(f"{path}/{child}")
                    found.append((path, child))
                else:
                    os.unlink(child, dir_fd=opened)
    for path, child in reversed(found):
        with _strictly(parent, path) as opened:
            os.rmdir(child, dir_fd=opened)


@contextmanager
def _strictly(directory: int, path: str) -> Iterator[int]:
    opened = openat2(directory, path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, resolve=STRICT | RESOLVE_NO_XDEV)
    try:
        yield opened
    finally:
        os.close(opened)
