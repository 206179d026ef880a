"""Chunks that are wanted in many places: fetched and verified once, then kept in a file without a name."""

from __future__ import annotations

import os
import tempfile

import numpy as np
import numpy.typing as npt

from ocickpt.errors import StorageError
from ocickpt.pack.index import Index

_TEMPORARY = "/var/tmp"  # noqa: S108 - the file has no name there
"""Where podman and skopeo keep what is large, unless TMPDIR says otherwise."""


class Again:
    """Those of the chunks of `index` for which `wanted` is true. Threads may share it; 13 bytes of memory a chunk.

    The file is made when it is needed, and its room is given back when it is closed. StorageError.
    """

    def __init__(self, index: Index, wanted: npt.NDArray[np.bool_]) -> None:
        raw = np.where(wanted, index.chunks["raw"], 0).astype(np.int64)
        self._ends = np.cumsum(raw)
        self._wanted, self._there = wanted, bytearray(len(wanted))
        self._file = -1
        if wanted.any():
            self._file = _new()

    def wants(self, number: int) -> bool:
        """Whether a chunk is one of those."""
        return bool(self._wanted[number])

    def get(self, number: int) -> bytes | None:
        """The content of one that was put here; None before that."""
        if not self._there[number]:
            return None
        at, end = self._bounds(number)
        return os.pread(self._file, end - at, at)

    def put(self, number: int, content: bytes) -> None:
        """Keep the content of a chunk that is wanted."""
        at, _ = self._bounds(number)
        try:
            while content:
                written = os.pwrite(self._file, content, at)
                content, at = content[written:], at + written
        except OSError as error:
            raise StorageError(f"memory that follows cannot be kept in {_directory()}: {error.strerror}") from error
        self._there[number] = True

    def close(self) -> None:
        """Nothing of it is left."""
        if self._file >= 0:
            os.close(self._file)
        self._file = -1

    def _bounds(self, number: int) -> tuple[int, int]:
        return int(self._ends[number - 1]) if number else 0, int(self._ends[number])


def _directory() -> str:
    return os.environ.get("TMPDIR") or _TEMPORARY


def _new() -> int:
    try:
        with tempfile.TemporaryFile(dir=_directory()) as file:
            return os.dup(file.fileno())
    except OSError as error:
        raise StorageError(f"memory that follows cannot be kept in {_directory()}: {error.strerror}") from error
