"""Directory trees as contents: a volume, or what a container changed in its root filesystem.

The container wrote these trees and may have left anything in them: no symlink is ever followed
(openat2 with RESOLVE_BENEATH and RESOLVE_NO_SYMLINKS), nothing but regular files and directories is
opened. How overlayfs marks what is gone: Documentation/filesystems/overlayfs.rst, "whiteouts and
opaque directories". Reading a tree is here, copying it in `capture`, writing it in `treewriter`.
"""

from __future__ import annotations

import errno
import io
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from ocickpt.engine.files.capture import attributes, capture, next_data
from ocickpt.engine.files.entries import carried
from ocickpt.engine.files.openat2 import STRICT, openat2
from ocickpt.engine.files.treewriter import TreeWriter
from ocickpt.errors import StorageError, UnsupportedError
from ocickpt.model import Content, Entry, FileType, Kind, Run

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

__all__ = ["TreeWriter", "capture", "carried", "hidden_by", "walk"]

_ROOT = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_DIRECTORY = _ROOT | os.O_NOFOLLOW
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
_BUFFER = 256 * 1024
_OVERLAY = "trusted.overlay."
_TYPES = {
    stat.S_IFREG: FileType.REGULAR,
    stat.S_IFDIR: FileType.DIRECTORY,
    stat.S_IFLNK: FileType.SYMLINK,
    stat.S_IFCHR: FileType.CHARACTER,
    stat.S_IFBLK: FileType.BLOCK,
    stat.S_IFIFO: FileType.FIFO,
}


def walk(root: Path, kind: Kind, prefix: str = "", *, overlay: bool = False) -> Iterator[Content]:
    """The tree below the directory `root`, sorted, parents first; `root` itself is `prefix` or ``.``.

    Regular files (with their holes), directories, symlinks, devices and fifos; of hard links the
    first is the file and the others are HARDLINK; sockets are left out, they belong to processes.
    Modes are permission bits, attributes those that `carried` names. With `overlay`, `root` is an
    overlay's upper directory: whiteouts become WHITEOUT, opaque directories OPAQUE.

    Each `open` opens its file anew, so that no descriptor is held but for streams in use.
    Raises StorageError when something cannot be read, or is not what it was when it was listed;
    UnsupportedError for overlay features that hide content elsewhere (redirect_dir, metacopy).
    """
    walking = _Walk(root, kind, prefix, overlay)
    pending = [walking.listed_root()]
    while pending:
        item = pending.pop()
        yield walking.content(item)
        if stat.S_ISDIR(item.status.st_mode):
            pending.extend(reversed(walking.children(item.path)))


@dataclass(frozen=True, slots=True)
class _Item:
    """A listed file, before it is known whether another name of it comes first."""

    path: str
    """Below the root; empty for the root itself."""
    type: FileType
    status: os.stat_result
    xattrs: tuple[tuple[str, bytes], ...] = ()
    link: str = ""
    runs: tuple[Run, ...] = ()


class _Walk:
    """One walk under way."""

    def __init__(self, root: Path, kind: Kind, prefix: str, overlay: bool) -> None:
        self._root = root
        self._kind = kind
        self._prefix = prefix
        self._overlay = overlay
        self._links: dict[tuple[int, int], str] = {}

    def listed_root(self) -> _Item:
        with _Opened(self._root) as opened:
            found = attributes(opened, carried)
            return _Item("", FileType.DIRECTORY, os.fstat(opened), tuple(found))

    def children(self, path: str) -> list[_Item]:
        """What is in the directory at `path`, sorted, sockets left out."""
        with _Opened(self._root, path, _DIRECTORY) as opened:
            names = sorted(_names(opened))
            items = (self._item(opened, name, f"{path}/{name}" if path else name) for name in names)
            return [item for item in items if item]

    def _item(self, directory: int, name: str, path: str) -> _Item | None:
        try:
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
            type_ = _TYPES.get(stat.S_IFMT(status.st_mode))
            if type_ is None:
                return None
            found = attributes(f"/proc/self/fd/{directory}/{name}", self._wanted)
            if self._overlay:
                type_ = _overlay_type(path, type_, status, dict(found))
                found = [pair for pair in found if not _is_overlay(pair[0])]
            link = os.readlink(name, dir_fd=directory) if type_ is FileType.SYMLINK else ""
            runs = _runs(directory, name, status) if type_ is FileType.REGULAR and status.st_size else ()
        except OSError as error:
            raise StorageError(f"cannot read {path}: {error.strerror}") from error
        return _Item(path, type_, status, tuple(found), link, runs)

    def _wanted(self, name: str) -> bool:
        return carried(name) or (self._overlay and _is_overlay(name))

    def content(self, item: _Item) -> Content:
        """`item` as a content, or as a hard link to one that came before."""
        status = item.status
        path = "/".join(filter(None, (self._prefix, item.path))) or "."
        if item.type is FileType.WHITEOUT:
            return Content(Entry(self._kind, FileType.WHITEOUT, path))
        if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
            first = self._links.setdefault((status.st_dev, status.st_ino), path)
            if first != path:
                return Content(Entry(self._kind, FileType.HARDLINK, path, link=first))
        device = item.type in (FileType.CHARACTER, FileType.BLOCK)
        entry = Entry(
            kind=self._kind,
            type=item.type,
            path=path,
            mode=stat.S_IMODE(status.st_mode),
            uid=status.st_uid,
            gid=status.st_gid,
            mtime=status.st_mtime_ns,
            size=status.st_size if item.type is FileType.REGULAR else 0,
            link=item.link,
            major=os.major(status.st_rdev) if device else 0,
            minor=os.minor(status.st_rdev) if device else 0,
            xattrs=item.xattrs,
        )
        if not item.runs:
            return Content(entry)
        return Content(entry, item.runs, lambda: _reader(self._root, item))


