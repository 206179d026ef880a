"""Checkpoint archives of podman, CRI-O and containerd, streamed by libarchive.

An archive comes from anywhere: names that lead elsewhere, names that come twice, and archives that
end too early are refused. Nested archives (``rootfs-diff.tar``, ``volumes/NAME.tar``,
``devshm-checkpoint.tar``) are read out of the stream of the outer one. Writing is in `archivewriter`.
"""

from __future__ import annotations

import ctypes
import io
import os
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from ocickpt.engine.files import libtar
from ocickpt.engine.files.archivewriter import ArchiveWriter, TreeTar, tree_tar
from ocickpt.engine.files.entries import carried
from ocickpt.errors import IntegrityError, StorageError, UnsupportedError
from ocickpt.model import MAX_PATH, Content, Entry, FileType, Kind, Run

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

__all__ = ["ArchiveWriter", "Member", "TreeTar", "members", "nested", "tree_contents", "tree_tar"]

_BLOCK = 256 * 1024
_FILTERS = "gzip", "zstd", "bzip2", "xz"
_MARK = 512
_MAX_ATTRIBUTES = 256
_MAX_ATTRIBUTE = 64 * 1024
_WHITEOUT, _OPAQUE = ".wh.", ".wh..wh..opq"
_TYPES = {
    0o100000: FileType.REGULAR,
    0o040000: FileType.DIRECTORY,
    0o120000: FileType.SYMLINK,
    0o020000: FileType.CHARACTER,
    0o060000: FileType.BLOCK,
    0o010000: FileType.FIFO,
}


@dataclass(frozen=True, slots=True)
class Member:
    """A member of a tar archive. `mtime` is in nanoseconds, `mode` has permission bits only."""

    name: str
    """Relative, without ``.`` and ``..`` parts; ``.`` for the root."""
    type: FileType
    size: int
    mode: int
    uid: int
    gid: int
    mtime: int
    link: str
    """A symlink's text, or the name of an earlier member for a HARDLINK."""
    major: int
    minor: int
    xattrs: tuple[tuple[str, bytes], ...]
    stream: BinaryIO = field(repr=False)
    """Its content, to be read before the next member is asked for."""


def members(path: Path) -> Iterator[Member]:
    """The members of the checkpoint archive at `path`, plain or compressed (gzip, zstd, bzip2, xz), in order.

    Raises IntegrityError when it is damaged, truncated or no tar archive, when a name leads outside
    or comes twice; StorageError when it cannot be read; PrerequisiteError without libarchive.
    """
    ffi = libtar.load()
    what = str(path)
    seen: set[str] = set()
    reader = _Archive(ffi, what)
    with closing(reader), reader.guarded(), path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        ffi.read_open_fd(reader.pointer, file.fileno(), _BLOCK)
        for member in reader:
            if member.name in seen:
                raise IntegrityError(f"{what} has {member.name[:200]!r} twice")
            seen.add(member.name)
            yield member
        # Members that nobody read were skipped by lseek, which does not mind the end of the file, and
        # libarchive does not mind when the mark at the end of an archive is missing.
        mark = ffi.filter_bytes(reader.pointer, 0) - ffi.read_header_position(reader.pointer)
        if not seen or ffi.filter_bytes(reader.pointer, -1) > size or mark < _MARK:
            raise IntegrityError(f"{what} is truncated or empty")


def nested(stream: BinaryIO, what: str = "a nested archive") -> Iterator[Member]:
    """The members of a tar archive that is read from `stream`, in order; what `members` raises.

    `what` names it in errors. What `stream` raises itself comes out unchanged.
    """
    ffi = libtar.load()
    buffer = ctypes.create_string_buffer(_BLOCK)
    view = memoryview(buffer).cast("B")
    reader = _Archive(ffi, what)

    def read(_archive: int, _context: int, where: Any) -> int:
        try:
            length = cast(io.RawIOBase, stream).readinto(view)
        except BaseException as error:  # noqa: BLE001 - nothing may be raised through C; it is raised again below
            reader.failure = error
            return -1
        where[0] = ctypes.addressof(buffer)
        return length or 0

    callback = ffi.READ_CALLBACK(read)
    with closing(reader), reader.guarded():
        ffi.read_open(reader.pointer, None, ffi.NO_OPEN_CB, callback, ffi.NO_CLOSE_CB)
        yield from reader


def tree_contents(
    found: Iterable[Member], kind: Kind, prefix: str = "", *, whiteouts: bool = False
) -> Iterator[Content]:
    """A tree's members as contents; each must be consumed before the next is asked for.

    With `whiteouts` a member ``.wh.NAME`` says that NAME is gone, and ``.wh..wh..opq`` that its
    directory is opaque (OCI image-spec, layer.md). containerd's archives have them; podman's and
    CRI-O's do not, they unpack such names as they are and list what is gone in ``deleted.files``.
    Attributes that may not travel (`carried`) are left out.

    Raises IntegrityError for an opaque mark that comes after its directory's content.
    """
    held: Content | None = None
    for member in found:
        content = _content(member, kind, prefix)
        parent, _, name = member.name.rpartition("/")
        if whiteouts and name == _OPAQUE:
            directory = "/".join(filter(None, (prefix, parent))) or "."
            if held is None or held.entry.path != directory:
                raise IntegrityError(f"{member.name[:200]} does not follow its directory")
            held = Content(replace(held.entry, type=FileType.OPAQUE))
            continue
        if held:
            yield held
        held = None
        if whiteouts and name.startswith(_WHITEOUT):
            path = "/".join(filter(None, (prefix, parent, name.removeprefix(_WHITEOUT))))
            yield Content(Entry(kind, FileType.WHITEOUT, path))
        elif member.type is FileType.DIRECTORY:
            held = content
        else:
            yield content
    if held:
        yield held


