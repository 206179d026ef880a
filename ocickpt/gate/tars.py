"""The archives that CRIU keeps a filesystem in memory in, read as the tar reads them that it has unpack them.

It runs GNU tar as root, in the filesystem's place (``tar --extract --gzip --no-unquote --directory``). Another reader
could see other members than that one does, so what the same tar does not write is refused: names below ``./``, each
once and after its directory, links to members that were there before, one gzip stream and nothing behind its end. Of
what members hold nothing is kept.

Source: criu/filesystems.c (tmpfs_dump, tmpfs_restore); GNU tar, "Basic Tar Format" and "GNU Extensions to the Archive
Format".
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Final, NamedTuple

from ocickpt.errors import IntegrityError
from ocickpt.model import MAX_PATH, FileType

_BLOCK: Final = 512
_PIECE: Final = 1 << 18
_MAGIC: Final = b"ustar  \0"
_TYPES: Final = {
    b"0": FileType.REGULAR,
    b"S": FileType.REGULAR,  # with holes
    b"1": FileType.HARDLINK,
    b"2": FileType.SYMLINK,
    b"3": FileType.CHARACTER,
    b"4": FileType.BLOCK,
    b"5": FileType.DIRECTORY,
    b"6": FileType.FIFO,
}
_LONG_NAME, _LONG_LINK, _SPARSE = b"L", b"K", b"S"
_IS_EXTENDED, _EXTENSION_CONTINUES = 482, 504
"""Where a header, and a block of more holes after it, say that such a block follows."""


class Member(NamedTuple):
    """A file of the archive. `path` is below its root, ``.`` for that; `mode` has permission bits only."""

    path: str
    type: FileType
    mode: int
    uid: int
    gid: int
    link: str
    """A symlink's text, or the path of an earlier member."""
    major: int
    minor: int


def members(data: bytes, what: str) -> Iterator[Member]:
    """The members of the archive in `data`, in order; IntegrityError where CRIU's tar did not write it."""
    stream, seen = _Stream(data, what), dict[str, FileType]()
    while header := stream.header():
        names = dict[bytes, bytes]()
        while (kind := header[156:157]) in (_LONG_NAME, _LONG_LINK):
            size = _number(header[124:136], what)
            if kind in names or not 0 < size <= MAX_PATH + 1:
                raise IntegrityError(f"{what} has a name that is too long")
            names[kind] = stream.content(size)
            if not (header := stream.header()):
                raise IntegrityError(f"{what} ends after a name")
        member = _member(header, names, what)
        _check_place(member, seen, what)
        seen[member.path] = member.type
        more = kind == _SPARSE and header[_IS_EXTENDED]
        while more:
            more = stream.block()[_EXTENSION_CONTINUES]
        # Links and nodes have none, whatever the header says of it.
        stream.skip(_number(header[124:136], what) if member.type is FileType.REGULAR else 0)
        yield member
    stream.end()


def _member(header: bytes, names: dict[bytes, bytes], what: str) -> Member:
    kind = _TYPES.get(header[156:157])
    if kind is None:
        raise IntegrityError(f"{what} has a member of the type {header[156:157]!r}")
    if kind is not FileType.REGULAR and _number(header[124:136], what):
        raise IntegrityError(f"{what} has content for what is no file")
    link = _string(names.get(_LONG_LINK, header[157:257]), what)
    node = kind in (FileType.CHARACTER, FileType.BLOCK)
    return Member(
        path=_path(_string(names.get(_LONG_NAME, header[:100]), what), what, is_directory=kind is FileType.DIRECTORY),
        type=kind,
        mode=_number(header[100:108], what) & 0o7777,
        uid=_number(header[108:116], what),
        gid=_number(header[116:124], what),
        link=_path(link, what) if kind is FileType.HARDLINK else link,
        major=_number(header[329:337], what) if node else 0,
        minor=_number(header[337:345], what) if node else 0,
    )


