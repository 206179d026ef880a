"""Writes tar archives that podman imports.

How podman applies them (libpod/container_internal_common.go, pkg/checkpoint/crutils, and Unpack of
containers/storage pkg/archive): ``rootfs-diff.tar`` is unpacked over the container's root, then the
paths in ``deleted.files`` are removed; ``.wh.`` names mean nothing there. A directory that exists
keeps its content and gets owner and mode; the root's own metadata is not applied. Attributes are
``SCHILY.xattr.`` records. Each named volume must have its ``volumes/NAME.tar``.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from ocickpt.engine.files import libtar
from ocickpt.engine.files.entries import NODES, check_path
from ocickpt.errors import IntegrityError, UnsupportedError
from ocickpt.model import Content, Entry, FileType, Kind

_BLOCK = 1 << 20
_ZEROS = bytes(_BLOCK)
_FORMATS = {
    FileType.REGULAR: stat.S_IFREG,
    FileType.DIRECTORY: stat.S_IFDIR,
    FileType.OPAQUE: stat.S_IFDIR,
    FileType.SYMLINK: stat.S_IFLNK,
    FileType.HARDLINK: stat.S_IFREG,
    FileType.CHARACTER: stat.S_IFCHR,
    FileType.BLOCK: stat.S_IFBLK,
    FileType.FIFO: stat.S_IFIFO,
}
_COMPRESSIONS = {"none": b"", "gzip": b",gzip:!timestamp", "zstd": b",zstd:compression-level=1"}


class ArchiveWriter:
    """A tar archive that appears at `path` when the context is left without an error, and not before.

    Raises StorageError when it cannot be written, PrerequisiteError without libarchive. The same
    calls make the same bytes. Everything that has no metadata of its own is root's, from 1970.
    """

    def __init__(self, path: Path, compression: str = "none") -> None:
        if compression not in _COMPRESSIONS:
            raise UnsupportedError(f"archives cannot be compressed with {compression}")
        self._path = path
        self._compression = compression
        self._part = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")
        self._descriptor = -1
        self._archive: Any = None
        self._entry: Any = None
        self._ffi = libtar.load()

    def __enter__(self) -> Self:
        try:
            self._begin()
        except BaseException:
            self._release()
            self._part.unlink(missing_ok=True)
            raise
        return self

    def _begin(self) -> None:
        ffi = self._ffi
        with libtar.writing(str(self._path)):
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            self._descriptor = os.open(self._part, flags, 0o600)
            self._archive, self._entry = ffi.write_new(), ffi.entry_new()
            ffi.get_write_format_function("pax")(self._archive)
            if self._compression != "none":
                ffi.get_write_filter_function(self._compression)(self._archive)
            options = b"pax:hdrcharset=BINARY,pax:xattrheader=SCHILY" + _COMPRESSIONS[self._compression]
            ffi.write_set_options(self._archive, options)
            ffi.write_set_bytes_per_block(self._archive, _BLOCK)
            ffi.write_set_bytes_in_last_block(self._archive, 1)
            ffi.write_open_fd(self._archive, self._descriptor)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            with libtar.writing(str(self._path)):
                if error is None:
                    self._ffi.write_close(self._archive)
                    self._release()
                    self._part.replace(self._path)
        finally:
            self._release()
            self._part.unlink(missing_ok=True)

    def add_bytes(self, name: str, data: bytes, mode: int = 0o600) -> None:
        """The regular file `name` with `data`."""
        self.add_stream(name, len(data), (data,), mode)

    def add_directory(self, name: str, mode: int = 0o700) -> None:
        """The directory `name`."""
        self.add_entry(Entry(Kind.STATE, FileType.DIRECTORY, name, mode=mode))

    def add_file(self, name: str, path: Path, mode: int = 0o600) -> None:
        """The regular file `name` with what the file at `path` holds, holes as zeros."""
        with libtar.writing(str(self._path)), path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            self.add_stream(name, size, iter(lambda: file.read(_BLOCK), b""), mode)

    def add_stream(self, name: str, size: int, chunks: Iterable[bytes], mode: int = 0o600) -> None:
        """The regular file `name` with what `chunks` yield, which must be `size` bytes or it is an IntegrityError."""
        self.add_entry(Entry(Kind.STATE, FileType.REGULAR, name, mode=mode, size=size), chunks)

    def add_entry(self, entry: Entry, chunks: Iterable[bytes] = ()) -> None:
        """A file of any type but WHITEOUT and PAGES, with all its metadata; `chunks` are the bytes of a regular one.

        OPAQUE is written as a directory: tar as podman reads it has no word for the difference.
        """
        if entry.type not in _FORMATS:
            raise UnsupportedError(f"a tar archive cannot hold {entry.path[:200]}, a {entry.type.name}")
        ffi, made = self._ffi, self._entry
        regular = entry.type is FileType.REGULAR
        ffi.entry_clear(made)
        name = check_path(entry.path) + ("/" if entry.type in (FileType.DIRECTORY, FileType.OPAQUE) else "")
        ffi.entry_copy_pathname(made, _raw(name))
        ffi.entry_set_filetype(made, _FORMATS[entry.type])
        ffi.entry_set_perm(made, entry.mode & 0o7777)
        ffi.entry_set_uid(made, entry.uid)
        ffi.entry_set_gid(made, entry.gid)
        ffi.entry_set_mtime(made, *divmod(entry.mtime, 1_000_000_000))
        ffi.entry_set_size(made, entry.size if regular else 0)
        if entry.type is FileType.SYMLINK:
            ffi.entry_copy_symlink(made, _raw(entry.link))
        elif entry.type is FileType.HARDLINK:
            ffi.entry_copy_hardlink(made, _raw(check_path(entry.link)))
        elif entry.type in (FileType.CHARACTER, FileType.BLOCK):
            ffi.entry_set_rdevmajor(made, entry.major)
            ffi.entry_set_rdevminor(made, entry.minor)
        for attribute, value in entry.xattrs:
            ffi.entry_xattr_add_entry(made, _raw(attribute), value, len(value))
        with libtar.writing(str(self._path)):
            if ffi.write_header(self._archive, made) != libtar.OK:
                raise UnsupportedError(f"a tar archive cannot hold all of {entry.path[:200]}")
            if regular:
                self._data(entry, chunks)
            ffi.write_finish_entry(self._archive)

    def _data(self, entry: Entry, chunks: Iterable[bytes]) -> None:
        left = entry.size
        for chunk in chunks:
            left -= len(chunk)
            if left < 0:
                break
            if self._ffi.write_data(self._archive, chunk, len(chunk)) != len(chunk):
                raise IntegrityError(f"{entry.path[:200]} was not written whole")
        if left:
            raise IntegrityError(f"{entry.path[:200]} has not the {entry.size} bytes it should have")

    def _release(self) -> None:
        from libarchive.exception import ArchiveError

        if self._entry:
            self._ffi.entry_free(self._entry)
            self._entry = None
        if self._archive:
            self._ffi.write_fail(self._archive)
            with suppress(ArchiveError):
                self._ffi.write_free(self._archive)
            self._archive = None
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class TreeTar(NamedTuple):
    """What a tree has that its tar has not, as paths relative to the root."""

    deleted: list[str]
    """What is gone; podman's ``deleted.files`` has a ``/`` before each."""
    opaque: list[str]
    """Directories that hide what the image has in them; `hidden_by` says what that is."""


