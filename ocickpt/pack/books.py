"""The books of a packing: entries, chunks by hash, extents; about 190 bytes of memory a chunk with its extent."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ocickpt.model import Descriptor, Entry, Kind
from ocickpt.pack import format as fmt
from ocickpt.pack.files import Tree
from ocickpt.pack.writer import Part


class Book:
    """Files, chunks and extents in the order of the input. Numbers are the book's own, from 0.

    `find` may be called from any thread while another one adds.
    """

    def __init__(self) -> None:
        self.files: list[Entry] = []
        self.packs: list[Descriptor | None] = []
        """None while a pack is not complete."""
        self.count = 0
        """How many chunks there are."""
        self._tree = Tree()
        self._chunks, self._extents = bytearray(), bytearray()
        # By the first 8 bytes of the hash; a second hash with the same beginning is merely not found again.
        self._numbers: tuple[dict[int, int], ...] = tuple({} for _ in Kind)
        self._zeros: tuple[int, int, int] | None = None
        """The last extent, if it is a run of zeros: file, offset, length."""

    def add(self, entry: Entry) -> int:
        """Book an entry; IntegrityError for one that an index cannot hold."""
        self._tree.add(entry)
        self.files.append(entry)
        return len(self.files) - 1

    def find(self, kind: Kind, digest: bytes) -> int | None:
        """The number of the chunk of `kind` with this hash."""
        number = self._numbers[kind].get(int.from_bytes(digest[:8], "little"))
        if number is None:
            return None
        at = number * fmt.CHUNK.itemsize + fmt.HASH_AT
        return number if self._chunks[at : at + 32] == digest else None

    def chunk(self, kind: Kind, place: tuple[int, int, int, int], digest: bytes) -> int:
        """Book a chunk that lies at `place` (pack, offset, stored, raw); its number."""
        number = self.count
        self._chunks += fmt.CHUNK_STRUCT.pack(*place, digest)
        self._numbers[kind].setdefault(int.from_bytes(digest[:8], "little"), number)
        self.count += 1
        return number

    def extend(self, file: int, chunk: int | None, extents: Sequence[tuple[int, int, int]]) -> None:
        """Book (offset, length, offset in `chunk` or -1 for zeros); a run of zeros prolongs the one before it."""
        for offset, length, inner in extents:
            if inner >= 0 and chunk is not None:
                self._zeros = None
                self._extents += fmt.EXTENT_STRUCT.pack(file, offset, chunk, inner, length)
                continue
            first, size = offset, length
            if self._zeros and self._zeros[0] == file and self._zeros[1] + self._zeros[2] == offset:
                first, size = self._zeros[1], self._zeros[2] + length
                del self._extents[-fmt.EXTENT.itemsize :]
            self._zeros = (file, first, size)
            self._extents += fmt.EXTENT_STRUCT.pack(file, first, fmt.ZEROS, 0, size)

    def part(self, packs: Sequence[Descriptor], files: int, chunks: int) -> Part:
        """The records for an index in which `files` files and `chunks` chunks precede and `packs` is the pack table."""
        places = {(pack.media_type, pack.digest): number for number, pack in enumerate(packs)}
        numbers = np.array([places[pack.media_type, pack.digest] for pack in self.packs if pack], "<u4")
        # Without a copy: the books are complete.
        chunk = np.frombuffer(self._chunks, fmt.CHUNK)
        extent = np.frombuffer(self._extents, fmt.EXTENT)
        if len(chunk):
            chunk["pack"] = numbers[chunk["pack"]]
        extent["file"] += np.uint32(files)
        real = extent["chunk"] != fmt.ZEROS
        extent["chunk"][real] += np.uint32(chunks)
        return Part(self.files, chunk, extent)
