"""Packs content: cut, hash, look up, encode, append to packs, and write the index.

The caller's thread reads and builds the index, workers hash and encode, one more thread writes packs and another
makes full ones durable. Results are entered in the order of the input, so equal input gives equal blobs. Content goes
from thread to thread in batches, which are filled again once they are written.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from ocickpt.errors import IntegrityError, UnsupportedError
from ocickpt.model import (
    BlobSpool,
    BlobWriter,
    Content,
    Descriptor,
    FileType,
    Kind,
    Packed,
    Progress,
    Run,
    Silent,
)
from ocickpt.pack import format as fmt
from ocickpt.pack.batch import BATCH_SIZE, Batch, Cut, Cutter, Target
from ocickpt.pack.codec import PLAIN, Codec
from ocickpt.pack.index_builder import IndexBuilder
from ocickpt.pack.inherited import Inherited
from ocickpt.pack.loose import Loose
from ocickpt.pack.marks import MarksWriter
from ocickpt.pack.writer import write_index

PACK_SIZE = 16 << 20
MAX_THREADS = 12
CROWDED = 320
"""With so many packs, new ones grow larger: each further eight double the size at which a pack is closed."""
FULL = 360
"""With so many packs, no further ones are inherited from."""


def pack_size_for(total: int) -> int:
    """The pack size in bytes for a checkpoint of `total` bytes: 16 MiB, or enough to stay within 300 packs."""
    return max(PACK_SIZE, -(-total // 300))


def chunk_size_for(page_size: int) -> int:
    """The bytes of a window, of which one chunk is made: 64 KiB, or a page where that is larger."""
    return max(fmt.CHUNK_SIZE, page_size)


@dataclass(slots=True)
class _Pack:
    """A pack that is being written; `number` counts in its index builder's packs."""

    kind: Kind
    number: int
    blob: BlobWriter
    size: int = 0
    complete: Future[Descriptor] = field(default_factory=Future)