def tree_tar(path: Path, contents: Iterable[Content], *, strip: str = "") -> TreeTar:
    """Write a tree as ``rootfs-diff.tar`` or ``volumes/NAME.tar`` at `path`, and say what a tar cannot.

    `strip` is a prefix of all paths to be left out: a volume's name. Holes are written as zeros.
    """
    gone = TreeTar([], [])
    nodes: dict[str, Entry] = {}
    with ArchiveWriter(path) as archive:
        for content in contents:
            entry = _stripped(content.entry, strip)
            if entry.type is FileType.HARDLINK and entry.link in nodes:
                # Who unpacks a link gives owner, mode and attributes of the link to the file that both are.
                entry = replace(nodes[entry.link], type=entry.type, path=entry.path, link=entry.link, size=0)
            elif entry.type in NODES:
                nodes[entry.path] = entry
            if entry.type is FileType.WHITEOUT:
                gone.deleted.append(entry.path)
                continue
            if entry.type is FileType.OPAQUE:
                gone.opaque.append(entry.path)
            archive.add_entry(entry, _filled(content))
    return gone


def _stripped(entry: Entry, prefix: str) -> Entry:
    if not prefix:
        return entry

    def inside(path: str) -> str:
        if path == prefix:
            return "."
        if not path.startswith(prefix + "/"):
            raise IntegrityError(f"{path[:200]!r} is not in {prefix}")
        return path[len(prefix) + 1 :]

    link = inside(entry.link) if entry.type is FileType.HARDLINK else entry.link
    return replace(entry, path=inside(entry.path), link=link)


def _filled(content: Content) -> Iterator[bytes]:
    """A file's bytes with its holes as zeros."""
    position = 0
    if content.open:
        with content.open() as stream:
            for run in content.runs:
                yield from _zeros(run.offset - position)
                position = run.offset
                while position < run.offset + run.length:
                    data = stream.read(min(_BLOCK, run.offset + run.length - position))
                    if not data:
                        raise IntegrityError(f"{content.entry.path[:200]} is shorter than it should be")
                    position += len(data)
                    yield data
    yield from _zeros(content.entry.size - position)


def _zeros(length: int) -> Iterator[bytes]:
    while length > 0:
        yield _ZEROS[:length]
        length -= _BLOCK


def _raw(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
