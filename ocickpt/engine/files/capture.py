"""Copies a directory tree as it is, as fast as this host can, while the container is frozen.

What is copied is an overlay upper directory, with its whiteouts and overlay attributes, or a volume.
The container wrote it, so no symlink is followed and no name is looked up twice: everything goes
through directory descriptors. This runs inside the shim: nothing slow is imported.

An upper directory may say of a file that its content is in a layer below (metacopy), and of a directory that it was
another's name before (redirect): what is there is then taken as the container sees it. Documentation/filesystems/
overlayfs.rst, "redirect_dir" and "Metadata only copy up".
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from ocickpt.engine.files.openat2 import STRICT, openat2
from ocickpt.errors import StorageError, UnsupportedError

MAX_DEPTH = 400
"""Of nested directories; two descriptors are open for each."""
_LONGEST = 4095
"""Bytes of a path: PATH_MAX without its NUL (linux/limits.h)."""
_LATEST = (1 << 63) - 1
"""Nanoseconds since 1970, or before: what an index holds. Filesystems have later times than 2262."""
_METACOPY, _REDIRECT, _OPAQUE = "trusted.overlay.metacopy", "trusted.overlay.redirect", "trusted.overlay.opaque"
_LABEL = "security.selinux"
_FICLONE = 0x40049409  # linux/fs.h
_PIECE = 1 << 30
_NO_ATTRIBUTES = errno.ENOTSUP, errno.ENODATA
_CANNOT_CLONE = errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS, errno.EPERM, errno.ETXTBSY
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def capture(source: Path, target: Path, merged: Path | None = None) -> int:
    """Copy the directory `source` to the new directory `target`; how many bytes of content that took.

    With `merged`, where the overlay is mounted whose upper directory the source is, nothing of the copy has its content
    in another layer.

    Modes, owners, times, extended attributes (``trusted.overlay.*`` too; not SELinux labels), hard
    links, holes, devices and fifos are kept, sockets left out. Content is shared with the source
    where the filesystem can. Nothing is left of `target` to rely on when this fails.

    Raises StorageError when something cannot be read or written or changes meanwhile, UnsupportedError for what no
    checkpoint can hold: directories that are nested too deeply, paths that are too long, times that are too late.
    """
    copy = _Copy(_LONGEST - len(os.fsencode(target.name)) - 1)
    with ExitStack() as opened:
        try:
            target.mkdir(mode=0o700)
            outer = os.open(source, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            opened.callback(os.close, outer)
            copy.root = os.open(target, _OPEN_DIRECTORY)
            opened.callback(os.close, copy.root)
            if merged:
                copy.merged = os.open(merged, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                opened.callback(os.close, copy.merged)
                copy.wanted = _copied_whole
            copy.directory(outer, copy.root, "", 0)
        except OSError as error:
            where = copy.path or str(source)
            hint = "the disk is full" if error.errno == errno.ENOSPC else ""
            raise StorageError(f"cannot copy {where}: {error.strerror}", hint=hint) from error
    return copy.copied


class _Copy:
    """One copy under way."""

    def __init__(self, longest: int) -> None:
        self.root = -1
        self.merged = -1
        self.path = ""
        self._longest = longest
        self.wanted: Callable[[str], bool] = _copied
        self.copied = 0
        self._links: dict[tuple[int, int], str] = {}
        self._clones = True
        self._ranges = True

    def directory(self, source: int, target: int, path: str, depth: int) -> None:
        """Everything in the open directory `source`, then its own attributes."""
        if depth > MAX_DEPTH:
            raise UnsupportedError(f"{path[:200]}… is nested deeper than {MAX_DEPTH} directories")
        with os.scandir(source) as found:
            children = [(entry.name, entry.stat(follow_symlinks=False)) for entry in found]
        for name, status in children:
            self.path = f"{path}{name}"
            self._check(status)
            if stat.S_ISDIR(status.st_mode):
                self._subdirectory(source, target, name, depth)
            elif not stat.S_ISSOCK(status.st_mode) and not self._linked(target, name, status):
                if stat.S_ISREG(status.st_mode):
                    self._file(source, target, name, status)
                else:
                    self._special(source, target, name, status)
        self.path = path
        _dress(source, target, os.fstat(source), self.wanted)

    def _check(self, status: os.stat_result) -> None:
        if len(self.path) > self._longest // 4 and len(os.fsencode(self.path)) > self._longest:
            raise UnsupportedError(f"{self.path[:200]}… has a path of more than {self._longest} bytes")
        if abs(status.st_mtime_ns) > _LATEST:
            raise UnsupportedError(f"{self.path[:200]} is of a year after 2262, by its time: `touch` mends that")

    def _subdirectory(self, source: int, target: int, name: str, depth: int) -> None:
        path = self.path
        with ExitStack() as opened:
            inner = os.open(name, _OPEN_DIRECTORY, dir_fd=source)
            opened.callback(os.close, inner)
            redirected = self.merged >= 0 and _has(inner, _REDIRECT)
            if redirected:
                inner = self._seen(opened, _OPEN_DIRECTORY)
            os.mkdir(name, 0o700, dir_fd=target)
            outer = os.open(name, _OPEN_DIRECTORY, dir_fd=target)
            opened.callback(os.close, outer)
            self.directory(inner, outer, f"{path}/", depth + 1)
            if redirected:  # all that it has is in the copy
                os.setxattr(outer, _OPAQUE, b"y")

    def _seen(self, opened: ExitStack, flags: int) -> int:
        """What the container sees at the path that is copied: the overlay's root was opened, so nothing leads out."""
        found = openat2(self.merged, self.path, flags, resolve=STRICT)
        opened.callback(os.close, found)
        return found

    def _linked(self, target: int, name: str, status: os.stat_result) -> bool:
        """Whether `name` could be made another link to what was copied before."""
        if status.st_nlink < 2:
            return False
        inode = status.st_dev, status.st_ino
        first = self._links.get(inode)
        if first is not None:
            try:
                os.link(first, name, src_dir_fd=self.root, dst_dir_fd=target, follow_symlinks=False)
                return True
            except OSError as error:
                if error.errno not in (errno.EMLINK, errno.EPERM):  # EPERM: no links to whiteouts in a user namespace
                    raise
        self._links[inode] = self.path
        return False

    def _file(self, source: int, target: int, name: str, status: os.stat_result) -> None:
        with ExitStack() as opened:
            inner = os.open(name, _OPEN_FILE, dir_fd=source)
            opened.callback(os.close, inner)
            now = os.fstat(inner)
            if not stat.S_ISREG(now.st_mode) or now.st_ino != status.st_ino:
                raise StorageError(f"{self.path} was replaced while it was copied")
            outer = os.open(name, _CREATE, 0o600, dir_fd=target)
            opened.callback(os.close, outer)
            if now.st_size and self.merged >= 0 and _has(inner, _METACOPY):
                content = self._seen(opened, _OPEN_FILE)
                self._content(content, outer, os.fstat(content))
            elif now.st_size:
                self._content(inner, outer, now)
            _dress(inner, outer, now, self.wanted)

    def _content(self, source: int, target: int, status: os.stat_result) -> None:
        if self._clones:
            try:
                fcntl.ioctl(target, _FICLONE, source)
                self.copied += status.st_size
                return
            except OSError as error:
                if error.errno not in _CANNOT_CLONE:
                    raise
                self._clones = False
        os.truncate(target, status.st_size)
        position = 0
        while position < status.st_size:
            begin, end = next_data(source, position, status)
            self._range(source, target, begin, end)
            position = end

    def _range(self, source: int, target: int, begin: int, end: int) -> None:
        os.lseek(target, begin, os.SEEK_SET)
        while begin < end:
            moved = self._some(source, target, begin, min(end - begin, _PIECE))
            if not moved:
                raise StorageError(f"{self.path} became shorter while it was copied")
            begin += moved
            self.copied += moved

    def _some(self, source: int, target: int, offset: int, length: int) -> int:
        if self._ranges:
            try:
                return os.copy_file_range(source, target, length, offset)
            except OSError as error:
                if error.errno not in _CANNOT_CLONE:
                    raise
                self._ranges = False
        return os.sendfile(target, source, offset, length)

    def _special(self, source: int, target: int, name: str, status: os.stat_result) -> None:
        """A symlink, device or fifo: made, never opened."""
        if stat.S_ISLNK(status.st_mode):
            os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
        else:
            os.mknod(name, stat.S_IFMT(status.st_mode) | 0o600, status.st_rdev, dir_fd=target)
        os.chown(name, status.st_uid, status.st_gid, dir_fd=target, follow_symlinks=False)
        made = f"/proc/self/fd/{target}/{name}"
        if not stat.S_ISLNK(status.st_mode):
            Path(made).chmod(stat.S_IMODE(status.st_mode))
        original = f"/proc/self/fd/{source}/{name}"
        for attribute, value in attributes(original, self.wanted):
            os.setxattr(made, attribute, value, follow_symlinks=False)
        os.utime(name, ns=(status.st_atime_ns, status.st_mtime_ns), dir_fd=target, follow_symlinks=False)


