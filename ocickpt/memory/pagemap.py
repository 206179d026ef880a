"""CRIU's pagemap images: which pages of an address space lie where in ``pages-N.img``.

Decoded by hand, strictly, and without pycriu, because restores and page servers need it and the
entries changed with CRIU 4.2 (``nr_pages`` moved from field 2 to field 5). What is not known is
refused: an incremental image without its parent, compressed pages (CRIU 4.3), any new flag or field.

The format: two magics, then messages that are each preceded by their length as a little-endian
u32; the first is `pagemap_head`, the others are `pagemap_entry` (CRIU images/pagemap.proto,
criu/image.c, criu/include/magic.h, criu/pagemap.c). ``pagemap-shmem-N.img`` is the same with
offsets into the segment for virtual addresses.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Self

from ocickpt.errors import IntegrityError, UnsupportedError
from ocickpt.model import Run

COMMON_MAGIC = 0x54564319
PAGEMAP_MAGIC = 0x56084025
PE_PARENT, PE_LAZY, PE_PRESENT = 1, 2, 4

MAX_ENTRIES = 2 * 1024 * 1024
_MAX_ADDRESS = 1 << 63
_MAX_RECORD = 64
"""Bytes of the longest message there can be: five fields of at most eleven bytes."""
_FIELDS = "vaddr", "nr_pages", "in_parent", "flags", "nr_pages"
_LENGTH = struct.Struct("<I")


class PageEntry(NamedTuple):
    """One entry: `pages` pages from virtual address `address` on."""

    address: int
    pages: int
    flags: int
    offset: int
    """Where its bytes begin in ``pages-N.img``; meaningless unless `flags` has PE_PRESENT."""


@dataclass(frozen=True, slots=True)
class PageMap:
    """A decoded pagemap image. Addresses, offsets and lengths are in bytes."""

    pages_id: int
    """The N of ``pages-N.img``."""
    page_size: int
    file_size: int
    """What the size of ``pages-N.img`` must be."""
    lazy_bytes: int
    """How much of `file_size` may be restored lazily (PE_LAZY)."""
    entries: tuple[PageEntry, ...] = field(repr=False)
    _starts: array[int] = field(repr=False)
    _ends: array[int] = field(repr=False)
    _offsets: array[int] = field(repr=False)

    @classmethod
    def parse(cls, data: bytes, page_size: int = 4096) -> Self:
        """The pagemap in `data`, the whole image file.

        Raises IntegrityError when it is damaged (truncated, out of order, overlapping, not aligned,
        too large to be true), UnsupportedError when it is sound but needs more than this file.
        """
        entries: list[PageEntry] = []
        starts, ends, offsets = array("Q"), array("Q"), array("Q")
        size = lazy = previous = 0
        pages_id, position = _head(data)
        for vaddr, pages, flags, _ in _messages(data, position):
            length = pages * page_size
            end = vaddr + length
            if vaddr % page_size:
                raise IntegrityError(f"pagemap entry {len(entries)}: address {vaddr:#x} is not on a page boundary")
            if not pages or end > _MAX_ADDRESS:
                raise IntegrityError(f"pagemap entry {len(entries)}: {pages} pages at {vaddr:#x} cannot be")
            if vaddr < previous:
                raise IntegrityError(f"pagemap entry {len(entries)}: address {vaddr:#x} is out of order")
            if len(entries) == MAX_ENTRIES:
                raise IntegrityError(f"a pagemap has more than {MAX_ENTRIES} entries")
            entries.append(PageEntry(vaddr, pages, flags, size))
            if flags & PE_PRESENT:
                if starts and ends[-1] == vaddr:
                    ends[-1] = end
                else:
                    starts.append(vaddr)
                    ends.append(end)
                    offsets.append(size)
                size += length
                if flags & PE_LAZY:
                    lazy += length
            previous = end
        return cls(pages_id, page_size, size, lazy, tuple(entries), starts, ends, offsets)

    def runs(self) -> list[Run]:
        """The present memory by virtual address, ascending; back to back they are ``pages-N.img``."""
        return [Run(start, end - start) for start, end in zip(self._starts, self._ends, strict=True)]

    def locate(self, address: int, length: int) -> Iterator[tuple[int, int]]:
        """Where `length` bytes of memory from `address` on lie in ``pages-N.img``, as (offset, length) pieces.

        Raises IntegrityError, possibly after some pieces, at the first address that is not there.
        """
        while length > 0:
            run = bisect_right(self._starts, address) - 1
            if run < 0 or address >= self._ends[run]:
                raise IntegrityError(f"address {address:#x} is not in the pagemap")
            found = min(length, self._ends[run] - address)
            yield self._offsets[run] + address - self._starts[run], found
            address += found
            length -= found

    def present(self, address: int, length: int) -> Iterator[Run]:
        """The parts of `length` bytes from `address` on that are in ``pages-N.img``, by virtual address."""
        run = max(bisect_right(self._starts, address) - 1, 0)
        stop = address + length
        while run < len(self._starts) and self._starts[run] < stop:
            begin, end = max(address, self._starts[run]), min(stop, self._ends[run])
            if begin < end:
                yield Run(begin, end - begin)
            run += 1


def mark_lazy(data: bytes, areas: Sequence[tuple[int, int]], page_size: int = 4096) -> bytes:
    """The pagemap image in `data` with PE_LAZY for every page in `areas`, which are (start, end) and ascend.

    Entries are divided where areas begin and end. Raises IntegrityError, UnsupportedError.
    """
    edges = [edge for area in areas for edge in area]
    if edges != sorted(edges) or any(start == end for start, end in areas) or any(edge % page_size for edge in edges):
        raise IntegrityError("the mappings of a process overlap, are empty, or not on page boundaries")
    _, position = _head(data)
    marked = bytearray(data[:position])
    for vaddr, pages, flags, wide in _messages(data, position):
        for start, end, lazy in _divided(vaddr, vaddr + pages * page_size, areas):
            count = (end - start) // page_size
            sizes = ((2, 0), (5, count)) if wide else ((2, count),)
            message = _message((1, start), (4, flags | PE_LAZY if lazy else flags), *sizes)
            marked += _LENGTH.pack(len(message)) + message
    return bytes(marked)


def _divided(start: int, end: int, areas: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int, bool]]:
    """The parts of [start, end) that are in one of `areas`, and those that are not."""
    at = bisect_right(areas, start, key=lambda area: area[1])
    while start < end:
        begins, ends = areas[at] if at < len(areas) else (end, end)
        inside = begins <= start
        stop = min(end, ends if inside else begins)
        yield start, stop, inside
        start, at = stop, at + inside


def _head(data: bytes) -> tuple[int, int]:
    """The id of the pages file, and where the entries begin."""
    if len(data) < 12:
        raise IntegrityError("a pagemap image is truncated")
    common, magic, length = struct.unpack_from("<III", data)
    if common == PAGEMAP_MAGIC:
        raise UnsupportedError("a pagemap image has the format of CRIU 1.x")
    if common != COMMON_MAGIC or magic != PAGEMAP_MAGIC:
        raise IntegrityError(f"not a pagemap image (magic {common:#x} {magic:#x})")
    if length > _MAX_RECORD or len(data) < 12 + length:
        raise IntegrityError("a pagemap image is truncated or its head damaged")
    pages_id = -1
    for number, value in _fields(data, 12, 12 + length):
        if number != 1:
            raise UnsupportedError(f"a pagemap image's head has the unknown field {number}", hint=_NEWER)
        if pages_id >= 0 or value >> 32:
            raise IntegrityError("a pagemap image's head is damaged")
        pages_id = value
    if pages_id < 0:
        raise IntegrityError("a pagemap image does not name its pages")
    return pages_id, 12 + length


_NEWER = "it was made by a newer CRIU than this version knows (compressed pages?)"


def _messages(data: bytes, position: int) -> Iterator[tuple[int, int, int, bool]]:
    """(vaddr, pages, flags) of each entry, from byte `position` on, and whether its length is where CRIU 4.2 has it."""
    total = len(data)
    unpack = _LENGTH.unpack_from
    while position < total:
        begin = position + 4
        if begin > total:
            raise IntegrityError("a pagemap image is truncated")
        (length,) = unpack(data, position)
        position = begin + length
        if position > total:
            raise IntegrityError("a pagemap image is truncated")
        if length > _MAX_RECORD:
            raise UnsupportedError(f"a pagemap entry has {length} bytes", hint=_NEWER)
        yield _entry(data, begin, position)


def _entry(data: bytes, position: int, end: int) -> tuple[int, int, int, bool]:
    found = [-1] * 6
    for number, value in _fields(data, position, end):
        if not 1 <= number <= 5:
            raise UnsupportedError(f"a pagemap entry has the unknown field {number}", hint=_NEWER)
        if found[number] >= 0:
            raise IntegrityError(f"a pagemap entry has {_FIELDS[number - 1]} twice")
        found[number] = value
    _, vaddr, old, parent, flags, new = found
    if vaddr < 0 or (old < 0 and new < 0):
        raise IntegrityError("a pagemap entry lacks its address or its length")
    if old >> 32 > 0 or (new >= 0 and old > 0 and old != new):
        raise IntegrityError(f"a pagemap entry at {vaddr:#x} contradicts itself about its length")
    if flags < 0:
        flags = PE_PRESENT
    if parent > 0 or flags & PE_PARENT:
        raise UnsupportedError(
            "the dump is incremental: pages are left to a parent image that is not part of it",
            hint="checkpoint without --with-previous",
        )
    if flags & ~(PE_LAZY | PE_PRESENT) or not flags:
        raise UnsupportedError(f"a pagemap entry has the unknown flags {flags:#x}", hint=_NEWER)
    return vaddr, (new if new >= 0 else old), flags, new >= 0


def _message(*fields: tuple[int, int]) -> bytes:
    """A message of varints."""
    message = bytearray()
    for number, value in sorted(fields):
        message.append(number << 3)
        rest = value
        while rest > 0x7F:
            message.append(rest & 0x7F | 0x80)
            rest >>= 7
        message.append(rest)
    return bytes(message)


def _fields(data: bytes, position: int, end: int) -> Iterator[tuple[int, int]]:
    """(number, value) of each field of a message that has varints only (protobuf's encoding guide)."""
    while position < end:
        tag = data[position]
        position += 1
        if tag & 0x87:
            if tag & 0x80:
                raise UnsupportedError("a pagemap message has an unknown field", hint=_NEWER)
            if tag >> 3 in range(1, 6):
                raise IntegrityError("a pagemap message has a field of the wrong type")
            raise UnsupportedError(f"a pagemap message has the unknown field {tag >> 3}", hint=_NEWER)
        value = shift = 0
        while True:
            if position >= end or shift > 63:
                raise IntegrityError("a pagemap message is damaged")
            byte = data[position]
            position += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
        if value >> 64:
            raise IntegrityError("a pagemap message is damaged")
        yield tag >> 3, value
