"""Chunks that are wanted in many places: fetched and verified once, then kept in a file without a name."""

from __future__ import annotations

import os
import tempfile

import numpy as np
import numpy.typing as npt

from ocickpt.pack.index import Index

_TEMPORARY = "/var/tmp"  # noqa: S108 - the file has no name there
"""Where podman and skopeo keep what is large, unless TMPDIR says otherwise."""


class Again:
    """Those of the chunks of `index` for which `wanted` is true, the first ones up to `most` bytes of content.

    What cannot be kept, for there is no room, is fetched again: nobody has to know. Threads may share it; 10 bytes of
    memory a chunk.
    """

    def __init__(self, index: Index, wanted: npt.NDArray[np.bool_], most: int) -> None:
        self._ends = np.cumsum(np.where(wanted, index.chunks["raw"], 0).astype(np.int64))
        self._wanted, self._there = wanted & (self._ends <= most), bytearray(len(wanted))
        self._file = _new() if self._wanted.any() else -1

    def wants(self, number: int) -> bool:
        """Whether a chunk is to be put here."""
        return self._file >= 0 and bool(self._wanted[number])

    def get(self, number: int) -> bytes | None:
        """The content of one that was put here; None before that."""
        if not self._there[number]:
            return None
        at, end = self._bounds(number)
        try:
            found = os.pread(self._file, end - at, at)
        except OSError:
            return None
        return found if len(found) == end - at else None

    def put(self, number: int, content: bytes) -> None:
        """Keep the content of a chunk that is wanted, if there is room."""
        try:
            written = os.pwrite(self._file, content, self._bounds(number)[0])
        except OSError:
            return
        self._there[number] = written == len(content)

    def close(self) -> None:
        """Nothing of it is left."""
        if self._file >= 0:
            os.close(self._file)
        self._file = -1

    def _bounds(self, number: int) -> tuple[int, int]:
        return int(self._ends[number - 1]) if number else 0, int(self._ends[number])


def _new() -> int:
    """A file without a name; -1 where none can be made."""
    try:
        with tempfile.TemporaryFile(dir=os.environ.get("TMPDIR") or _TEMPORARY) as file:
            return os.dup(file.fileno())
    except OSError:
        return -1
