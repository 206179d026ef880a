"""Reads content back: ranges of packs, each fetched once; no byte leaves before its chunk's hash was checked."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ocickpt.errors import IntegrityError
from ocickpt.model import BlobSource, Descriptor, FileType, Progress, Silent
from ocickpt.pack import format as fmt
from ocickpt.pack.codec import Codec
from ocickpt.pack.index import Index

RANGE = 4 << 20
"""At most so many bytes are read at once (a single chunk is never larger), less where the index is large."""
GAP = 128 << 10
"""So many bytes that nobody wants are read rather than making another request."""

Write = Callable[[int, int, memoryview], None]
_BLOCK = 1 << 12
"""So many records at once are Python's objects, a few hundred bytes each."""


@dataclass(frozen=True, slots=True)
class _Range:
    """Bytes [start, end) of a pack and the chunks to take from them: place in the list of wanted chunks, offset,
    stored, raw, hash."""

    pack: Descriptor
    start: int
    end: int
    chunks: list[tuple[int, int, int, int, bytes]]


def read_file(index: Index, source: BlobSource, number: int, limit: int) -> bytes:
    """The content of regular file `number`; IntegrityError if it is none or larger than `limit` bytes."""
    return read_files(index, source, [number], limit)[number]


def read_files(index: Index, source: BlobSource, numbers: Iterable[int], limit: int) -> dict[int, bytes]:
    """The contents of small regular files in few reads; IntegrityError if they are more than `limit` bytes together."""
    wanted = {number: index.files[number] for number in numbers}
    for entry in wanted.values():
        if entry.type is not FileType.REGULAR:
            raise IntegrityError(f"{entry.path[:200]!r} is not a regular file")
    if sum(entry.size for entry in wanted.values()) > limit:
        names = ", ".join(repr(entry.path[:200]) for entry in list(wanted.values())[:3])
        raise IntegrityError(f"{names} should hold at most {limit} bytes")
    found = {number: bytearray(entry.size) for number, entry in wanted.items()}

    def write(number: int, offset: int, data: memoryview) -> None:
        found[number][offset : offset + len(data)] = data

    extract(index, source, wanted, write, threads=1)
    return {number: bytes(data) for number, data in found.items()}


def stored_size(index: Index, files: Iterable[int]) -> int:
    """The bytes that `extract` of these files will tell its progress: what their chunks take in packs."""
    _, chunks = _select(index, files)
    return int(index.chunks["stored"][np.unique(chunks)].sum(dtype=np.uint64))


def extract(
    index: Index,
    source: BlobSource,
    files: Iterable[int],
    write: Write,
    progress: Progress | None = None,
    *,
    threads: int = 4,
) -> None:
    """Call ``write(file, offset, data)`` for every extent of `files` that is not a run of zeros.

    Calls come from `threads` threads at once, in no order; a chunk that is used several times is fetched and
    decompressed once. The first error, of `source`, of `write` or an IntegrityError, ends everything and is raised
    when all threads have stopped. Memory: about 5 MiB a thread.
    """
    extents, chunks = _select(index, files)
    order = np.argsort(chunks, kind="stable")
    extents, chunks = extents[order], chunks[order]
    numbers, firsts = np.unique(chunks, return_index=True)
    lasts = np.append(firsts[1:], len(chunks))

    def use(at: int, data: memoryview) -> None:
        for row in index.extents[extents[firsts[at] : lasts[at]]].tolist():
            file, offset, _, inner, length = row
            write(file, offset, data[inner : inner + length])

    ranges = _ranges(index, numbers, _range_size(index, threads))
    _run(ranges, _Taker(source, index.codec, use, progress or Silent()), threads)


def check(index: Index, source: BlobSource, progress: Progress | None = None, threads: int = 4) -> None:
    """Read and verify every chunk of the index; errors as in `extract`."""
    numbers = np.arange(len(index.chunks), dtype=np.uint32)
    ranges = _ranges(index, numbers, _range_size(index, threads))
    _run(ranges, _Taker(source, index.codec, lambda _at, _data: None, progress or Silent()), threads)


def _select(index: Index, files: Iterable[int]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint32]]:
    """The numbers of the extents of `files` that have a chunk, and those chunks' numbers."""
    wanted = np.zeros(len(index.files), np.bool_)
    wanted[list(files)] = True
    chunk = np.ascontiguousarray(index.extents["chunk"])
    found = np.flatnonzero(wanted[index.extents["file"]] & (chunk != fmt.ZEROS))
    return found, chunk[found]


def _range_size(index: Index, threads: int) -> int:
    """How much is read at once: what the index takes, and its copies in another order, is taken from what is in flight.

    So no more memory is used for a checkpoint of a few GiB than for a small one.
    """
    taken = 3 * (index.chunks.nbytes + index.extents.nbytes)
    return max(RANGE // 4, RANGE - taken // threads)


def _ranges(index: Index, numbers: npt.NDArray[np.uint32], size: int) -> Iterator[_Range]:
    """The chunks `numbers` in the order of packs, neighbours together as long as they are no more than `size` bytes."""
    places = index.chunks[numbers] if len(numbers) < len(index.chunks) else index.chunks
    order = np.lexsort((places["offset"], places["pack"]))
    now: _Range | None = None
    pack = -1
    for first in range(0, len(order), _BLOCK):
        block = order[first : first + _BLOCK]
        for at, (place, offset, stored, raw, digest) in zip(block.tolist(), places[block].tolist(), strict=True):
            end = offset + stored
            if now and place == pack and offset <= now.end + GAP and max(end, now.end) - now.start <= size:
                now.chunks.append((at, offset, stored, raw, bytes(digest)))
                now = _Range(now.pack, now.start, max(end, now.end), now.chunks)
                continue
            if now:
                yield now
            pack = place
            now = _Range(index.packs[place], offset, end, [(at, offset, stored, raw, bytes(digest))])
    if now:
        yield now


@dataclass(frozen=True, slots=True)
class _Taker:
    """Fetches a range from `source` and gives `use` the place and content of each of its chunks, verified."""

    source: BlobSource
    codec: Codec
    use: Callable[[int, memoryview], None]
    progress: Progress

    def take(self, part: _Range, stop: threading.Event) -> None:
        """All chunks of `part`, or until `stop` is set."""
        data = memoryview(self.source.read_at(part.pack, part.start, part.end - part.start))
        if len(data) != part.end - part.start:
            raise IntegrityError(f"pack {part.pack.digest} is shorter than its descriptor says")
        for at, offset, stored, raw, digest in part.chunks:
            if stop.is_set():
                return
            packed = data[offset - part.start : offset - part.start + stored]
            self.use(at, memoryview(self.codec.decode(packed, raw, digest)))
            self.progress.advance(stored)


def _run(ranges: Iterator[_Range], taker: _Taker, threads: int) -> None:
    """Take all of `ranges` in `threads` threads."""
    lock, stop = threading.Lock(), threading.Event()
    errors: list[BaseException] = []

    def work() -> None:
        try:
            while not stop.is_set():
                with lock:
                    part = next(ranges, None)
                if part is None:
                    return
                taker.take(part, stop)
        except BaseException as error:  # noqa: BLE001 -- raised again by the caller's thread
            errors.append(error)
            stop.set()

    workers = [threading.Thread(target=work, name="unpack", daemon=True) for _ in range(max(1, threads) - 1)]
    for worker in workers:
        worker.start()
    work()
    for worker in workers:
        worker.join()
    if errors:
        raise errors[0]
