"""Content that an earlier checkpoint already stored: chunks by hash, pages by where they are and what they hold."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ocickpt.model import FileType, Kind, Stored
from ocickpt.pack import format as fmt
from ocickpt.pack import marks
from ocickpt.pack.codec import Codec
from ocickpt.pack.index import Index
from ocickpt.pack.marks import Marks

MIN_LIVE = 0.3
"""A pack of which the earlier checkpoint uses less than this part is not inherited from: its content is packed anew."""
MAX_INHERITED = 320
"""Only so many packs, those of which most is used, are inherited from: small ones get merged as they grow many."""


_BEFORE = 32
"""Bytes of memory for each extent of a file whose pages are looked for."""


def _live(index: Index) -> npt.NDArray[np.float64]:
    """How much of what is stored of each chunk is used: of one with loose pages it may be little."""
    extents = index.extents[index.extents["chunk"] != fmt.ZEROS]
    used = np.bincount(extents["chunk"], weights=extents["length"], minlength=len(index.chunks))
    found: npt.NDArray[np.float64] = np.minimum(used / np.maximum(index.chunks["raw"], 1), 1.0) * index.chunks["stored"]
    return found


class Inherited:
    """The chunks of an earlier checkpoint, found by hash; 13 bytes of memory a chunk beside the index.

    With `kept`, the marks of its pages, single pages are found too. Packs that have become fragments (`MIN_LIVE`,
    `MAX_INHERITED`) are left out, and so is the boot pack, which every checkpoint has for itself. Safe to use from
    several threads.
    """

    def __init__(self, index: Index, kept: Marks | None = None) -> None:
        self._index, self._kept = index, kept
        chunks = index.chunks
        pack = np.ascontiguousarray(chunks["pack"])
        live = np.bincount(pack, weights=_live(index), minlength=len(index.packs))
        good = [
            number
            for number, descriptor in enumerate(index.packs)
            if fmt.kind_of(descriptor) is not Kind.BOOT and live[number] >= MIN_LIVE * descriptor.size
        ]
        good = sorted(good, key=lambda number: (-live[number], number))[:MAX_INHERITED]
        usable = np.zeros(len(index.packs), np.bool_)
        usable[good] = True
        self._kinds = [fmt.kind_of(descriptor) for descriptor in index.packs]
        self._usable: npt.NDArray[np.bool_] = usable[pack]
        boot = np.array([kind is Kind.BOOT for kind in self._kinds], np.bool_)
        self._boot = int(np.count_nonzero(boot[pack]))
        chosen = np.flatnonzero(self._usable).astype(np.uint32)
        bytes_ = np.ascontiguousarray(chunks).view(np.uint8).reshape(-1, fmt.CHUNK.itemsize)
        prefix = np.ascontiguousarray(bytes_[:, fmt.HASH_AT : fmt.HASH_AT + 8]).view("<u8").reshape(-1)[chosen]
        order = np.argsort(prefix, kind="stable")
        self._prefix, self._number = prefix[order], chosen[order]
        self._files = {
            (entry.kind, entry.path): number
            for number, entry in enumerate(index.files)
            if kept and (entry.type is FileType.PAGES or entry.size >= index.chunk_size)
        }

    @property
    def codec(self) -> Codec:
        """What those chunks were stored with: their hashes and frames are its own."""
        return self._index.codec

    @property
    def page_size(self) -> int:
        """Of its index, in bytes."""
        return self._index.page_size

    @property
    def memory(self) -> int:
        """Bytes of memory, the index with it, and what a `Before` takes."""
        index = self._index
        found = sum(each.nbytes for each in (index.chunks, index.extents, self._prefix, self._number, self._usable))
        return found + (len(index.extents) * _BEFORE if self._kept else 0)

    def find(self, kind: Kind, digest: bytes) -> int | None:
        """The number of a chunk of `kind` whose content has this hash by `codec`, if one may be inherited."""
        prefix = np.uint64(int.from_bytes(digest[:8], "little"))
        at = int(np.searchsorted(self._prefix, prefix))
        while at < len(self._prefix) and self._prefix[at] == prefix:
            record = self._index.chunks[int(self._number[at])]
            if bytes(record["hash"]) == digest and self._kinds[record["pack"]] is kind:
                return int(self._number[at])
            at += 1
        return None

    def stored(self, chunk: int) -> Stored:
        """Where a chunk is kept, and what it holds."""
        return self._index.stored(chunk)

    def marks(self, chunk: int) -> bytes:
        """Those of a chunk's pages; nothing where there are none."""
        return self._kept.of(chunk - self._boot) if self._kept else b""

    def before(self, kind: Kind, path: str) -> Before | None:
        """A file of the earlier checkpoint, where it is known page by page."""
        number = self._files.get((kind, path))
        if self._kept is None or number is None or kind in (Kind.BOOT, Kind.STATE):
            return None
        return Before(self._index.extents_of(number), self._usable, self._kept, self._boot, self._index.page_size)


class Before:
    """A file as the earlier checkpoint has it, page by page. Threads may share it."""

    def __init__(self, extents: fmt.Records, usable: npt.NDArray[np.bool_], kept: Marks, boot: int, page: int) -> None:
        self._usable, self._kept, self._boot, self._page = usable, kept, boot, page
        self._offset, self._chunk, self._inner, self._length = (
            np.ascontiguousarray(extents[name]).astype(np.int64) for name in ("offset", "chunk", "inner", "length")
        )

    def unchanged(self, offsets: Sequence[int], found: bytes) -> list[tuple[int, int] | None]:
        """For each page that is at an offset now, and whose mark is in `found`: the chunk that holds it already, and
        where in that; None where it is another one, or cannot be inherited."""
        now: list[tuple[int, int] | None] = [None] * len(offsets)
        if not len(self._offset):
            return now
        wanted = np.array(offsets, np.int64)
        at = np.searchsorted(self._offset, wanted, "right") - 1
        inside = wanted - self._offset[at]
        chunk, inner = self._chunk[at], self._inner[at] + inside
        good = (at >= 0) & (inside + self._page <= self._length[at]) & (chunk != fmt.ZEROS) & (inner % self._page == 0)
        rows = np.flatnonzero(good)
        rows = rows[self._usable[chunk[rows]]]
        known = self._kept.at(chunk[rows] - self._boot, inner[rows] // self._page)
        same = known == np.frombuffer(found, f"V{marks.SIZE}")[rows]
        for row in rows[same].tolist():
            now[row] = int(chunk[row]), int(inner[row])
        return now
