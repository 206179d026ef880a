"""File records: how an `Entry` is written in the index, and what a reader refuses.

A path out of an artifact is an outsider's word: everything here is checked on the way out and again on the way in.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterable, Iterator
from typing import Final

from ocickpt.errors import IntegrityError
from ocickpt.model import MAX_PATH, Entry, FileType, Kind

MAX_XATTR_NAME: Final = 255
MAX_XATTR_VALUE: Final = 64 << 10
MAX_SIZE: Final = (1 << 63) - 1

_FIXED: Final = struct.Struct("<BBIIIqQIIHHH")
_XATTR: Final = struct.Struct("<HI")
_DIRECTORIES: Final = (FileType.DIRECTORY, FileType.OPAQUE)
_LINKABLE: Final = (FileType.REGULAR, FileType.SYMLINK, FileType.CHARACTER, FileType.BLOCK, FileType.FIFO)
_TREES: Final = {kind: str(int(kind)) for kind in Kind} | {Kind.BOOT: str(int(Kind.STATE))}
"""Which tree a kind's paths are of. Boot and state are one archive in two packs: a name in both would be checked in one
and used from the other."""
_KINDS: Final = {int(kind): kind for kind in Kind}
_TYPES: Final = {int(kind): kind for kind in FileType}


def encode(entry: Entry) -> bytes:
    """The record of one entry (checked by `Tree` before); IntegrityError where a field does not fit."""
    try:
        path, link = _text(entry.path), _text(entry.link)
        parts = [
            _FIXED.pack(
                entry.kind,
                entry.type,
                entry.mode,
                entry.uid,
                entry.gid,
                entry.mtime,
                entry.size,
                entry.major,
                entry.minor,
                len(path),
                len(link),
                len(entry.xattrs),
            ),
            path,
            link,
        ]
        for name, value in entry.xattrs:
            key = _text(name)
            parts += (_XATTR.pack(len(key), len(value)), key, value)
    except (struct.error, UnicodeEncodeError) as error:
        raise IntegrityError(f"{entry.path[:200]!r} cannot be written to an index: {error}") from error
    return b"".join(parts)


def decode(data: bytes, count: int) -> Iterator[Entry]:
    """The `count` entries that fill `data` exactly, fields unchecked but for their bounds; else IntegrityError."""
    at, end = 0, len(data)
    for _ in range(count):
        if at + _FIXED.size > end:
            raise IntegrityError("a file record of the index is cut short")
        kind, what, mode, uid, gid, mtime, size, major, minor, paths, links, xattrs = _FIXED.unpack_from(data, at)
        at += _FIXED.size
        if at + paths + links > end or kind not in _KINDS or what not in _TYPES:
            raise IntegrityError("a file record of the index is malformed")
        path = data[at : at + paths].decode("utf-8", "surrogateescape")
        link = data[at + paths : at + paths + links].decode("utf-8", "surrogateescape")
        at += paths + links
        found = []
        for _ in range(xattrs):
            if at + _XATTR.size > end:
                raise IntegrityError("a file record of the index is cut short")
            name, value = _XATTR.unpack_from(data, at)
            at += _XATTR.size
            if at + name + value > end:
                raise IntegrityError("a file record of the index is cut short")
            key = data[at : at + name].decode("utf-8", "surrogateescape")
            found.append((key, data[at + name : at + name + value]))
            at += name + value
        kinds, types = _KINDS[kind], _TYPES[what]
        yield Entry(kinds, types, path, mode, uid, gid, mtime, size, link, major, minor, tuple(found))
    if at != end:
        raise IntegrityError("something follows the file records of an index segment")


def weight(entries: Iterable[Entry]) -> int:
    """The bytes of memory that `format.memory` does not count: attributes, and text that takes more than its bytes."""
    found = 0
    for entry in entries:
        if entry.xattrs:
            found += sum(200 + 3 * len(name) for name, _ in entry.xattrs)
        if not (entry.path.isascii() and entry.link.isascii()):
            found += 3 * (len(entry.path) + len(entry.link))
    return found


class Tree:
    """Holds entries against each other: paths, links, parents. IntegrityError for what is wrong.

    Takes little more memory than the entries, and time in proportion to their paths, however deep these are.
    """

    def __init__(self) -> None:
        self._entries: list[Entry] = []

    def add(self, entry: Entry) -> None:
        """Check one more entry by itself."""
        check_path(entry.path)
        if entry.mode > 0o177777 or not 0 <= entry.size <= MAX_SIZE:
            raise IntegrityError(f"{entry.path[:200]!r} has an impossible mode or size")
        if entry.type is FileType.PAGES and (entry.size or entry.kind not in (Kind.MEMORY, Kind.BOOT)):
            raise IntegrityError(f"{entry.path[:200]!r}: only memory consists of pages, and it has no size")
        if entry.kind is Kind.MEMORY and entry.type is not FileType.PAGES:
            raise IntegrityError(f"{entry.path[:200]!r}: memory consists of pages only")
        _check_link(entry)
        if entry.xattrs:
            _check_xattrs(entry)
        self._entries.append(entry)

    def add_all(self, entries: Iterable[Entry]) -> None:
        """Check all entries of an index."""
        for entry in entries:
            self.add(entry)
        self.finish()

    def finish(self) -> None:
        """After the last entry: no path is there twice, nothing lies below what is not a directory (a symlink, say),
        and hard links lead back."""
        # NUL is less than any character of a path: what is below an entry comes right after it.
        ordered = sorted(self._entries, key=lambda entry: _TREES[entry.kind] + entry.path.replace("/", "\0"))
        for before, after in itertools.pairwise(ordered):
            if _TREES[before.kind] != _TREES[after.kind] or not after.path.startswith(before.path):
                continue
            if len(after.path) == len(before.path):
                raise IntegrityError(f"{after.path[:200]!r} is there twice")
            if after.path[len(before.path)] == "/" and before.type not in _DIRECTORIES:
                raise IntegrityError(f"something lies below {before.path[:200]!r}, which is not a directory")
        self._check_hard_links()

    def _check_hard_links(self) -> None:
        wanted: dict[Kind, set[str]] = {kind: set() for kind in Kind}
        for entry in self._entries:
            if entry.type is FileType.HARDLINK:
                wanted[entry.kind].add(entry.link)
        if not any(wanted.values()):
            return
        # What has been passed is no longer wanted.
        for entry in self._entries:
            if entry.type is not FileType.HARDLINK:
                if entry.type in _LINKABLE:
                    wanted[entry.kind].discard(entry.path)
            elif entry.link in wanted[entry.kind]:
                raise IntegrityError(
                    f"{entry.path[:200]!r} is a link to {entry.link[:200]!r}, which does not precede it"
                )


def _check_link(entry: Entry) -> None:
    if entry.type is FileType.HARDLINK:
        check_path(entry.link)
    elif entry.type is FileType.SYMLINK:
        if not entry.link or "\0" in entry.link or _length(entry.link) > MAX_PATH:
            raise IntegrityError(f"{entry.path[:200]!r} is a symbolic link to an impossible place")
    elif entry.link:
        raise IntegrityError(f"{entry.path[:200]!r} is not a link and yet has a target")


def check_path(path: str) -> None:
    """IntegrityError unless `path` is relative, at most 4096 bytes, without NUL and empty, ``.`` or ``..`` parts
    (``.`` alone is allowed)."""
    if path == ".":
        return
    if not path or "\0" in path or _length(path) > MAX_PATH:
        raise IntegrityError(f"{path[:200]!r} is not a path that a checkpoint may have")
    if not {"", ".", ".."}.isdisjoint(path.split("/")):
        raise IntegrityError(f"{path[:200]!r} is not a path that a checkpoint may have")


def _check_xattrs(entry: Entry) -> None:
    names = {name for name, _ in entry.xattrs}
    if len(names) != len(entry.xattrs):
        raise IntegrityError(f"{entry.path[:200]!r} has an extended attribute twice")
    for name, value in entry.xattrs:
        if not name or "\0" in name or _length(name) > MAX_XATTR_NAME or len(value) > MAX_XATTR_VALUE:
            raise IntegrityError(f"{entry.path[:200]!r} has an impossible extended attribute {name[:200]!r}")


def _length(text: str) -> int:
    return len(text) if text.isascii() else len(_text(text))


def _text(text: str) -> bytes:
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise IntegrityError(f"{text[:200]!r} does not stand for bytes: {error}") from error