class Packer:
    """Takes content, file by file, and leaves packs and an index in a spool.

    `page_size` is the unit of zero detection and of memory; `pack_size` that at which a pack is closed, in bytes of
    the pack; `inherited` what an earlier checkpoint already stored, left aside unless `codec` opens that; `marks` gets
    those of all pages but small state, for a later checkpoint; `on_pack` is called, from another thread, with each new
    pack as soon as it is durable. `progress` is advanced by the bytes read (call `expect` yourself). `threads` is the
    number of workers, by default one for each processor. Not for use from several threads.

    Used as a context manager, it leaves nothing unfinished behind when `finish` was not reached.
    """

    def __init__(
        self,
        spool: BlobSpool,
        *,
        page_size: int = 4096,
        pack_size: int = PACK_SIZE,
        inherited: Inherited | None = None,
        marks: MarksWriter | None = None,
        progress: Progress | None = None,
        on_pack: Callable[[Descriptor], None] | None = None,
        threads: int | None = None,
        codec: Codec = PLAIN,
    ) -> None:
        self._page, self._chunk = page_size, chunk_size_for(page_size)
        fmt.check_sizes(self._page, self._chunk)
        self._spool, self._pack_size, self._codec = spool, pack_size, codec
        self._inherited = inherited if inherited and codec.opens(inherited.codec) else None
        self._marks = marks
        self._progress = progress or Silent()
        self._on_pack = on_pack
        threads = min(threads or len(os.sched_getaffinity(0)), MAX_THREADS)
        self._workers = ThreadPoolExecutor(threads, "pack")
        self._writer = ThreadPoolExecutor(1, "pack-write")
        self._closer = ThreadPoolExecutor(1, "pack-close")
        self._threads = threads
        self._queue: deque[tuple[Batch, Future[list[Cut]]]] = deque()
        self._writing: deque[tuple[Batch, Future[None]]] = deque()
        self._idle: list[Batch] = []
        self._batches = 1
        self._boot, self._rest = IndexBuilder(), IndexBuilder()
        self._loose = Loose(self._page, self._chunk, self._rest.reserve, self._fill)
        self._cutter = Cutter(self._page, self._chunk, codec, self._seen, marks.marker if marks else None)
        self._batch = Batch(self._page, self._chunk, codec)
        self._open: dict[Kind, _Pack] = {}
        self._closing: list[_Pack] = []
        self._writes: list[tuple[_Pack, bytes | memoryview | None]] = []
        self._parents: dict[tuple[Kind, str], int] = {}
        """Where each pack of the earlier checkpoint stands among ours."""
        self._raw: dict[Kind, int] = {}
        self._done = self._failed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def add(self, content: Content) -> None:
        """Pack one entry and its bytes; they are read before this returns, and may be entered later.

        Raises IntegrityError for an entry or runs that an index cannot hold, StorageError when the stream ends
        early or the spool cannot be written, UnsupportedError when the boot pack gets too large. After an error
        nothing can be added any more, and the packing cannot be finished.
        """
        if self._done:
            raise RuntimeError("the packer is finished, or failed before")
        self._done = True
        self._add(content)
        self._done = False

    def _add(self, content: Content) -> None:
        entry = content.entry
        builder = self._builder(entry.kind)
        pages = entry.type is FileType.PAGES
        limit = fmt.MAX_OFFSET if pages else entry.size if entry.type is FileType.REGULAR else 0
        marked = self._marks is not None and entry.kind not in (Kind.BOOT, Kind.STATE)
        inherited = self._inherited if self._inherited and self._inherited.page_size == self._page else None
        before = inherited.before(entry.kind, entry.path) if inherited else None
        target = Target(entry.kind, builder.add(entry), limit, pages, marked, before)
        if content.open is None:
            for run in content.runs:
                if run.length:
                    raise IntegrityError(f"{entry.path[:200]!r} has runs and no bytes")
            return
        with content.open() as stream:
            reached = 0
            for run in content.runs:
                reached = self._check(run, reached, target, entry.path)
                at = run.offset
                while at < reached:
                    end = self._batch.plan(target, at, reached)
                    if end == at:
                        self._batch.fetch(stream, entry.path)
                        self._submit()
                    at = end
            self._batch.fetch(stream, entry.path)

    def finish(self) -> Packed:
        """Write what is left and the index; the packer cannot be used again. Errors as in `add`."""
        if self._done:
            raise RuntimeError("the packer is finished, or failed before")
        self._done = True
        try:
            return self._finish()
        finally:
            self._stop()

    def _finish(self) -> Packed:
        self._submit()
        while self._queue:
            self._settle()
        self._loose.finish()
        for pack in list(self._open.values()):
            self._close(pack)
        self._write(self._batch)
        while self._writing:
            self._written()
        self._idle.clear()
        written = []
        for pack in self._closing:
            self._builder(pack.kind).packs[pack.number] = descriptor = pack.complete.result()
            written.append(descriptor)
        packs = _unique(self._boot.packs + self._rest.packs)
        index = write_index(
            self._spool,
            page_size=self._page,
            chunk_size=self._chunk,
            packs=packs,
            boot=self._boot.part(packs, 0, 0),
            rest=self._rest.part(packs, len(self._boot.files), self._boot.count),
            codec=self._codec,
        )
        if self._marks:
            self._marks.finish(fmt.Place.of(index).digest, self._rest.count)
        new = _unique(written)
        return Packed(index, tuple(packs), tuple(new), dict(sorted(self._raw.items())))

    def _builder(self, kind: Kind) -> IndexBuilder:
        return self._boot if kind is Kind.BOOT else self._rest

    def _check(self, run: Run, reached: int, target: Target, path: str) -> int:
        """Where `run` ends; IntegrityError unless it follows `reached` and lies inside the file."""
        end = run.offset + run.length
        if run.length < 0 or run.offset < reached or end > target.limit:
            raise IntegrityError(f"{path[:200]!r} has a run at {run.offset:#x}+{run.length:#x}, where none can be")
        if target.keep_zeros and (run.offset | run.length) % self._page:
            raise IntegrityError(
                f"{path[:200]!r} has a run at {run.offset:#x}+{run.length:#x}, which is not whole pages"
            )
        return end

    def _seen(self, kind: Kind, digest: bytes) -> bool:
        """Whether a chunk will probably not be needed; asked by workers, who may be early."""
        if self._builder(kind).find(kind, digest) is not None:
            return True
        return kind is not Kind.BOOT and self._inherited is not None and self._inherited.find(kind, digest) is not None

    def _submit(self) -> None:
        """Hand the filled batch to the workers, enter those they are done with, and take an empty one."""
        if not self._batch.used:
            return
        self._queue.append((self._batch, self._workers.submit(self._cutter.cut, self._batch)))
        while self._queue and self._queue[0][1].done():
            self._settle()
        while not self._idle and self._batches >= self._most():
            if not self._writing:
                self._settle()
            self._written()
        if not self._idle:
            self._idle.append(Batch(self._page, self._chunk, self._codec))
            self._batches += 1
        self._batch = self._idle.pop()

    def _most(self) -> int:
        """How many batches there may be: fewer as the index grows, so that memory does not grow with the checkpoint."""
        index = self._boot.memory + self._rest.memory + (self._inherited.memory if self._inherited else 0)
        return max(self._threads + 2, 2 * self._threads + 4 - index // (BATCH_SIZE // 4))

    def _settle(self) -> None:
        """Enter what is in the oldest batch, and have it written."""
        batch, future = self._queue.popleft()
        for cut in future.result():
            self._settle_cut(cut)
        self._write(batch)
        self._progress.advance(batch.bytes)
        for pack in self._closing:
            if pack.complete.done():
                pack.complete.result()

    def _settle_cut(self, cut: Cut) -> None:
        kind, builder = cut.target.kind, self._builder(cut.target.kind)
        if cut.data is None:
            builder.extend(cut.target.number, None, cut.extents)
            return
        self._raw[kind] = self._raw.get(kind, 0) + len(cut.data)
        chunk = self._known(cut, len(cut.data))
        if chunk is None and (cut.kept or self._loose.knows(cut)):
            for part, offset, length, inner in self._loose.extents(cut, lambda each: self._inherit(kind, each)):
                builder.extend(cut.target.number, part, [(offset, length, inner)])
            return
        if chunk is None:
            packed = self._codec.encode(cut.data) if cut.packed is None else cut.packed
            chunk = builder.chunk(kind, self._append(kind, packed, len(cut.data)), cut.hash)
            self._mark(kind, chunk, cut.marks)
        builder.extend(cut.target.number, chunk, cut.extents)

    def _known(self, cut: Cut, size: int) -> int | None:
        """The number of a chunk that is there already: ours, or one of the earlier checkpoint."""
        kind = cut.target.kind
        chunk = self._builder(kind).find(kind, cut.hash)
        if chunk is not None or self._inherited is None or kind is Kind.BOOT:
            return chunk
        found = self._inherited.find(kind, cut.hash)
        return None if found is None else self._inherit(kind, found, size)

    def _mark(self, kind: Kind, chunk: int, marks: bytes) -> None:
        if self._marks and kind is not Kind.BOOT:
            self._marks.put(chunk, marks)

    def _inherit(self, kind: Kind, number: int, size: int | None = None) -> int | None:
        """Our number for a chunk of the earlier checkpoint, which is entered when it is asked for first; None for one
        that is not of that `size`, and where no further pack may be inherited from."""
        assert self._inherited is not None  # noqa: S101 - it has said that number
        found = self._inherited.stored(number)
        if (known := self._rest.find(kind, found.hash)) is not None:
            return known
        if size not in (None, found.raw):
            return None
        key = (kind, found.pack.digest)
        if key not in self._parents:
            if len(self._rest.packs) >= FULL:
                return None
            self._parents[key] = len(self._rest.packs)
            self._rest.packs.append(found.pack)
        place = self._parents[key], found.offset, found.stored, found.raw
        chunk = self._rest.chunk(kind, place, found.hash)
        self._mark(kind, chunk, self._inherited.marks(number))
        return chunk

    def _fill(self, kind: Kind, number: int, data: bytes, marks: bytes) -> None:
        """Write a chunk of loose pages, whose number was reserved."""
        place = self._append(kind, self._codec.encode(data), len(data))
        self._rest.fill(number, kind, place, self._codec.hash(data))
        self._mark(kind, number, marks)

    def _append(self, kind: Kind, packed: bytes | memoryview, raw: int) -> tuple[int, int, int, int]:
        """Write what is stored of a chunk to the open pack of its kind; pack, offset, stored, raw."""
        builder = self._builder(kind)
        pack = self._open.get(kind)
        if pack is None:
            pack = self._open[kind] = _Pack(kind, len(builder.packs), self._spool.new_blob())
            builder.packs.append(None)
        if kind is Kind.BOOT and pack.size + len(packed) > fmt.MAX_BOOT_PACK:
            raise UnsupportedError(
                f"what a restore begins with is larger than {fmt.MAX_BOOT_PACK >> 20} MiB compressed"
            )
        self._writes.append((pack, packed))
        place = pack.number, pack.size, len(packed), raw
        pack.size += len(packed)
        crowd = max(0, len(self._rest.packs) - CROWDED) // 8
        if kind is not Kind.BOOT and pack.size >= self._pack_size << crowd:
            self._close(pack)
        return place

    def _close(self, pack: _Pack) -> None:
        del self._open[pack.kind]
        self._closing.append(pack)
        self._writes.append((pack, None))

    def _write(self, batch: Batch) -> None:
        """Have what was entered written, which lies in `batch`."""
        self._writing.append((batch, self._writer.submit(self._do_write, self._writes)))
        self._writes = []

    def _written(self) -> None:
        """Wait until the oldest batch is written; it can be filled again, unless there are too many."""
        batch, future = self._writing.popleft()
        future.result()
        if self._batches > self._most():
            self._batches -= 1
            return
        batch.clear()
        self._idle.append(batch)

    def _do_write(self, writes: list[tuple[_Pack, bytes | memoryview | None]]) -> None:
        # After a failed write nothing more may be committed: a pack could lack what was not written.
        if self._failed:
            return
        self._failed = True
        for pack, data in writes:
            if data is None:
                self._closer.submit(self._commit, pack)
            else:
                pack.blob.write(data)
        self._failed = False

    def _commit(self, pack: _Pack) -> None:
        try:
            descriptor = pack.blob.commit(pack.kind.media_type)
            if self._on_pack:
                self._on_pack(descriptor)
        except BaseException as error:  # noqa: BLE001 -- raised again where the result is used
            pack.complete.set_exception(error)
        else:
            pack.complete.set_result(descriptor)

    def _stop(self) -> None:
        """End all threads and forget what is not committed. Harmless when all is done."""
        self._done = True
        self._workers.shutdown(wait=True, cancel_futures=True)
        self._writer.shutdown(wait=True, cancel_futures=True)
        self._closer.shutdown(wait=True, cancel_futures=True)
        for pack in [*self._open.values(), *self._closing]:
            pack.blob.discard()
        for left in (self._open, self._closing, self._writes, self._writing, self._queue, self._idle):
            left.clear()
        self._boot, self._rest, self._inherited = IndexBuilder(), IndexBuilder(), None


def _unique(packs: Sequence[Descriptor | None]) -> list[Descriptor]:
    """`packs` without repetition: content packed anew may come out as a pack that is also inherited."""
    return list({(pack.media_type, pack.digest): pack for pack in packs if pack}.values())
