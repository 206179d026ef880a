"""Unix sockets that have another name than they were bound to: CRIU gives them the name they were bound to.

A program that must not be seen half-made binds to one name and renames (a JVM's ``.java_pid1``).
"""

from __future__ import annotations

import ctypes
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from posixpath import dirname, join, split

from ocickpt.engine.files.openat2 import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, openat2

_MOST = 4096
_NO_REPLACE = 1
_libc = ctypes.CDLL(None, use_errno=True)


def renamed(pid: int, tree: list[int]) -> tuple[list[tuple[str, str]], list[str]]:
    """Of the sockets of the processes `tree`, whose files process `pid` sees: those that have another name in the same
    directory, as (bound, name), and those of which it is not known which that is."""
    bound = dict(_bound(pid))
    missing = {path: inode for path, inode in bound.items() if not _is_socket(pid, path)}
    if not missing:
        return [], []
    own = set(_open_inodes(tree))  # in its host's network it sees the sockets of others
    found, unknown = list[tuple[str, str]](), list[str]()
    ours = [path for path, inode in missing.items() if inode in own]
    for directory in sorted(set(map(dirname, ours))):
        gone = [path for path in ours if dirname(path) == directory]
        others = [name for name in _sockets_in(pid, directory) if join(directory, name) not in bound]
        if len(gone) == len(others) == 1:
            found.append((gone[0], join(directory, others[0])))
        elif others:
            unknown += gone
    return found, unknown


def rename(pid: int, bound: str, path: str) -> None:
    """Give the socket at `bound` the name `path`, where process `pid` sees them. OSError, also if something has it."""
    (directory, old), (there, new) = split(bound), split(path)
    if directory != there or "" in (old, new):
        raise OSError(f"{path} is not in the directory of {bound}")
    with _opened(pid, directory) as handle:
        if not stat.S_ISSOCK(os.stat(old, dir_fd=handle, follow_symlinks=False).st_mode):
            raise OSError(f"{bound} is no socket")
        # No link(2) and unlink(2): to the kernel, and CRIU, the socket would have no name any more.
        if _libc.renameat2(handle, old.encode(), handle, new.encode(), _NO_REPLACE):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), path)


def _bound(pid: int) -> Iterator[tuple[str, str]]:
    """The path and inode number of each socket that is bound to one, in the network of a process (unix(7))."""
    lines = Path(f"/proc/{pid}/net/unix").read_bytes().splitlines()[1:]
    for line in lines[:_MOST]:
        words = line.split(maxsplit=7)
        if len(words) == 8 and words[7].startswith(b"/"):
            with suppress(UnicodeDecodeError):
                yield words[7].decode(), words[6].decode()


def _open_inodes(tree: list[int]) -> Iterator[str]:
    for pid in tree:
        for path in Path(f"/proc/{pid}/fd").glob("*"):
            with suppress(OSError):
                target = str(path.readlink())
                if target.startswith("socket:["):
                    yield target[8:-1]


def _is_socket(pid: int, path: str) -> bool:
    directory, name = split(path)
    try:
        with _opened(pid, directory) as handle:
            return stat.S_ISSOCK(os.stat(name, dir_fd=handle, follow_symlinks=False).st_mode)
    except OSError:
        return False


def _sockets_in(pid: int, directory: str) -> list[str]:
    try:
        with _opened(pid, directory) as handle, os.scandir(handle) as entries:
            names = [entry.name for entry in entries if stat.S_ISSOCK(entry.stat(follow_symlinks=False).st_mode)]
    except OSError:
        return []
    return [name for name in names if name.isprintable()]


@contextmanager
def _opened(pid: int, directory: str) -> Iterator[int]:
    root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS
        handle = openat2(root, directory, os.O_RDONLY | os.O_DIRECTORY, resolve=resolve)
    finally:
        os.close(root)
    try:
        yield handle
    finally:
        os.close(handle)
