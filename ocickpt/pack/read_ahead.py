"""Chunks by number, for whoever wants them one after the other, sooner than it can say which.

The chunks that are wanted at all are grouped into neighbouring ranges of their packs. A chunk brings its
range with it, and the ranges after it are fetched in the background: memory that is asked for in the order
of its addresses, as packs hold it, is there before it is asked for. A chunk that somebody waits for comes alone.
What is asked for in many places, pages that changed one by one, is fetched once and kept (`again`).
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from ocickpt.model import BlobSource
from ocickpt.pack.again import Again
from ocickpt.pack.index import Index

RANGE = 2 << 20
"""At most so many bytes are fetched at once."""
AHEAD = 4
"""So many ranges are fetched before they are asked for."""
KEPT = 24
"""So many ranges are kept; each holds a few MiB at most."""
ALONE = 8
"""So many chunks of a range come alone, before all of it does."""
SINGLE = 64
"""So many chunks that came alone are kept."""
_BLOCK = 1 << 12
_Chunks = dict[int, bytes]


class ReadAhead:
    """The chunks `numbers` of an index, verified. For one thread; a context manager.

    Those for which `again` is true are wanted more than once, and not one time after the other; of these `most` bytes
    are kept. `fetched` is told the size of every range that has come, in whatever thread.
    """

    def __init__(
        self,
        index: Index,
        source: BlobSource,
        numbers: npt.NDArray[np.uint32],
        *,
        again: npt.NDArray[np.bool_] | None = None,
        most: int = 0,
        threads: int = 2,
        fetched: Callable[[int], None] = lambda _size: None,
    ) -> None:
        self._index = index
        self._source = source
        self._fetched = fetched
        self._order, self._starts = _group(index, numbers)
        self._place = np.empty(len(index.chunks), np.uint32)
        self._place[self._order] = np.arange(len(self._order), dtype=np.uint32)
        self._again = Again(index, np.zeros(len(index.chunks), np.bool_) if again is None else again, most)
        self._pool = ThreadPoolExecutor(threads, "ahead")
        self._coming: dict[int, Future[_Chunks]] = {}
        self._held: OrderedDict[int, _Chunks] = OrderedDict()
        self._last: tuple[int, _Chunks] = -1, {}
        self._single: OrderedDict[int, bytes] = OrderedDict()
        self._touched = bytearray(len(self._starts))

    def __enter__(self) -> ReadAhead:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._again.close()

    def get(self, number: int, *, alone: bool = False) -> bytes:
        """The content of one chunk; raises IntegrityError and whatever the source raises.

        Wanted `alone`, it does not wait for the rest of its range, unless much of that was wanted before.
        """
        if (kept := self._again.get(number)) is not None:
            return kept
        at = bisect_right(self._starts, int(self._place[number])) - 1
        last, chunks = self._last
        if at == last:
            return chunks[number]
        if number in self._single:
            return self._single[number]
        if alone and self._touched[at] < ALONE and at not in self._held and at not in self._coming:
            self._touched[at] += 1
            self._single[number] = self._fetch([number])[0][number]
            _forget_most(self._single, SINGLE)
            return self._single[number]
        return self._range(at)[number]

    def _range(self, at: int) -> _Chunks:
        """The chunks of a range; those after it come next."""
        chunks = self._held.pop(at, None)
        if chunks is None:
            coming = self._coming.pop(at, None)
            # What has not been begun has others before it, and this is waited for.
            chunks = self._bring(at) if coming is None or coming.cancel() else coming.result()
        self._held[at], self._last = chunks, (at, chunks)
        _forget_most(self._held, KEPT)
        for following in range(at + 1, min(at + 1 + AHEAD, len(self._starts))):
            if following not in self._held and following not in self._coming:
                self._coming[following] = self._pool.submit(self._bring, following)
        while len(self._coming) > KEPT:
            self._coming.pop(next(iter(self._coming))).cancel()
        return chunks

    def _bring(self, at: int) -> _Chunks:
        last = self._starts[at + 1] if at + 1 < len(self._starts) else len(self._order)
        chunks, size = self._fetch(self._order[self._starts[at] : last].tolist())
        for number, content in chunks.items():
            if self._again.wants(number):
                self._again.put(number, content)
        self._fetched(size)
        return chunks

    def _fetch(self, numbers: list[int]) -> tuple[_Chunks, int]:
        """These neighbouring chunks, and how many bytes of their pack they take."""
        chunks = [self._index.stored(number) for number in numbers]
        start = chunks[0].offset
        end = max(chunk.offset + chunk.stored for chunk in chunks)
        data = memoryview(self._source.read_at(chunks[0].pack, start, end - start))
        found = {}
        for number, chunk in zip(numbers, chunks, strict=True):
            packed = data[chunk.offset - start :][: chunk.stored]
            found[number] = self._index.codec.decode(packed, chunk.raw, chunk.hash)
        return found, end - start


def _forget_most(held: OrderedDict[int, Any], most: int) -> None:
    while len(held) > most:
        held.popitem(last=False)


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