def next_data(source: int, position: int, status: os.stat_result) -> tuple[int, int]:
    """Where the next bytes that are not a hole begin and end, from `position` on.

    Both are the file's size when only a hole follows. A file whose blocks are all there is not asked.
    """
    size = status.st_size
    if status.st_blocks * 512 >= size:
        return position, size
    try:
        begin = os.lseek(source, position, os.SEEK_DATA)
        return min(begin, size), min(os.lseek(source, begin, os.SEEK_HOLE), size)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return size, size
        if error.errno in (errno.EINVAL, errno.EOPNOTSUPP):
            return position, size
        raise


def attributes(source: int | str, wanted: Callable[[str], bool]) -> list[tuple[str, bytes]]:
    """The extended attributes with a `wanted` name, sorted, of a descriptor or (never followed) path."""
    follow = isinstance(source, int)
    try:
        names = os.listxattr(source, follow_symlinks=follow)
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return []
        raise
    found = []
    for name in sorted(filter(wanted, names)):
        try:
            found.append((name, os.getxattr(source, name, follow_symlinks=follow)))
        except OSError as error:
            if error.errno not in _NO_ATTRIBUTES:
                raise
    return found


def _has(source: int, name: str) -> bool:
    """Whether an open file has an extended attribute; seen through an overlay none has that is the overlay's."""
    try:
        os.getxattr(source, name)
    except OSError as error:
        if error.errno not in _NO_ATTRIBUTES:
            raise
        return False
    return True


def _copied(name: str) -> bool:
    return name != _LABEL


def _copied_whole(name: str) -> bool:
    return name not in (_LABEL, _METACOPY, _REDIRECT)


def _dress(source: int, target: int, status: os.stat_result, wanted: Callable[[str], bool]) -> None:
    """Owner, mode, attributes and times; in this order, because a change of owner clears the others."""
    os.fchown(target, status.st_uid, status.st_gid)
    os.fchmod(target, stat.S_IMODE(status.st_mode))
    for name, value in attributes(source, wanted):
        os.setxattr(target, name, value)
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
