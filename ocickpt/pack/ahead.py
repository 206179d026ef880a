"""Chunks by number, for whoever wants them one after the other, sooner than it can say which.

The chunks that are wanted at all are grouped into neighbouring ranges of their packs. A chunk brings its
range with it, and the ranges after it are fetched in the background: memory that is asked for in the order
of its addresses, as packs hold it, is there before it is asked for.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from ocickpt.model import BlobSource
from ocickpt.pack.index import Index
from ocickpt.pack.reader import decode_chunk

RANGE = 2 << 20
"""At most so many bytes are fetched at once."""
AHEAD = 4
"""So many ranges are fetched before they are asked for."""
KEPT = 24
"""So many ranges are kept; each holds a few MiB at most."""


class ReadAhead:
    """The chunks `numbers` of an index, verified. Safe to use from several threads. A context manager."""

    def __init__(
        self,
        index: Index,
        source: BlobSource,
        numbers: npt.NDArray[np.uint32],
        *,
        threads: int = 2,
        fetched: Callable[[int], None] = lambda _size: None,
    ) -> None:
        self._index = index
        self._source = source
        self._fetched = fetched
        self._ranges = _group(index, numbers)
        self._range_of = {number: at for at, chunks in enumerate(self._ranges) for number in chunks}
        self._pool = ThreadPoolExecutor(threads, "ahead")
        self._lock = threading.Lock()
        self._held: OrderedDict[int, Future[dict[int, bytes]]] = OrderedDict()
        self._last: tuple[int, dict[int, bytes]] = -1, {}

    def __enter__(self) -> ReadAhead:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def get(self, number: int) -> bytes:
        """The content of one chunk; raises IntegrityError and whatever the source raises."""
        at = self._range_of[number]
        last, chunks = self._last
        if at == last:
            return chunks[number]
        with self._lock:
            wanted = self._want(at)
            for following in range(at + 1, min(at + 1 + AHEAD, len(self._ranges))):
                self._want(following)
            while len(self._held) > KEPT:
                self._held.popitem(last=False)
        try:
            chunks = wanted.result()
        except BaseException:
            with self._lock:
                # What failed is tried again when it is asked for again.
                self._held.pop(at, None)
            raise
        self._last = at, chunks
        return chunks[number]

    def _want(self, at: int) -> Future[dict[int, bytes]]:
        if at in self._held:
            self._held.move_to_end(at)
        else:
            self._held[at] = self._pool.submit(self._fetch, self._ranges[at])
        return self._held[at]

    def _fetch(self, numbers: Sequence[int]) -> dict[int, bytes]:
        chunks = [self._index.stored(number) for number in numbers]
        start = chunks[0].offset
        end = max(chunk.offset + chunk.stored for chunk in chunks)
        data = memoryview(self._source.read_at(chunks[0].pack, start, end - start))
        found = {}
        for number, chunk in zip(numbers, chunks, strict=True):
            at = chunk.offset - start
            found[number] = decode_chunk(data[at : at + chunk.stored], chunk.raw, chunk.hash)
        self._fetched(end - start)
        return found


def _group(index: Index, numbers: npt.NDArray[np.uint32]) -> list[list[int]]:
    """`numbers` in the order of packs, in runs that touch and are at most RANGE bytes long."""
    unique = np.unique(numbers)
    places = index.chunks[unique]
    order = np.lexsort((places["offset"], places["pack"]))
    groups: list[list[int]] = []
    pack, start, end = -1, 0, -1
    for number, place, offset, stored in zip(
        unique[order].tolist(),
        places["pack"][order].tolist(),
        places["offset"][order].tolist(),
        places["stored"][order].tolist(),
        strict=True,
    ):
        if place == pack and offset == end and offset + stored - start <= RANGE:
            groups[-1].append(number)
        else:
            groups.append([number])
            start = offset
        pack, end = place, offset + stored
    return groups
