"""The index blob's byte layout: record types, the root, and the bounds both sides keep (schemas/README.md).

Everything is little-endian. This module only turns bytes into checked values and back; it reads no blob.
"""

from __future__ import annotations

import enum
import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, Self, TypeAlias

import numpy as np
import numpy.typing as npt

from ocickpt import names
from ocickpt.errors import IntegrityError, UnsupportedError
from ocickpt.model import Descriptor, Kind, check_digest
from ocickpt.pack.codec import PLAIN, Codec

Records: TypeAlias = npt.NDArray[np.void]
"""A one-dimensional structured array of CHUNK or EXTENT."""

CHUNK: Final = np.dtype([("pack", "<u4"), ("offset", "<u8"), ("stored", "<u4"), ("raw", "<u4"), ("hash", "V32")])
EXTENT: Final = np.dtype([("file", "<u4"), ("offset", "<u8"), ("chunk", "<u4"), ("inner", "<u4"), ("length", "<u8")])
CHUNK_STRUCT: Final = struct.Struct("<IQII32s")
EXTENT_STRUCT: Final = struct.Struct("<IQIIQ")
HASH_AT: Final = 20
"""Where a chunk record's hash begins."""
ZEROS: Final = 0xFFFFFFFF
"""The chunk number of an extent that is all zeros."""

MAGIC: Final = b"OCICKPT\x00"
RAW: Final = 0
ZSTD: Final = 1

CHUNK_SIZE: Final = 64 << 10
MAX_PAGE_SIZE: Final = 64 << 10
MAX_CHUNK_SIZE: Final = 1 << 20
MAX_SEGMENT: Final = 1 << 20
MAX_RATIO: Final = 32
"""A segment's raw size is at most so many times its stored size."""
FREE_MEMORY: Final = 96 << 20
MEMORY_RATIO: Final = 8
"""Reading an index takes at most FREE_MEMORY bytes of memory, and so many times the blob's size, by `memory`."""
MAX_ROOT: Final = 1 << 20
MAX_HEAD: Final = 16 << 20
MAX_INDEX: Final = 1 << 30
MAX_PACKS: Final = names.MAX_LAYERS - 1
"""The index is a layer too."""
MAX_BOOT_PACK: Final = 8 << 20
MAX_RECORDS: Final = (1 << 22, 1 << 25, 1 << 26)
"""At most so many files, chunks and extents."""
MAX_OFFSET: Final = 1 << 63
"""File offsets and virtual addresses lie below it."""

_RECORD_MEMORY: Final = (450, 0, 0)
_BYTE_MEMORY: Final = (2, 2, 3)
"""What a reader needs for each file, chunk and extent record, and for each byte of them, copies while it checks too."""

_HEADER: Final = struct.Struct("<8sHBBIIIIIIIIII")
_PACK: Final = struct.Struct("<BQ32s")
_SEGMENT: Final = struct.Struct("<BBIQII32s")
_ROOT_PLACE: Final = re.compile(r"(0|[1-9][0-9]{0,18})\+([1-9][0-9]{0,9})@(sha256:[0-9a-f]{64})")
_HEAD_PLACE: Final = re.compile(r"0|[1-9][0-9]{0,18}")


class RecordType(enum.IntEnum):
    """What a segment holds."""

    FILES = 0
    CHUNKS = 1
    EXTENTS = 2


@dataclass(frozen=True, slots=True)
class Segment:
    """Consecutive records of one type: `count` of them, `stored` bytes at `offset` of the blob, `raw` decompressed."""

    type: RecordType
    codec: int
    count: int
    offset: int
    stored: int
    raw: int
    hash: bytes


@dataclass(frozen=True, slots=True)
class Counts:
    """How many records there are of each type."""

    files: int
    chunks: int
    extents: int

    def of(self, kind: RecordType) -> int:
        """The count of one type."""
        return (self.files, self.chunks, self.extents)[kind]

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.files + other.files, self.chunks + other.chunks, self.extents + other.extents)


