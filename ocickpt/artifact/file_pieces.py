"""Pieces of one file, one after the other, as a stream."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from ocickpt.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from _typeshed import WriteableBuffer


def pieces_of(path: Path, pieces: Sequence[tuple[int, int]]) -> BinaryIO:
    """The (offset, length) `pieces` of the file at `path`; StorageError when it cannot be read or is too short."""
    return cast("BinaryIO", _Pieces(path, pieces))


class _Pieces(io.RawIOBase):
    def __init__(self, path: Path, pieces: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        self._path = path
        self._pieces = iter(pieces)
        self._offset = self._left = 0
        try:
            self._handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError as error:
            raise StorageError(f"{path} cannot be read: {error.strerror}") from error

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fill `buffer` from one piece at a time."""
        if not self._left:
            self._offset, self._left = next(self._pieces, (0, 0))
        view = memoryview(buffer).cast("B")[: self._left]
        if not view:
            return 0
        try:
            read = os.preadv(self._handle, [view], self._offset)
        except OSError as error:
            raise StorageError(f"{self._path} cannot be read: {error.strerror}") from error
        if not read:
            raise StorageError(f"{self._path} ends before its pagemap does")
        self._offset += read
        self._left -= read
        return read

    def close(self) -> None:
        """Close the file."""
        if not self.closed:
            os.close(self._handle)
        super().close()
