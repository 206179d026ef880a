"""Unix sockets that have another name than they were bound to: CRIU gives them the name they were bound to.

A program that must not be seen half-made binds to one name and renames (a JVM's ``.java_pid1``). The kernel says which
file a socket is bound to, as CRIU asks it: sock_diag(7), UDIAG_SHOW_VFS.
"""

from __future__ import annotations

import ctypes
import os
import socket
import stat
import struct
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from posixpath import join, split
from typing import Final, NamedTuple

from ocickpt.engine import mountinfo, namespaces
from ocickpt.engine.files.openat2 import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, openat2
from ocickpt.engine.mountinfo import Mount

_NO_REPLACE: Final = 1
_SOCK_DIAG, _BY_FAMILY, _REQUEST_DUMP, _ERROR, _DONE = 4, 20, 0x301, 2, 3
_ALL_STATES, _SHOW_NAME_AND_FILE, _NAME, _FILE = 0xFFFFFFFF, 3, 0, 1
_HEADER: Final = struct.Struct("=IHHII")
_QUESTION: Final = struct.Struct("=BBHIIIII")
_ANSWER: Final = struct.Struct("=BBBBIII")
_ATTRIBUTE: Final = struct.Struct("=HH")
_FOUND: Final = struct.Struct("=II")
"""linux/netlink.h and linux/unix_diag.h: nlmsghdr, unix_diag_req, unix_diag_msg, nlattr, unix_diag_vfs."""
_MINOR_BITS: Final = 20
_INODE: Final = 0xFFFFFFFF
"""What the kernel tells of an inode's number there."""
_libc = ctypes.CDLL(None, use_errno=True)


class File(NamedTuple):
    """What a socket is bound to, whatever its name is."""

    device: int
    """As of mountinfo: that of the filesystem, which stat(2) does not have of an overlay."""
    inode: int


class Bound:
    """The unix sockets that processes have open, and that are bound to a path."""

    def __init__(self, pid: int, tree: Iterable[int]) -> None:
        """Those of the processes `tree`, whose files process `pid` sees, in the network of that. OSError."""
        self._pid = pid
        self._mounts = {mount.id: mount for mount in mountinfo.mounts(pid)}
        self._listed = dict[str, dict[File, list[str]]]()
        self._files = dict[str, set[File]]()
        own = set(_open_inodes(tree))  # in its host's network it sees the sockets of others
        for inode, path, file in _bound(pid) if own else ():
            if inode in own:
                self._files.setdefault(path, set()).add(file)

    def renamed(self) -> tuple[list[tuple[str, str]], list[str]]:
        """Those that have another name in the same directory, as (bound, name), and those of which it cannot be said
        by one name which that is."""
        found, unknown = list[tuple[str, str]](), list[str]()
        for path, files in sorted(self._files.items()):
            moved = files - {self._at(path)}
            if not moved:
                continue
            directory, _ = split(path)
            names = [name for file in moved for name in self._names(directory).get(file, [])]
            if len(files) == len(names) == 1 and names[0].isprintable():
                found.append((path, join(directory, names[0])))
            elif names:
                unknown.append(path)
        return found, unknown

    def rename(self, bound: str, path: str, may: Callable[[Mount], bool]) -> None:
        """Give the socket that is bound to `bound`, and has that name, the name `path`, where they `may` be given.

        OSError, also if something has that name.
        """
        (directory, old), (there, new) = split(bound), split(path)
        if directory != there or "" in (old, new):
            raise OSError(f"{path} is not in the directory of {bound}")
        with _opened(self._pid, directory) as handle:
            mount = self._mount(handle)
            if not mount or not may(mount):
                raise OSError(f"{directory} is not the container's own")
            if _identity(handle, old, mount) not in self._files.get(bound, ()):
                raise OSError(f"{bound} is no socket of the container's")
            # No link(2) and unlink(2): to the kernel, and CRIU, the socket would have no name any more.
            if _libc.renameat2(handle, os.fsencode(old), handle, os.fsencode(new), _NO_REPLACE):
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number), path)

    def _mount(self, handle: int) -> Mount | None:
        return self._mounts.get(mountinfo.id_of(handle))

    def _at(self, path: str) -> File | None:
        directory, name = split(path)
        with suppress(OSError), _opened(self._pid, directory) as handle:
            return _identity(handle, name, self._mount(handle))
        return None

    def _names(self, directory: str) -> dict[File, list[str]]:
        """The names of the sockets in a directory."""
        if directory not in self._listed:
            found = self._listed[directory] = {}
            with suppress(OSError), _opened(self._pid, directory) as handle:
                mount = self._mount(handle)
                for name in os.listdir(handle):  # noqa: PTH208 - of a descriptor
                    if file := _identity(handle, name, mount):
                        found.setdefault(file, []).append(name)
        return self._listed[directory]


def _identity(handle: int, name: str, mount: Mount | None) -> File | None:
    """The socket of that `name` in the directory `handle`, which is on `mount`."""
    with suppress(FileNotFoundError):
        status = os.stat(name, dir_fd=handle, follow_symlinks=False)
        if mount and stat.S_ISSOCK(status.st_mode):
            return File(mount.device, status.st_ino & _INODE)
    return None


def _bound(pid: int) -> Iterator[tuple[int, str, File]]:
    """Each socket that is bound to a path, in the network of a process: its inode, that path, and its file."""
    question = _QUESTION.pack(socket.AF_UNIX, 0, 0, _ALL_STATES, 0, _SHOW_NAME_AND_FILE, 0, 0)
    header = _HEADER.pack(_HEADER.size + len(question), _BY_FAMILY, _REQUEST_DUMP, 0, 0)
    with namespaces.netlink(pid, _SOCK_DIAG) as asked:
        asked.send(header + question)
        while True:
            answers = memoryview(asked.recv(1 << 20))
            while answers:
                length, kind = _HEADER.unpack_from(answers)[:2]
                if kind == _DONE:
                    return
                if kind == _ERROR:
                    number = -struct.unpack_from("=i", answers, _HEADER.size)[0]
                    raise OSError(number, os.strerror(number))
                inode = _ANSWER.unpack_from(answers, _HEADER.size)[4]
                given = dict(_attributes(answers[_HEADER.size + _ANSWER.size : length]))
                path = given.get(_NAME, b"").partition(b"\0")[0]
                if path.startswith(b"/") and _FILE in given:
                    number, device = _FOUND.unpack(given[_FILE])
                    place = os.makedev(device >> _MINOR_BITS, device & (1 << _MINOR_BITS) - 1)
                    with suppress(UnicodeDecodeError):
                        yield inode, path.decode(), File(place, number)
                answers = answers[_aligned(length) :]


def _attributes(data: memoryview) -> Iterator[tuple[int, bytes]]:
    while data:
        length, kind = _ATTRIBUTE.unpack_from(data)
        yield kind, bytes(data[_ATTRIBUTE.size : length])
        data = data[_aligned(length) :]


def _aligned(length: int) -> int:
    return length + 3 & ~3


def _open_inodes(tree: Iterable[int]) -> Iterator[int]:
    for pid in tree:
        for path in Path(f"/proc/{pid}/fd").glob("*"):
            with suppress(OSError):
                target = str(path.readlink())
                if target.startswith("socket:["):
                    yield int(target[8:-1])


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
