"""Content that an earlier checkpoint already stored, by hash."""

from __future__ import annotations

import numpy as np

from ocickpt.model import Kind, Stored
from ocickpt.pack import format as fmt
from ocickpt.pack.codec import Codec
from ocickpt.pack.index import Index

MIN_LIVE = 0.1
"""A pack of which the earlier checkpoint uses less than this part is not inherited from: its content is packed anew."""
MAX_INHERITED = 320
"""Only so many packs, those of which most is used, are inherited from: small ones get merged as they grow many."""


class Inherited:
    """The chunks of an earlier checkpoint, found by hash; 12 bytes of memory a chunk beside the index.

    Packs that have become fragments (`MIN_LIVE`, `MAX_INHERITED`) are left out, and so is the boot pack, which
    every checkpoint has for itself. Safe to use from several threads.
    """

    def __init__(self, index: Index) -> None:
        self._index = index
        chunks = index.chunks
        pack = np.ascontiguousarray(chunks["pack"])
        live = np.bincount(pack, weights=chunks["stored"], minlength=len(index.packs))
        good = [
            number
            for number, descriptor in enumerate(index.packs)
            if fmt.kind_of(descriptor) is not Kind.BOOT and live[number] >= MIN_LIVE * descriptor.size
        ]
        good = sorted(good, key=lambda number: (-live[number], number))[:MAX_INHERITED]
        usable = np.zeros(len(index.packs), np.bool_)
        usable[good] = True
        self._kinds = [fmt.kind_of(descriptor) for descriptor in index.packs]
        chosen = np.flatnonzero(usable[pack]).astype(np.uint32) if len(pack) else np.empty(0, np.uint32)
        bytes_ = np.ascontiguousarray(chunks).view(np.uint8).reshape(-1, fmt.CHUNK.itemsize)
        prefix = np.ascontiguousarray(bytes_[:, fmt.HASH_AT : fmt.HASH_AT + 8]).view("<u8").reshape(-1)[chosen]
        order = np.argsort(prefix, kind="stable")
        self._prefix, self._number = prefix[order], chosen[order]

    @property
    def codec(self) -> Codec:
        """What those chunks were stored with: their hashes and frames are its own."""
        return self._index.codec

    @property
    def memory(self) -> int:
        """Bytes of memory, the index with it."""
        return sum(each.nbytes for each in (self._index.chunks, self._index.extents, self._prefix, self._number))

    def find(self, kind: Kind, digest: bytes) -> Stored | None:
        """A chunk of `kind` whose content has this hash by `codec`, if there is one that may be inherited."""
        prefix = np.uint64(int.from_bytes(digest[:8], "little"))
        at = int(np.searchsorted(self._prefix, prefix))
        while at < len(self._prefix) and self._prefix[at] == prefix:
            record = self._index.chunks[int(self._number[at])]
            if bytes(record["hash"]) == digest and self._kinds[record["pack"]] is kind:
                return self._index.stored(int(self._number[at]))
            at += 1
        return None
