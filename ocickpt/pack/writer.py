"""Writes an index blob: segments, those of the BOOT files last, then the root."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ocickpt import names
from ocickpt.errors import IntegrityError, UnsupportedError
from ocickpt.model import BlobSpool, BlobWriter, Descriptor, Entry, digest_of
from ocickpt.pack import format as fmt
from ocickpt.pack.codec import PLAIN, Codec
from ocickpt.pack.files import Tree, encode, weight


@dataclass(frozen=True, slots=True)
class Part:
    """The file, chunk and extent records of the BOOT files, or of all others; numbers are those of the whole index."""

    files: Sequence[Entry]
    chunks: fmt.Records
    extents: fmt.Records

    @property
    def counts(self) -> fmt.Counts:
        """How many records."""
        return fmt.Counts(len(self.files), len(self.chunks), len(self.extents))


def write_index(
    spool: BlobSpool,
    *,
    page_size: int,
    chunk_size: int,
    packs: Sequence[Descriptor],
    boot: Part,
    rest: Part,
    codec: Codec = PLAIN,
) -> Descriptor:
    """Write the index whose files are `boot` then `rest` to the spool; its descriptor tells where root and head are.

    Segments are stored by `codec`, which made the chunks. The root is not: it says no more than the manifest does.
    Raises IntegrityError where an entry is not allowed in an index, UnsupportedError where there is too much.
    """
    Tree().add_all(itertools.chain(boot.files, rest.files))
    fmt.check_sizes(page_size, chunk_size)
    counts = boot.counts
    total = counts + rest.counts
    if len(packs) > fmt.MAX_PACKS or any(total.of(kind) > fmt.MAX_RECORDS[kind] for kind in fmt.RecordType):
        raise UnsupportedError(f"too much for one checkpoint: {len(packs)} packs, {total}")
    # What compresses too well for its reader's memory is stored as it is.
    heavy = weight(itertools.chain(boot.files, rest.files))
    for plain in ((), (fmt.RecordType.FILES,), (fmt.RecordType.FILES, fmt.RecordType.EXTENTS)):
        blob = spool.new_blob()
        try:
            out = _Out(blob, plain, codec)
            later = out.write(rest)
            head = out.offset
            segments = tuple(out.write(boot) + later)
            root = fmt.Root(page_size, chunk_size, tuple(packs), segments, total, counts).to_bytes(codec)
            place = fmt.Place(out.offset, len(root), digest_of(root), head)
            size = out.offset + len(root)
            if len(root) > fmt.MAX_ROOT or size > fmt.MAX_INDEX:
                raise UnsupportedError("too much for one checkpoint: its index is too large")
            if size - head > fmt.MAX_HEAD:
                raise UnsupportedError("too many boot files: the index's head is too large")
            if fmt.memory(segments) + heavy <= fmt.FREE_MEMORY + fmt.MEMORY_RATIO * size:
                blob.write(root)
                return blob.commit(names.INDEX_TYPE, place.annotations())
        finally:
            blob.discard()
    raise UnsupportedError("too much for one checkpoint: reading its index would take too much memory")


class _Out:
    def __init__(self, blob: BlobWriter, plain: Sequence[fmt.RecordType], codec: Codec) -> None:
        self._blob, self._plain, self._codec = blob, plain, codec
        self.offset = 0

    def write(self, part: Part) -> list[fmt.Segment]:
        """Append the part's segments."""
        found = [self._segment(fmt.RecordType.FILES, count, data) for count, data in _batches(part.files)]
        for kind, records in ((fmt.RecordType.CHUNKS, part.chunks), (fmt.RecordType.EXTENTS, part.extents)):
            step = fmt.MAX_SEGMENT // records.dtype.itemsize
            for first in range(0, len(records), step):
                piece = np.ascontiguousarray(records[first : first + step])
                found.append(self._segment(kind, len(piece), piece.tobytes()))
        return found

    def _segment(self, kind: fmt.RecordType, count: int, data: bytes) -> fmt.Segment:
        form, frame = fmt.ZSTD, data if kind in self._plain else self._codec.compress(data)
        if len(frame) >= len(data) or len(frame) * fmt.MAX_RATIO < len(data):
            form, frame = fmt.RAW, data
        stored = self._codec.seal(frame)
        made = fmt.Segment(kind, form, count, self.offset, len(stored), len(data), self._codec.hash(stored))
        self._blob.write(stored)
        self.offset += len(stored)
        return made


def _batches(files: Sequence[Entry]) -> Iterator[tuple[int, bytes]]:
    """File records in pieces of at most a segment."""
    parts: list[bytes] = []
    size = 0
    for entry in files:
        record = encode(entry)
        if len(record) > fmt.MAX_SEGMENT:
            raise IntegrityError(f"{entry.path[:200]!r} has too many extended attributes")
        if size + len(record) > fmt.MAX_SEGMENT:
            yield len(parts), b"".join(parts)
            parts, size = [], 0
        parts.append(record)
        size += len(record)
    if parts:
        yield len(parts), b"".join(parts)