def _content(member: Member, kind: Kind, prefix: str) -> Content:
    def placed(name: str) -> str:
        return "/".join((prefix, name) if prefix and name != "." else (prefix or name,))

    entry = Entry(
        kind=kind,
        type=member.type,
        path=placed(member.name),
        mode=member.mode if member.type is not FileType.HARDLINK else 0,
        uid=member.uid,
        gid=member.gid,
        mtime=member.mtime,
        size=member.size,
        link=placed(member.link) if member.type is FileType.HARDLINK else member.link,
        major=member.major,
        minor=member.minor,
        xattrs=tuple(pair for pair in member.xattrs if carried(pair[0])),
    )
    if member.type is FileType.HARDLINK:
        entry = Entry(kind, FileType.HARDLINK, entry.path, link=entry.link)
    if not member.size:
        return Content(entry)
    return Content(entry, (Run(0, member.size),), lambda: member.stream)


class _Archive:
    """An archive being read: libarchive's objects, and the member whose content is at hand."""

    def __init__(self, ffi: Any, what: str) -> None:
        self.ffi = ffi
        self.what = what
        self.current = 0
        self.failure: BaseException | None = None
        """What the stream that this is read from raised."""
        self.pointer = ffi.read_new()
        self._entry = ffi.entry_new()
        ffi.get_read_format_function("tar")(self.pointer)
        for name in _FILTERS:
            ffi.get_read_filter_function(name)(self.pointer)

    def __iter__(self) -> Iterator[Member]:
        while True:
            self.current += 1
            if self.ffi.read_next_header2(self.pointer, self._entry) == libtar.END:
                return
            yield self._member()

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """libarchive's errors as ours, or as what they come from."""
        try:
            with libtar.reading(self.what):
                yield
        except IntegrityError:
            if self.failure:
                raise self.failure from None
            raise

    def close(self) -> None:
        """Free it; streams of its members fail from now on."""
        self.current = -1
        if self.pointer:
            self.ffi.entry_free(self._entry)
            self.ffi.read_free(self.pointer)
            self.pointer = None

    def _member(self) -> Member:
        ffi, entry = self.ffi, self._entry
        name = self._name(ffi.entry_pathname(entry), "name")
        hardlink, symlink = ffi.entry_hardlink(entry), ffi.entry_symlink(entry)
        if hardlink is not None:
            type_, link = FileType.HARDLINK, self._name(hardlink, "link")
        else:
            known = _TYPES.get(ffi.entry_filetype(entry))
            if known is None:
                raise UnsupportedError(f"{name[:200]} in {self.what} is of an unknown type")
            type_, link = known, self._text(symlink, "link") if known is FileType.SYMLINK else ""
        device = type_ in (FileType.CHARACTER, FileType.BLOCK)
        return Member(
            name=name,
            type=type_,
            size=ffi.entry_size(entry) if type_ is FileType.REGULAR else 0,
            mode=ffi.entry_perm(entry) & 0o7777,
            uid=ffi.entry_uid(entry),
            gid=ffi.entry_gid(entry),
            mtime=ffi.entry_mtime(entry) * 1_000_000_000 + ffi.entry_mtime_nsec(entry),
            link=link,
            major=ffi.entry_rdevmajor(entry) if device else 0,
            minor=ffi.entry_rdevminor(entry) if device else 0,
            xattrs=self._attributes(),
            stream=cast(BinaryIO, _Stream(self)),
        )

    def _text(self, raw: bytes | None, which: str) -> str:
        if raw is None or not 0 < len(raw) <= MAX_PATH:
            raise IntegrityError(f"a member of {self.what} has a {which} that is empty, too long or unreadable")
        return raw.decode("utf-8", "surrogateescape")

    def _name(self, raw: bytes | None, which: str) -> str:
        name = self._text(raw, which)
        parts = [part for part in name.split("/") if part not in {"", "."}]
        if name.startswith("/") or ".." in parts:
            raise IntegrityError(f"{self.what} has a member with the {which} {name[:200]!r}, which leads outside")
        return "/".join(parts) or "."

    def _attributes(self) -> tuple[tuple[str, bytes], ...]:
        ffi, found = self.ffi, {}
        if ffi.entry_xattr_reset(self._entry) > _MAX_ATTRIBUTES:
            raise IntegrityError(f"a member of {self.what} has too many attributes")
        name, value, size = ctypes.c_char_p(), ctypes.c_void_p(), ctypes.c_size_t()
        references = ctypes.byref(name), ctypes.byref(value), ctypes.byref(size)
        while ffi.entry_xattr_next(self._entry, *references) == libtar.OK:
            if size.value > _MAX_ATTRIBUTE or not name.value:
                raise IntegrityError(f"a member of {self.what} has an attribute that cannot be")
            found[name.value.decode("utf-8", "surrogateescape")] = ctypes.string_at(value.value or 0, size.value)
        return tuple(sorted(found.items()))


class _Stream(io.RawIOBase):
    """The content of an archive's current member."""

    def __init__(self, archive: _Archive) -> None:
        self._archive = archive
        self._mine = archive.current

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        if self._archive.current != self._mine:
            raise StorageError("a member of an archive was read too late")
        view = memoryview(buffer).cast("B")
        if not view:
            return 0
        target = (ctypes.c_char * len(view)).from_buffer(view)
        with self._archive.guarded():
            return int(self._archive.ffi.read_data(self._archive.pointer, target, len(view)))
