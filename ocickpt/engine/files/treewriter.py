"""Writes entries of a checkpoint into a live directory tree: a container's root, or a volume.

Neither is trusted. The entries come from an artifact, the tree may hold symlinks that were planted to
lead outside: every parent directory is resolved by openat2 as if the tree's root were ``/``, without
crossing mounts, and last components are never followed. What stands in an entry's way is removed.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from ocickpt.engine.files.entries import DIRECTORIES, NODES, check_path, check_tree
from ocickpt.engine.files.openat2 import (
    RESOLVE_IN_ROOT,
    RESOLVE_NO_MAGICLINKS,
    RESOLVE_NO_XDEV,
    empty,
    make_directory,
    openat2,
    remove,
)
from ocickpt.errors import IntegrityError, StorageError
from ocickpt.model import Entry, FileType

_RESOLVE = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV
_PARENT = os.O_RDONLY | os.O_DIRECTORY
_NODE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_REOPEN = os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_OPEN_FILES = 128
_HOSTILE = errno.ELOOP, errno.EXDEV
_SPECIAL = {FileType.CHARACTER: stat.S_IFCHR, FileType.BLOCK: stat.S_IFBLK, FileType.FIFO: stat.S_IFIFO}


@dataclass(slots=True)
class _File:
    """A regular file that was created here; `inode` tells whether a path still leads to it."""

    entry: Entry
    path: str
    device: int
    inode: int


class TreeWriter:
    """Applies a tree's entries: `prepare` once, `write` any number of times, `finish` once.

    A context manager, to be left when done or on any error; the tree is then as far as it got.
    """

    def __init__(self, root: Path) -> None:
        try:
            self._root = os.open(root, _PARENT | os.O_CLOEXEC)
        except OSError as error:
            raise StorageError(f"cannot open {root}: {error.strerror}") from error
        self._files: dict[int, _File] = {}
        self._entries: list[tuple[str, Entry]] = []
        self._open: OrderedDict[int, int] = OrderedDict()
        self._busy: dict[int, int] = {}
        self._lock = threading.Lock()
        self._strip = ""
        self.refused: list[tuple[str, str]] = []
        """Attributes that the filesystem does not take, as path and name; known after `finish`."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close every descriptor. Harmless when repeated."""
        with self._lock:
            while self._open:
                os.close(self._open.popitem()[1])
            if self._root >= 0:
                os.close(self._root)
                self._root = -1

    def prepare(self, entries: Sequence[tuple[int, Entry]], *, strip: str = "") -> None:
        """Make everything but contents, hard links and attributes; `entries` are (file number, entry).

        Whiteouts go first; then directories are made or kept, from the top down, and opaque ones
        emptied; then other files are made anew in the place of what is there. `strip` is a prefix
        that all paths have (a volume's name), and that the tree does not.

        Raises IntegrityError for paths that lead elsewhere or come twice, and for files that are not
        what a tree can hold; StorageError when the disk is full or cannot be written.
        """
        self._strip = strip
        self._entries = [(self._inside(entry.path), entry) for _, entry in entries]
        check_tree(self._entries)
        for path, entry in self._entries:
            if entry.type is FileType.WHITEOUT:
                with self._at(path, make=False) as (parent, name):
                    if parent >= 0:
                        remove(parent, name)
        for path, entry in sorted(self._directories(), key=_depth):
            with self._at(path) as (parent, name):
                make_directory(parent, name)
                if entry.type is FileType.OPAQUE:
                    empty(parent, name)
        for (number, entry), (path, _) in zip(entries, self._entries, strict=True):
            if entry.type in NODES and entry.type is not FileType.HARDLINK:
                self._node(number, path, entry)

    def write(self, number: int, offset: int, data: memoryview | bytes) -> None:
        """Write `data` into the regular file `number` at `offset`. From any thread.

        Raises IntegrityError when that is not within the file's size, StorageError when it fails.
        """
        file = self._files.get(number)
        if file is None or offset < 0 or offset + len(data) > file.entry.size:
            raise IntegrityError(f"file {number} has no {len(data)} bytes at {offset}")
        view = memoryview(data)
        with self._descriptor(number, file) as descriptor, _explained(file.path):
            while view:
                written = os.pwrite(descriptor, view, offset)
                view, offset = view[written:], offset + written

    def finish(self) -> None:
        """Make hard links, then set owners, modes, attributes and times; directories last, deepest first.

        Raises IntegrityError for hard links to what this tree did not make, StorageError.
        """
        with self._lock:
            while self._open:
                os.close(self._open.popitem()[1])
        made = {path for path, entry in self._entries if entry.type in NODES}
        for path, entry in self._entries:
            if entry.type is FileType.HARDLINK:
                self._link(path, self._inside(entry.link), made)
        for path, entry in self._entries:
            if entry.type in NODES and entry.type is not FileType.HARDLINK:
                self._dress(path, entry)
        for path, entry in sorted(self._directories(), key=_depth, reverse=True):
            self._dress(path, entry)

    def _directories(self) -> list[tuple[str, Entry]]:
        return [(path, entry) for path, entry in self._entries if entry.type in DIRECTORIES]

    def _inside(self, path: str) -> str:
        """`path` without the prefix, refused if it is not a plain relative path."""
        if self._strip:
            if path == self._strip:
                return "."
            if not path.startswith(self._strip + "/"):
                raise IntegrityError(f"{path[:200]!r} is not in {self._strip}")
            path = path[len(self._strip) + 1 :]
        return check_path(path)

    @contextmanager
    def _at(self, path: str, *, make: bool = True) -> Iterator[tuple[int, str]]:
        """The open parent directory of `path` and the last component.

        A missing parent is made, or given as -1 without `make`. Errors within are explained with `path`.
        """
        parent, _, name = path.rpartition("/")
        with _explained(path):
            opened = self._resolved(parent)
            if opened < 0 and make:
                self._parents(parent)
                opened = openat2(self._root, parent or ".", _PARENT, resolve=_RESOLVE)
            try:
                yield opened, name
            finally:
                if opened >= 0:
                    os.close(opened)

    def _resolved(self, directory: str) -> int:
        try:
            return openat2(self._root, directory or ".", _PARENT, resolve=_RESOLVE)
        except (FileNotFoundError, NotADirectoryError):
            return -1

    def _parents(self, directory: str) -> None:
        """Make `directory` and what it lies in; what resolves to a directory already is one."""
        parts = directory.split("/")
        for depth in range(1, len(parts) + 1):
            path = "/".join(parts[:depth])
            opened = self._resolved(path)
            if opened >= 0:
                os.close(opened)
            else:
                with self._at(path, make=False) as (parent, name):
                    make_directory(parent, name)

    def _node(self, number: int, path: str, entry: Entry) -> None:
        with self._at(path) as (parent, name):
            remove(parent, name)
            if entry.type is FileType.SYMLINK:
                os.symlink(entry.link, name, dir_fd=parent)
            elif entry.type is FileType.REGULAR:
                descriptor = os.open(name, _CREATE, 0o600, dir_fd=parent)
                try:
                    if entry.size:
                        os.truncate(descriptor, entry.size)
                    status = os.fstat(descriptor)
                    self._files[number] = _File(entry, path, status.st_dev, status.st_ino)
                finally:
                    os.close(descriptor)
            else:
                os.mknod(name, _SPECIAL[entry.type] | 0o600, os.makedev(entry.major, entry.minor), dir_fd=parent)

    def _link(self, path: str, first: str, made: set[str]) -> None:
        if first not in made or first == path:
            raise IntegrityError(f"{path[:200]} is a hard link to {first[:200]}, which the checkpoint does not have")
        with self._at(first) as (outer, target), self._at(path) as (parent, name):
            remove(parent, name)
            os.link(target, name, src_dir_fd=outer, dst_dir_fd=parent, follow_symlinks=False)

    def _dress(self, path: str, entry: Entry) -> None:
        """Owner first, because a change of owner clears set-id bits and capabilities; times last."""
        times = (entry.mtime, entry.mtime)
        with self._at(path) as (parent, name):
            if entry.type in DIRECTORIES or entry.type is FileType.REGULAR:
                descriptor = os.open(name or ".", _NODE, dir_fd=parent)
                try:
                    is_directory = stat.S_ISDIR(os.fstat(descriptor).st_mode)
                    if is_directory is (entry.type is FileType.REGULAR):
                        raise IntegrityError(f"{path[:200]} is not what the checkpoint says any more")
                    os.fchown(descriptor, entry.uid, entry.gid)
                    os.fchmod(descriptor, entry.mode & 0o7777)
                    self._attributes(descriptor, path, entry)
                    os.utime(descriptor, ns=times)
                finally:
                    os.close(descriptor)
                return
            os.chown(name, entry.uid, entry.gid, dir_fd=parent, follow_symlinks=False)
            node = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
            try:
                if entry.type is not FileType.SYMLINK and not stat.S_ISLNK(os.fstat(node).st_mode):
                    Path(f"/proc/self/fd/{node}").chmod(entry.mode & 0o7777)
                self._attributes(f"/proc/self/fd/{node}", path, entry)
            finally:
                os.close(node)
            os.utime(name, ns=times, dir_fd=parent, follow_symlinks=False)

    def _attributes(self, target: int | str, path: str, entry: Entry) -> None:
        for name, value in entry.xattrs:
            try:
                os.setxattr(target, name, value)
            except OSError as error:
                if error.errno != errno.ENOTSUP:
                    raise
                self.refused.append((path, name))

    @contextmanager
    def _descriptor(self, number: int, file: _File) -> Iterator[int]:
        """The open file `number`, which stays open while somebody writes to it."""
        with self._lock:
            descriptor = self._open.pop(number, -1)
            if descriptor < 0:
                self._shrink()
                descriptor = self._reopen(file)
            self._open[number] = descriptor
            self._busy[number] = self._busy.get(number, 0) + 1
        try:
            yield descriptor
        finally:
            with self._lock:
                self._busy[number] -= 1
                if not self._busy[number]:
                    del self._busy[number]

    def _shrink(self) -> None:
        """Close the files that nobody writes to, least recently used first, until one more may be open."""
        for number in [idle for idle in self._open if idle not in self._busy][: len(self._open) - _OPEN_FILES + 1]:
            os.close(self._open.pop(number))

    def _reopen(self, file: _File) -> int:
        with self._at(file.path) as (parent, name):
            descriptor = os.open(name, _REOPEN, dir_fd=parent)
            status = os.fstat(descriptor)
            if (status.st_dev, status.st_ino) != (file.device, file.inode):
                os.close(descriptor)
                raise IntegrityError(f"{file.path[:200]} is not the file that was made for it")
            return descriptor


def _depth(item: tuple[str, Entry]) -> int:
    return 0 if item[0] == "." else 1 + item[0].count("/")


@contextmanager
def _explained(path: str) -> Iterator[None]:
    """OSErrors as ours, with `path` in the sentence."""
    try:
        yield
    except OSError as error:
        if error.errno in _HOSTILE:
            raise IntegrityError(f"{path[:200]} leads out of its tree") from error
        hint = "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        raise StorageError(f"cannot write {path[:200]}: {error.strerror}", hint=hint) from error