def _overlay_type(path: str, type_: FileType, status: os.stat_result, marks: dict[str, bytes]) -> FileType:
    """What a file in an upper directory stands for, by its attributes `marks`."""
    for name in ("redirect", "metacopy"):
        if _OVERLAY + name in marks:
            raise UnsupportedError(
                f"{path} has its content in another layer (overlay {name})",
                hint="mount containers' overlays with redirect_dir=off and metacopy=off",
            )
    if type_ is FileType.CHARACTER and status.st_rdev == 0:
        return FileType.WHITEOUT
    if type_ is FileType.REGULAR and _OVERLAY + "whiteout" in marks:
        return FileType.WHITEOUT
    if type_ is FileType.DIRECTORY and marks.get(_OVERLAY + "opaque") == b"y":
        return FileType.OPAQUE
    return type_


def _runs(directory: int, name: str, status: os.stat_result) -> tuple[Run, ...]:
    """Where a file has bytes; only files that may have holes are opened for it."""
    if status.st_blocks * 512 >= status.st_size:
        return (Run(0, status.st_size),)
    opened = os.open(name, _FILE | os.O_CLOEXEC, dir_fd=directory)
    try:
        now = os.fstat(opened)
        if not stat.S_ISREG(now.st_mode) or now.st_ino != status.st_ino:
            raise StorageError(f"{name} was replaced while it was read")
        found, position = [], 0
        while position < status.st_size:
            begin, position = next_data(opened, position, status)
            if begin < position:
                found.append(Run(begin, position - begin))
        return tuple(found)
    finally:
        os.close(opened)


class _Opened:
    """A context with a descriptor for `path` below the trusted directory `root`."""

    def __init__(self, root: Path, path: str = "", flags: int = _ROOT) -> None:
        self._root = root
        self._path = path
        self._flags = flags
        self._descriptor = -1

    def __enter__(self) -> int:
        self._descriptor = _open_below(self._root, self._path, self._flags)
        return self._descriptor

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)


def _open_below(root: Path, path: str, flags: int) -> int:
    try:
        outer = os.open(root, _ROOT)
        if not path:
            return outer
        try:
            return openat2(outer, path, flags, resolve=STRICT)
        finally:
            os.close(outer)
    except OSError as error:
        raise StorageError(f"cannot open {path or root}: {error.strerror}") from error


def _reader(root: Path, item: _Item) -> BinaryIO:
    return cast(BinaryIO, io.BufferedReader(_Reader(root, item), _BUFFER))


class _Reader(io.RawIOBase):
    """The bytes of a file's runs, provided that it is still the file that was listed."""

    def __init__(self, root: Path, item: _Item) -> None:
        self._descriptor = -1
        self._item = item
        self._runs = iter(item.runs)
        self._offset = self._left = 0
        self._descriptor = _open_below(root, item.path, _FILE)
        self._check()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer).cast("B")
        if not self._left:
            run = next(self._runs, None)
            if run is None:
                return 0
            self._offset, self._left = run.offset, run.length
        try:
            found = os.preadv(self._descriptor, [view[: self._left]], self._offset)
        except OSError as error:
            raise StorageError(f"cannot read {self._item.path}: {error.strerror}") from error
        if not found:
            raise StorageError(f"{self._item.path} became shorter while it was read")
        self._offset += found
        self._left -= found
        if not self._left:
            self._check()
        return found

    def close(self) -> None:
        if not self.closed and self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        super().close()

    def _check(self) -> None:
        now, was = os.fstat(self._descriptor), self._item.status
        if (now.st_ino, now.st_size, now.st_mtime_ns) != (was.st_ino, was.st_size, was.st_mtime_ns):
            self.close()
            raise StorageError(f"{self._item.path} changed while it was read")


def hidden_by(upper: Path, lowers: Sequence[Path], directory: str) -> list[str]:
    """What the opaque `directory` of an overlay's `upper` hides: names that `lowers` (topmost first) show there.

    Names that `upper` has itself are left out. Podman's archives need this: they know lists of
    deleted paths, no opaque directories. Raises StorageError when a layer cannot be read.
    """
    names, whiteouts, _ = _layer(upper, directory)
    own = {*names, *whiteouts}  # what it hides by itself is named already
    gone: set[str] = set()
    found: set[str] = set()
    for lower in lowers:
        names, whiteouts, last = _layer(lower, directory)
        found.update(set(names) - gone)
        gone.update(whiteouts)
        if last:
            break
    return sorted(found - own)


def _layer(layer: Path, directory: str) -> tuple[list[str], list[str], bool]:
    """The names and the whiteouts that a layer has in `directory`, and whether it hides the layers below it."""
    last, parts = False, directory.split("/")
    for depth in range(1, len(parts) + 1):
        ancestor = "/".join(parts[:depth])
        try:
            with _Opened(layer, ancestor, _DIRECTORY) as opened:
                last = last or (_OVERLAY + "opaque", b"y") in attributes(opened, _is_overlay)
                if ancestor == directory:
                    names = _names(opened)
                    whiteouts = [name for name in names if _is_whiteout(opened, name)]
                    return sorted({*names} - {*whiteouts}), whiteouts, last
        except StorageError as error:
            number = error.__cause__.errno if isinstance(error.__cause__, OSError) else None
            if number == errno.ENOENT:
                return [], [], last
            if number in (errno.ENOTDIR, errno.ELOOP):
                return [], [], True
            raise
    return [], [], last


def _names(directory: int) -> list[str]:
    with os.scandir(directory) as found:
        return [entry.name for entry in found]


def _is_overlay(name: str) -> bool:
    return name.startswith(_OVERLAY)


def _is_whiteout(directory: int, name: str) -> bool:
    status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0
