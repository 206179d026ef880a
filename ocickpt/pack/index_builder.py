"""An index while it is built: entries, chunks by hash, extents; about 90 bytes of memory a chunk with its extent."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import numpy as np

from ocickpt.model import Descriptor, Entry, Kind
from ocickpt.pack import format as fmt
from ocickpt.pack.buffers import Records
from ocickpt.pack.codec import HASH_SIZE
from ocickpt.pack.files import Tree
from ocickpt.pack.writer import Part


class _Table:
    """Finds chunk records by hash: a hash table of their numbers, 6 to 12 bytes a chunk where a dict takes 100.

    Any thread may look while another one adds: a chunk is in its slot, or the table is replaced, at once.
    """

    def __init__(self, chunks: Records) -> None:
        self._chunks = chunks
        # Number + 1, or 0; the next slot when one is taken. The size is a power of two.
        self._slots = array("I", bytes(4 << 6))
        self._count = 0

    @property
    def memory(self) -> int:
        """Bytes."""
        return len(self._slots) * self._slots.itemsize

    def find(self, digest: bytes) -> int | None:
        """The number of the record with this hash."""
        slots = self._slots
        at = _home(digest, slots)
        while slots[at]:
            if self._hash(slots[at] - 1) == digest:
                return slots[at] - 1
            at = (at + 1) % len(slots)
        return None

    def add(self, number: int) -> None:
        """Have that record found."""
        self._count += 1
        if self._count * 3 > len(self._slots) * 2:
            larger = array("I", bytes(2 * self.memory))
            for taken in filter(None, self._slots):
                self._put(larger, taken)
            self._slots = larger
        self._put(self._slots, number + 1)

    def _put(self, slots: array[int], value: int) -> None:
        at = _home(self._hash(value - 1), slots)
        while slots[at]:
            at = (at + 1) % len(slots)
        slots[at] = value

    def _hash(self, number: int) -> bytes:
        return self._chunks.read(number, fmt.HASH_AT, HASH_SIZE)


def _home(digest: bytes, slots: array[int]) -> int:
    return int.from_bytes(digest[:8], "little") % len(slots)


class IndexBuilder:
    """Files, chunks and extents in the order of the input. Numbers are its own, from 0.

    `find` may be called from any thread while another one adds.
    """

    def __init__(self) -> None:
        self.files: list[Entry] = []
        self.packs: list[Descriptor | None] = []
        """None while a pack is not complete."""
        self._tree = Tree()
        self._chunks, self._extents = Records(fmt.CHUNK_STRUCT), Records(fmt.EXTENT_STRUCT)
        self._tables = tuple(_Table(self._chunks) for _ in Kind)
        self._zeros: tuple[int, int, int] | None = None
        """The last extent, if it is a run of zeros: file, offset, length."""

    def add(self, entry: Entry) -> int:
        """Enter an entry; IntegrityError for one that an index cannot hold."""
        self._tree.add(entry)
        self.files.append(entry)
        return len(self.files) - 1

    @property
    def count(self) -> int:
        """How many chunks there are."""
        return self._chunks.count

    @property
    def memory(self) -> int:
        """Bytes of memory, without the entries."""
        return len(self._chunks) + len(self._extents) + sum(table.memory for table in self._tables)

    def find(self, kind: Kind, digest: bytes) -> int | None:
        """The number of the chunk of `kind` with this hash."""
        return self._tables[kind].find(digest)

    def chunk(self, kind: Kind, place: tuple[int, int, int, int], digest: bytes) -> int:
        """Enter a chunk that lies at `place` (pack, offset, stored, raw); its number."""
        number = self._chunks.count
        self._chunks.append(*place, digest)
        self._tables[kind].add(number)
        return number

    def reserve(self) -> int:
        """The number of a chunk that is entered later, by `fill`."""
        self._chunks.append(0, 0, 0, 0, bytes(HASH_SIZE))
        return self._chunks.count - 1

    def fill(self, number: int, kind: Kind, place: tuple[int, int, int, int], digest: bytes) -> None:
        """Enter a chunk whose number was reserved; `place` as in `chunk`."""
        self._chunks.replace(number, *place, digest)
        self._tables[kind].add(number)

    def extend(self, file: int, chunk: int | None, extents: Sequence[tuple[int, int, int]]) -> None:
        """Enter (offset, length, offset in `chunk` or -1 for zeros); a run of zeros prolongs the one before it."""
        for offset, length, inner in extents:
            if inner >= 0 and chunk is not None:
                self._zeros = None
                self._extents.append(file, offset, chunk, inner, length)
                continue
            first, size = offset, length
            if self._zeros and self._zeros[0] == file and self._zeros[1] + self._zeros[2] == offset:
                first, size = self._zeros[1], self._zeros[2] + length
                self._extents.drop()
            self._zeros = (file, first, size)
            self._extents.append(file, first, fmt.ZEROS, 0, size)

    def part(self, packs: Sequence[Descriptor], files: int, chunks: int) -> Part:
        """The records for an index in which `files` files and `chunks` chunks precede and `packs` is the pack table."""
        places = {(pack.media_type, pack.digest): number for number, pack in enumerate(packs)}
        numbers = np.array([places[pack.media_type, pack.digest] for pack in self.packs if pack], "<u4")
        # Without a copy: all is entered.
        chunk, extent = self._chunks.array(fmt.CHUNK), self._extents.array(fmt.EXTENT)
        if len(chunk):
            chunk["pack"] = numbers[chunk["pack"]]
        extent["file"] += np.uint32(files)
        real = extent["chunk"] != fmt.ZEROS
        extent["chunk"][real] += np.uint32(chunks)
        return Part(self.files, chunk, extent)
