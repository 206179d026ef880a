"""Windows of which most is stored already: only pages that changed are packed, those of many windows to a chunk."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from ocickpt.model import Kind
from ocickpt.pack import marks
from ocickpt.pack.batch import Cut

Extent = tuple[int | None, int, int, int]
"""A chunk's number, or None for zeros; offset, length, and offset in the chunk."""


@dataclass(slots=True)
class _Chunk:
    """One that is being filled; its number is known before its content."""

    number: int
    data: bytearray = field(default_factory=bytearray)
    marks: bytearray = field(default_factory=bytearray)


class Loose:
    """Fills chunks of `size` bytes with pages, one of each kind at a time.

    `reserve` gives the number of the next chunk, and `close` is given such a chunk when it is full: kind,
    number, content, marks.
    """

    def __init__(
        self,
        page: int,
        size: int,
        reserve: Callable[[], int],
        close: Callable[[Kind, int, bytes, bytes], None],
    ) -> None:
        self._page, self._size, self._reserve, self._close = page, size, reserve, close
        self._open: dict[Kind, _Chunk] = {}
        self._windows: dict[tuple[Kind, bytes], array[int]] = {}
        """Where each page of a window is that was packed like this, by its hash: processes fork."""

    def knows(self, cut: Cut) -> bool:
        """Whether a window of this content has been packed like this already."""
        return (cut.target.kind, cut.hash) in self._windows

    def extents(self, cut: Cut, inherit: Callable[[int], int | None]) -> Iterator[Extent]:
        """Where the bytes of a window are, in order, once its loose pages have found their place.

        `inherit` gives our number for a chunk of the earlier checkpoint, if it may have one.
        """
        last: Extent | None = None
        for chunk, offset, length, inner in self._pieces(cut, inherit):
            if last and (last[0], last[1] + last[2]) == (chunk, offset) and last[3] + last[2] == inner:
                last = chunk, last[1], last[2] + length, last[3]
                continue
            if last:
                yield last
            last = chunk, offset, length, inner
        if last:
            yield last

    def finish(self) -> None:
        """Close what is not full."""
        for kind in [*self._open]:
            self._end(kind)

    def _pieces(self, cut: Cut, inherit: Callable[[int], int | None]) -> Iterator[Extent]:
        """Page by page; a run of zeros is one piece."""
        key = cut.target.kind, cut.hash
        places = self._windows.get(key)
        if places is None:
            places = self._windows[key] = self._place(cut, inherit)
        for offset, length, inner in cut.extents:
            if inner < 0:
                yield None, offset, length, -1
                continue
            for at in range(0, length, self._page):
                page = (inner + at) // self._page
                yield places[2 * page], offset + at, min(self._page, length - at), places[2 * page + 1]

    def _place(self, cut: Cut, inherit: Callable[[int], int | None]) -> array[int]:
        """For each page of a window's content the chunk that holds it, and where in that."""
        assert cut.data is not None  # noqa: S101 - zeros alone are never most of a chunk
        assert cut.kept is not None  # noqa: S101 - else its chunk is whole
        places = array("I")
        for number, kept in enumerate(cut.kept):
            if kept and (chunk := inherit(kept[0])) is not None:
                places.extend((chunk, kept[1]))
            else:
                page = cut.data[number * self._page :][: self._page]
                places.extend(self._add(cut.target.kind, page, cut.marks[number * marks.SIZE :][: marks.SIZE]))
        return places

    def _add(self, kind: Kind, page: bytes | memoryview, mark: bytes) -> tuple[int, int]:
        chunk = self._open.get(kind)
        if chunk is None:
            chunk = self._open[kind] = _Chunk(self._reserve())
        place = len(chunk.data)
        chunk.data += page
        chunk.marks += mark
        # A page that is short, for its file ends there, is the last of its chunk: whole ones begin where pages do.
        if len(chunk.data) >= self._size or len(page) < self._page:
            self._end(kind)
        return chunk.number, place

    def _end(self, kind: Kind) -> None:
        chunk = self._open.pop(kind)
        self._close(kind, chunk.number, bytes(chunk.data), bytes(chunk.marks))