def _check_place(member: Member, seen: dict[str, FileType], what: str) -> None:
    parent = member.path.rpartition("/")[0] or "."
    if member.path in seen:
        raise IntegrityError(f"{what} has {member.path[:200]!r} twice")
    if member.path != "." and seen.get(parent) is not FileType.DIRECTORY:
        raise IntegrityError(f"{what} has {member.path[:200]!r} in no directory of its own")
    if member.type is FileType.HARDLINK and seen.get(member.link) in (None, FileType.DIRECTORY):
        raise IntegrityError(f"{what} has the link {member.path[:200]!r} to {member.link[:200]!r}, which it has not")


def _path(name: str, what: str, *, is_directory: bool = False) -> str:
    if name == "./" and is_directory:
        return "."
    parts = name.removesuffix("/").split("/") if is_directory else name.split("/")
    if parts[0] != "." or len(parts) < 2 or not {"", ".", ".."}.isdisjoint(parts[1:]):
        raise IntegrityError(f"{what} has a member with the name {name[:200]!r}, which leads outside")
    return "/".join(parts[1:])


def _string(raw: bytes, what: str) -> str:
    text, _, rest = raw.partition(b"\0")
    if rest.strip(b"\0"):
        raise IntegrityError(f"{what} has a name with something after its end")
    return text.decode("utf-8", "surrogateescape")


def _number(raw: bytes, what: str) -> int:
    """An octal number, or where the first bit is set a binary one (GNU tar, "Extending the Archive Format")."""
    if raw[0] == 0x80:
        return int.from_bytes(raw[1:], "big")
    digits = raw.rstrip(b"\0 ").lstrip(b" ")
    if not all(byte in b"01234567" for byte in digits):
        raise IntegrityError(f"{what} has the number {raw!r}")
    return int(digits or b"0", 8)


class _Stream:
    """The blocks of an archive, decompressed as they are asked for."""

    def __init__(self, data: bytes, what: str) -> None:
        self._what = what
        self._gzip = zlib.decompressobj(wbits=31)
        self._waiting = data
        self._ready, self._at = b"", 0

    def header(self) -> bytes:
        """The next header; empty at the mark that ends an archive."""
        block = self.block()
        if not any(block):
            if any(self.block()):
                raise IntegrityError(f"{self._what} has something behind the end of its members")
            return b""
        total = sum(block[:148]) + sum(block[156:]) + 8 * 0x20
        if block[257:265] != _MAGIC or _number(block[148:156], self._what) != total:
            raise IntegrityError(f"{self._what} is no archive of CRIU's tar")
        return block

    def block(self) -> bytes:
        """The next 512 bytes."""
        return self._take(_BLOCK)

    def content(self, size: int) -> bytes:
        """So many bytes, and the rest of their last block passed over."""
        return self._take(-(-size // _BLOCK) * _BLOCK)[:size]

    def skip(self, size: int) -> None:
        """Pass over content of that size."""
        left = -(-size // _BLOCK) * _BLOCK
        while left > 0:
            left -= len(self._take(min(left, _PIECE)))

    def end(self) -> None:
        """Refuse what is behind the end, but for the zeros that fill the last record."""
        rest = self._ready[self._at :]
        while rest:
            if rest.strip(b"\0"):
                raise IntegrityError(f"{self._what} has something behind the end of its members")
            rest = self._more()
        if not self._gzip.eof or self._gzip.unused_data:
            raise IntegrityError(f"{self._what} is cut short, or has something behind its end")

    def _take(self, size: int) -> bytes:
        while len(self._ready) - self._at < size:
            if not (more := self._more()):
                raise IntegrityError(f"{self._what} is cut short")
            self._ready, self._at = self._ready[self._at :] + more, 0
        self._at += size
        return self._ready[self._at - size : self._at]

    def _more(self) -> bytes:
        """What is decompressed next, of any length; empty at the end."""
        try:
            found = self._gzip.decompress(self._waiting, _PIECE)
        except zlib.error as error:
            raise IntegrityError(f"{self._what} cannot be decompressed: {error}") from error
        self._waiting = self._gzip.unconsumed_tail
        return found
