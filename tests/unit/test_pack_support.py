"""What the tests of the pack room share: a store in memory and content in memory."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import BinaryIO

from ocickpt.errors import IntegrityError, NotFoundError
from ocickpt.model import Content, Descriptor, Entry, FileType, Kind, Packed, Run, digest_of
from ocickpt.pack.index import Index
from ocickpt.pack.inherited import Inherited
from ocickpt.pack.packer import Packer
from ocickpt.pack.reader import extract

PAGE = 4096


class MemoryWriter:
    def __init__(self, store: MemoryStore) -> None:
        self._store, self._data = store, bytearray()
        store.open += 1
        self._ended = False

    def write(self, data: bytes | bytearray | memoryview) -> int:
        self._data += data
        return len(data)

    def commit(self, media_type: str, annotations: Mapping[str, str] = {}) -> Descriptor:
        data = bytes(self._data)
        made = Descriptor(media_type, digest_of(data), len(data), annotations)
        self._store.blobs[made.digest] = data
        self.discard()
        return made

    def discard(self) -> None:
        self._store.open -= not self._ended
        self._ended = True


@dataclass
class MemoryStore:
    """A spool and a source."""

    blobs: dict[str, bytes] = field(default_factory=dict)
    reads: list[tuple[str, int, int]] = field(default_factory=list)
    open: int = 0

    def new_blob(self) -> MemoryWriter:
        return MemoryWriter(self)

    def read_at(self, blob: Descriptor, offset: int, length: int) -> bytes:
        self.reads.append((blob.digest, offset, length))
        if blob.digest not in self.blobs:
            raise NotFoundError("no such blob")
        found = self.blobs[blob.digest][offset : offset + length]
        if len(found) != length:
            raise IntegrityError("the blob is shorter than that")
        return found

    @contextmanager
    def open_blob(self, blob: Descriptor) -> Iterator[BinaryIO]:
        yield io.BytesIO(self.blobs[blob.digest])


def pages(path: str, memory: Mapping[int, bytes], kind: Kind = Kind.MEMORY) -> Content:
    """An address space: virtual address to bytes."""
    runs = [Run(address, len(data)) for address, data in sorted(memory.items())]
    data = b"".join(memory[run.offset] for run in runs)
    return Content(Entry(kind, FileType.PAGES, path), runs, opener(data))


def regular(kind: Kind, path: str, data: bytes) -> Content:
    """A file without holes."""
    return Content(Entry(kind, FileType.REGULAR, path, 0o644, size=len(data)), [Run(0, len(data))], opener(data))


def opener(data: bytes) -> Callable[[], BinaryIO]:
    return lambda: io.BytesIO(data)


def pack(
    store: MemoryStore, contents: Iterable[Content], inherited: Index | None = None, pack_size: int = 1 << 20
) -> Packed:
    with Packer(store, pack_size=pack_size, inherited=Inherited(inherited) if inherited else None, threads=2) as packer:
        for content in contents:
            packer.add(content)
        return packer.finish()


def unpack(index: Index, store: MemoryStore) -> dict[tuple[Kind, str], dict[int, bytes]]:
    """What is there of every file, by offset of whole pages (regular files: one run), zeros of PAGES included."""
    found: dict[int, dict[int, bytes]] = {number: {} for number in range(len(index.files))}
    whole = {
        number: bytearray(entry.size) for number, entry in enumerate(index.files) if entry.type is FileType.REGULAR
    }

    def write(number: int, offset: int, data: memoryview) -> None:
        if number in whole:
            assert offset + len(data) <= len(whole[number])
            whole[number][offset : offset + len(data)] = data
            return
        assert offset % PAGE == 0
        for at in range(0, len(data), PAGE):
            assert offset + at not in found[number]
            found[number][offset + at] = bytes(data[at : at + PAGE])

    extract(index, store, range(len(index.files)), write, threads=3)
    for file, offset, chunk, _, length in index.extents.tolist():
        if chunk == 0xFFFFFFFF:
            for at in range(offset, offset + length, PAGE):
                assert at not in found[file]
                found[file][at] = bytes(PAGE)
    for number, data in whole.items():
        found[number] = {0: bytes(data)}
    return {(entry.kind, entry.path): found[number] for number, entry in enumerate(index.files)}