@dataclass(frozen=True, slots=True)
class Root:
    """What the end of the blob says: parameters, packs and segments. `boot` counts the records, first of their
    type, that describe BOOT files."""

    page_size: int
    chunk_size: int
    packs: tuple[Descriptor, ...]
    segments: tuple[Segment, ...]
    total: Counts
    boot: Counts

    def to_bytes(self, codec: Codec = PLAIN) -> bytes:
        """The root as it is stored, of an index that `codec` made."""
        total, boot = self.total, self.boot
        parts = [
            _HEADER.pack(
                MAGIC,
                names.FORMAT_VERSION,
                codec.algorithm,
                0,
                self.page_size,
                self.chunk_size,
                len(self.packs),
                len(self.segments),
                total.files,
                total.chunks,
                total.extents,
                boot.files,
                boot.chunks,
                boot.extents,
            )
        ]
        for pack in self.packs:
            parts.append(_PACK.pack(kind_of(pack), pack.size, bytes.fromhex(pack.digest[7:])))
        for segment in self.segments:
            parts.append(
                _SEGMENT.pack(
                    segment.type,
                    segment.codec,
                    segment.count,
                    segment.offset,
                    segment.stored,
                    segment.raw,
                    segment.hash,
                )
            )
        return b"".join(parts)

    @classmethod
    def from_bytes(cls, data: bytes, end: int, codec: Codec = PLAIN) -> Self:
        """The root in `data` (already verified), which stands at byte `end` of the blob, after all segments.

        Raises UnsupportedError for a later format and for an index that is not of `codec`, IntegrityError for
        anything malformed.
        """
        if len(data) < _HEADER.size or data[:8] != MAGIC:
            raise IntegrityError("the index is not an ocickpt index")
        fields: tuple[Any, ...] = _HEADER.unpack_from(data)
        _, version, algorithm, flags, page_size, chunk_size, packs, segments, *counts = fields
        if version > names.FORMAT_VERSION:
            raise UnsupportedError(
                f"the index has format version {version}; this ocickpt knows {names.FORMAT_VERSION}",
                hint="upgrade ocickpt",
            )
        if version != names.FORMAT_VERSION:
            raise IntegrityError(f"the index has format version {version}, which never was")
        if algorithm != codec.algorithm or flags:
            raise UnsupportedError(
                f"the index uses hash algorithm {algorithm} and flags {flags:#x}, unknown to this ocickpt",
                hint="upgrade ocickpt",
            )
        check_sizes(page_size, chunk_size)
        if packs > MAX_PACKS:
            raise IntegrityError(f"the index lists {packs} packs; at most {MAX_PACKS} are allowed")
        if len(data) != _HEADER.size + packs * _PACK.size + segments * _SEGMENT.size:
            raise IntegrityError("the index root's length does not fit its counts")
        total, boot = Counts(*counts[:3]), Counts(*counts[3:])
        _check_counts(total, boot)
        at = _HEADER.size
        found = tuple(_pack(*row) for row in _PACK.iter_unpack(data[at : at + packs * _PACK.size]))
        if len({(pack.media_type, pack.digest) for pack in found}) != len(found):
            raise IntegrityError("the index lists a pack twice")
        rows = tuple(_segment(row, codec.extra) for row in _SEGMENT.iter_unpack(data[at + packs * _PACK.size :]))
        _check_segments(rows, total, boot, end)
        room(rows, end + len(data))
        return cls(page_size, chunk_size, found, rows, total, boot)


def check_sizes(page_size: int, chunk_size: int) -> None:
    """IntegrityError unless the page size is a power of two in [4 KiB, 64 KiB] and the chunk size a multiple of
    it, at most 1 MiB."""
    if not 4096 <= page_size <= MAX_PAGE_SIZE or page_size & (page_size - 1):
        raise IntegrityError(f"a page size of {page_size} bytes makes no sense")
    if not page_size <= chunk_size <= MAX_CHUNK_SIZE or chunk_size % page_size:
        raise IntegrityError(f"a chunk size of {chunk_size} bytes makes no sense")


def _check_counts(total: Counts, boot: Counts) -> None:
    for kind in RecordType:
        if total.of(kind) > MAX_RECORDS[kind]:
            raise IntegrityError(f"the index says that it has {total.of(kind)} {kind.name.lower()}: too many")
        if boot.of(kind) > total.of(kind):
            raise IntegrityError(f"the index says it has more boot {kind.name.lower()} than {kind.name.lower()}")


def _pack(kind: int, size: int, digest: bytes) -> Descriptor:
    if kind not in list(Kind) or not 0 < size < 1 << 62:
        raise IntegrityError(f"the index lists a pack of kind {kind} and {size} bytes")
    return Descriptor(Kind(kind).media_type, f"sha256:{digest.hex()}", size)


