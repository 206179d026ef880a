"""Chunks by number, for whoever wants them one after the other, sooner than it can say which.

The chunks that are wanted at all are grouped into neighbouring ranges of their packs. A chunk brings its
range with it, and the ranges after it are fetched in the background: memory that is asked for in the order
of its addresses, as packs hold it, is there before it is asked for.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable
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
_BLOCK = 1 << 12


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
        self._order, self._starts = _group(index, numbers)
        self._place = np.empty(len(index.chunks), np.uint32)
        self._place[self._order] = np.arange(len(self._order), dtype=np.uint32)
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
        at = bisect_right(self._starts, int(self._place[number])) - 1
        last, chunks = self._last
        if at == last:
            return chunks[number]
        with self._lock:
            wanted = self._want(at)
            for following in range(at + 1, min(at + 1 + AHEAD, len(self._starts))):
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
            self._held[at] = self._pool.submit(self._fetch, at)
        return self._held[at]

    def _fetch(self, at: int) -> dict[int, bytes]:
        last = self._starts[at + 1] if at + 1 < len(self._starts) else len(self._order)
        numbers = self._order[self._starts[at] : last].tolist()
        chunks = [self._index.stored(number) for number in numbers]
        start = chunks[0].offset
        end = max(chunk.offset + chunk.stored for chunk in chunks)
        data = memoryview(self._source.read_at(chunks[0].pack, start, end - start))
        found = {}
        for number, chunk in zip(numbers, chunks, strict=True):
            packed = data[chunk.offset - start :][: chunk.stored]
            found[number] = decode_chunk(packed, chunk.raw, chunk.hash)
        self._fetched(end - start)
        return found


def _group(index: Index, numbers: npt.NDArray[np.uint32]) -> tuple[npt.NDArray[np.uint32], list[int]]:
    """`numbers` in the order of packs, and where in them runs begin that touch and are at most RANGE bytes long."""
    unique = np.unique(numbers)
    places = index.chunks[["pack", "offset", "stored"]]
    order = unique[np.lexsort((places["offset"][unique], places["pack"][unique]))]
    starts: list[int] = []
    pack, start, end = -1, 0, -1
    for first in range(0, len(order), _BLOCK):
        for at, (place, offset, stored) in enumerate(places[order[first : first + _BLOCK]].tolist(), first):
            if place != pack or offset != end or offset + stored - start > RANGE:
                starts.append(at)
                start = offset
            pack, end = place, offset + stored
    return order, starts
