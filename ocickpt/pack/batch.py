"""Cutting a stream into windows: page slots that are filled in order, and a worker that hashes and encodes them.

A window is `chunk_size` bytes of a file's (or address space's) offsets, aligned to its own size. The pages of a
window that hold anything but zeros become one chunk. Cutting by target offset keeps chunks equal between
checkpoints and between forked processes, wherever the bytes lie in the stream.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from ocickpt.errors import StorageError
from ocickpt.model import Kind
from ocickpt.pack.buffers import zeros
from ocickpt.pack.codec import Codec
from ocickpt.pack.inherited import Before
from ocickpt.pack.marks import Marker

BATCH_SIZE = 1 << 20


@dataclass(frozen=True, slots=True)
class Target:
    """The file that pages belong to. `limit` is where its content ends (no end for PAGES)."""

    kind: Kind
    number: int
    limit: int
    keep_zeros: bool
    """Zero pages are extents of their own (PAGES), not holes (regular files)."""
    marked: bool = False
    """Whether its pages get marks."""
    before: Before | None = None
    """What it was, page by page, as far as that is known."""


@dataclass(frozen=True, slots=True)
class Cut:
    """One chunk with the extents around it, on its way into the index.

    `data` is the raw content (None: only zeros here); `packed` is it encoded, None when the worker saw that the
    content is there already; both lie in the batch. An extent is (offset, length, offset in the chunk or -1 for zeros).
    """

    target: Target
    data: bytes | memoryview | None
    hash: bytes
    packed: memoryview | None
    extents: list[tuple[int, int, int]]
    marks: bytes = b""
    """Of the pages in `data`, one after the other."""
    kept: list[tuple[int, int] | None] | None = None
    """For each of these pages the chunk of the earlier checkpoint that holds it, and where in that; None where most
    are new, and `packed` has them all."""


class Batch:
    """A reusable buffer of page slots, and one for what `codec` makes of them. A window never spans two batches.

    `plan` reserves slots; `fetch` then reads all that was planned in as few reads as possible: runs of whole pages
    follow each other in the buffer as they do in the stream.
    """

    def __init__(self, page_size: int, chunk_size: int, codec: Codec) -> None:
        self._page, self._window = page_size, chunk_size // page_size
        self.slots = max(BATCH_SIZE, 2 * chunk_size) // page_size
        self.buffer = zeros(self.slots * page_size)
        self.view = memoryview(self.buffer)
        self._packed = memoryview(zeros(self.slots * codec.room(page_size)))
        self._kept = 0
        self.pieces: list[tuple[Target, int, int, int]] = []
        self.used = 0
        self.bytes = 0
        self._planned: list[tuple[int, int]] = []

    def clear(self) -> None:
        """Ready for new pages."""
        self.pieces.clear()
        self._planned.clear()
        self.used = self.bytes = self._kept = 0

    def keep(self, packed: bytes) -> memoryview:
        """A copy of `packed` in this batch: what waits to be written grows no heap."""
        start, self._kept = self._kept, self._kept + len(packed)
        kept = self._packed[start : self._kept]
        kept[:] = packed
        return kept

    def plan(self, target: Target, offset: int, end: int) -> int:
        """Reserve room for the bytes [offset, end) of `target`, or as many whole windows of them as fit.

        Returns where the reservation ends; `offset` itself if the next window does not fit.
        """
        page, size = offset // self._page, self._page
        room = self.slots - self.used
        shared = False
        if self.pieces and offset % size:
            last, first, _, count = self.pieces[-1]
            shared = last is target and first + count == page + 1
        slot = self.used - shared
        if page + shared + room < (page // self._window + 1) * self._window:
            return offset
        most = page + shared + room
        if most * size < end:
            end = most // self._window * self._window * size
        count = -(-end // size) - page
        start = slot * size + offset % size
        stop = start + end - offset
        if not shared and start > slot * size:
            self.view[slot * size : start] = bytes(start - slot * size)
        self.used = slot + count
        if stop < self.used * size:
            self.view[stop : self.used * size] = bytes(self.used * size - stop)
        if count > shared:
            self.pieces.append((target, page + shared, slot + shared, count - shared))
        if self._planned and self._planned[-1][1] == start:
            self._planned[-1] = (self._planned[-1][0], stop)
        else:
            self._planned.append((start, stop))
        self.bytes += stop - start
        return end

    def fetch(self, stream: BinaryIO, name: str) -> None:
        """Read what was planned; StorageError if `stream` ends early or fails."""
        readinto: Callable[[memoryview], int | None] | None = getattr(stream, "readinto", None)
        try:
            for start, stop in self._planned:
                while start < stop:
                    part = self.view[start:stop]
                    if readinto:
                        got = readinto(part) or 0
                    else:
                        data = stream.read(len(part))
                        got = len(data)
                        part[:got] = data
                    if not got:
                        raise StorageError(f"{name[:200]!r} ended before all of it was read: did it change?")
                    start += got  # noqa: PLW2901
        except OSError as error:
            raise StorageError(f"{name[:200]!r} could not be read: {error}") from error
        self._planned.clear()


class Cutter:
    """The work on a batch, in any thread: find zeros, cut windows, hash, and encode what `seen` does not know."""

    def __init__(
        self,
        page_size: int,
        chunk_size: int,
        codec: Codec,
        seen: Callable[[Kind, bytes], bool],
        marker: Marker | None = None,
    ) -> None:
        self._page, self._window = page_size, chunk_size // page_size
        self._codec, self._seen, self._marker = codec, seen, marker

    def cut(self, batch: Batch) -> list[Cut]:
        """The chunks in a filled batch, in order."""
        found: list[Cut] = []
        size = self._page
        target: Target | None = None
        window = -1
        slices: list[tuple[int, int]] = []
        extents: list[tuple[int, int, int]] = []
        inner = 0
        for start, stop, page, piece, full in self._stretches(batch):
            owner = batch.pieces[piece][0]
            if not full and not owner.keep_zeros:
                continue
            if owner is not target or (full and page // self._window != window):
                if target:
                    found.append(self._finish(batch, target, slices, extents))
                target, window, slices, extents, inner = owner, -1, [], [], 0
            offset = page * size
            length = min((page + stop - start) * size, owner.limit) - offset
            if full:
                window = page // self._window
                begin = start * size
                if slices and slices[-1][1] == begin:
                    slices[-1] = (slices[-1][0], begin + length)
                else:
                    slices.append((begin, begin + length))
                extents.append((offset, length, inner))
                inner += length
            else:
                extents.append((offset, length, -1))
        if target:
            found.append(self._finish(batch, target, slices, extents))
        return found

    def _stretches(self, batch: Batch) -> zip[tuple[Any, ...]]:
        """(first slot, end slot, first page, piece, not zero) of stretches of consecutive pages of one file that are
        all zero, or none zero and in one window."""
        words = np.frombuffer(batch.buffer, "<u8").reshape(batch.slots, -1)[: batch.used]
        full: npt.NDArray[np.bool_] = np.any(words, axis=1)
        counts = [count for _, _, _, count in batch.pieces]
        shift = np.array([page - slot for _, page, slot, _ in batch.pieces], np.int64)
        piece = np.repeat(np.arange(len(counts)), counts)
        page = shift[piece] + np.arange(batch.used)
        owner = np.array([id(target) for target, _, _, _ in batch.pieces], np.uint64)[piece]
        window = page // self._window
        edge = (page[1:] != page[:-1] + 1) | (owner[1:] != owner[:-1]) | (full[1:] != full[:-1])
        edge |= full[1:] & (window[1:] != window[:-1])
        starts = np.concatenate(([0], np.flatnonzero(edge) + 1))
        stops = np.append(starts[1:], batch.used)
        return zip(
            starts.tolist(),
            stops.tolist(),
            page[starts].tolist(),
            piece[starts].tolist(),
            full[starts].tolist(),
            strict=True,
        )

    def _finish(
        self, batch: Batch, target: Target, slices: list[tuple[int, int]], extents: list[tuple[int, int, int]]
    ) -> Cut:
        if not slices:
            return Cut(target, None, b"", None, extents)
        data: bytes | memoryview
        if len(slices) == 1:
            data = batch.view[slice(*slices[0])]
        else:
            data = b"".join(batch.view[slice(*part)] for part in slices)
        digest = self._codec.hash(data)
        if self._seen(target.kind, digest):
            return Cut(target, data, digest, None, extents)
        marks, kept = b"", None
        if self._marker and target.marked:
            view = memoryview(data)
            marks = b"".join(self._marker.of(view[at : at + self._page]) for at in range(0, len(view), self._page))
            if target.before:
                kept = target.before.unchanged(self._offsets(extents), marks)
                if 2 * sum(1 for each in kept if each) < len(kept):
                    kept = None
        packed = None if kept else batch.keep(self._codec.encode(data))
        return Cut(target, data, digest, packed, extents, marks, kept)

    def _offsets(self, extents: list[tuple[int, int, int]]) -> list[int]:
        """Where the pages of a window's chunk are, in its order."""
        return [
            at for offset, length, inner in extents if inner >= 0 for at in range(offset, offset + length, self._page)
        ]