def _segment(row: tuple[Any, ...], extra: int) -> Segment:
    """The segment in a row; `extra` bytes of what is stored are its seal."""
    kind, codec, count, offset, stored, raw, digest = row
    if kind not in list(RecordType) or codec not in (RAW, ZSTD):
        raise IntegrityError(f"the index has a segment of type {kind} and codec {codec}")
    if not (extra < stored <= MAX_SEGMENT + extra and 0 < raw <= min(MAX_SEGMENT, MAX_RATIO * stored) and count):
        raise IntegrityError(f"an index segment of {stored} bytes says that it holds {raw} bytes, {count} records")
    if codec == RAW and stored != raw + extra:
        raise IntegrityError("an index segment that is not compressed has two sizes")
    width = {RecordType.CHUNKS: CHUNK.itemsize, RecordType.EXTENTS: EXTENT.itemsize}.get(RecordType(kind), 0)
    if (width and raw != count * width) or count > raw:
        raise IntegrityError(f"an index segment of {raw} bytes says that it holds {count} records")
    return Segment(RecordType(kind), codec, count, offset, stored, raw, digest)


def _check_segments(rows: tuple[Segment, ...], total: Counts, boot: Counts, end: int) -> None:
    """All records are there, boot's end where a segment ends, and no two segments share a byte of the blob."""
    for kind in RecordType:
        seen, edges = 0, {0}
        for row in rows:
            if row.type is kind:
                seen += row.count
                edges.add(seen)
        if seen != total.of(kind) or boot.of(kind) not in edges:
            raise IntegrityError(f"the index's segments do not hold the {kind.name.lower()} that its root counts")
    reached = 0
    for row in sorted(rows, key=lambda row: row.offset):
        if row.offset < reached or row.offset + row.stored > end:
            raise IntegrityError("an index segment lies outside the index or over another one")
        reached = row.offset + row.stored


def memory(segments: Iterable[Segment]) -> int:
    """The bytes of memory that a reader needs for these segments, without what `files.weight` tells."""
    return sum(_RECORD_MEMORY[each.type] * each.count + _BYTE_MEMORY[each.type] * each.raw for each in segments)


def room(segments: Iterable[Segment], size: int) -> int:
    """How much more memory the index in a blob of `size` bytes may take; IntegrityError when these are too much."""
    left = FREE_MEMORY + MEMORY_RATIO * size - memory(segments)
    if left < 0:
        raise IntegrityError(f"an index of {size} bytes says that it holds more than one of that size should")
    return left


def kind_of(pack: Descriptor) -> Kind:
    """The kind of a pack by its media type; IntegrityError for anything else."""
    for kind in Kind:
        if pack.media_type == kind.media_type:
            return kind
    raise IntegrityError(f"{pack.media_type[:100]!r} is not the media type of a pack")


@dataclass(frozen=True, slots=True)
class Place:
    """What the index layer's annotations say: where the root is, its digest, and where the head begins."""

    offset: int
    length: int
    digest: str
    head: int

    def annotations(self) -> dict[str, str]:
        """The annotations of the index's descriptor."""
        return {
            names.ANNOTATION_INDEX_ROOT: f"{self.offset}+{self.length}@{self.digest}",
            names.ANNOTATION_INDEX_HEAD: str(self.head),
        }

    @classmethod
    def of(cls, blob: Descriptor) -> Self:
        """The place told by an index's descriptor; IntegrityError when it cannot be."""
        if blob.media_type != names.INDEX_TYPE:
            raise IntegrityError(f"{blob.media_type[:100]!r} is not the media type of an index")
        if blob.size > MAX_INDEX:
            raise IntegrityError(f"an index of {blob.size} bytes is too large; at most {MAX_INDEX} are allowed")
        found = _ROOT_PLACE.fullmatch(blob.annotations.get(names.ANNOTATION_INDEX_ROOT, ""))
        if not found:
            raise IntegrityError("the index's descriptor does not say where its root is")
        offset, length, digest = int(found[1]), int(found[2]), check_digest(found[3])
        head = blob.annotations.get(names.ANNOTATION_INDEX_HEAD, found[1])
        if not _HEAD_PLACE.fullmatch(head):
            raise IntegrityError("the index's descriptor does not say where its head begins")
        if length > MAX_ROOT or offset + length != blob.size:
            raise IntegrityError("the index's root does not lie at its end")
        if int(head) > offset or blob.size - int(head) > MAX_HEAD:
            raise IntegrityError("the index's head does not lie before its root, or is too large")
        return cls(offset, length, digest, int(head))
