"""A reader that gives out a blob's last bytes only when all of them were the right ones.

After umoci's pkg/hardening/verified_reader.go, with the check moved from Close to the end of the
stream, so that it cannot be forgotten.
"""

from __future__ import annotations

import hashlib
import io
from typing import TYPE_CHECKING, BinaryIO, Final, Protocol

from ocickpt.errors import IntegrityError, OcickptError, StorageError
from ocickpt.model import Descriptor

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_BUFFER: Final = 256 << 10


class Readable(Protocol):
    """Where the bytes come from: like a file, `read` gives b"" at the end and may give less than asked."""

    def read(self, size: int, /) -> bytes | None:
        """At most `size` bytes."""

    def close(self) -> None:
        """Let go of it."""


class VerifyingReader(io.RawIOBase):
    """The stream of one blob, bounded by its size and checked against its digest.

    Reading raises IntegrityError as soon as the source ends early, goes on past the size, or has
    another SHA-256; the piece that would have completed the blob is then never handed out. Errors are
    repeated on every further read. OSErrors of the source become StorageError.
    """

    def __init__(self, source: Readable, blob: Descriptor, where: str = "") -> None:
        super().__init__()
        self._source = source
        self._blob = blob
        self._where = f" in {where}" if where else ""
        self._left = blob.size
        self._hash = hashlib.sha256()
        self._done = False
        self._failure: OcickptError | None = None

    def readable(self) -> bool:
        """True."""
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fill `buffer` as far as one read of the source does; 0 at the verified end."""
        if self._failure is not None:
            raise self._failure
        view = memoryview(buffer).cast("B")
        if self._done or not len(view):
            return 0
        try:
            return self._advance(view)
        except OSError as error:
            self._failure = StorageError(f"blob {self._blob.digest}{self._where} cannot be read: {error}")
            raise self._failure from error
        except OcickptError as error:
            self._failure = error
            raise

    def _advance(self, view: memoryview) -> int:
        if self._left:
            data = self._source.read(min(len(view), self._left)) or b""
            if not data:
                missing = f"{self._left} of {self._blob.size} bytes are missing"
                raise IntegrityError(f"blob {self._blob.digest}{self._where} is cut short: {missing}")
            if len(data) > self._left:
                raise self._too_long()
            self._hash.update(data)
            self._left -= len(data)
        else:
            data = b""
        if not self._left:
            if self._source.read(1):
                raise self._too_long()
            if "sha256:" + self._hash.hexdigest() != self._blob.digest:
                raise IntegrityError(f"blob {self._blob.digest}{self._where} has other bytes than its digest says")
            self._done = True
        view[: len(data)] = data
        return len(data)

    def _too_long(self) -> IntegrityError:
        return IntegrityError(f"blob {self._blob.digest}{self._where} is longer than {self._blob.size} bytes")

    def close(self) -> None:
        """Close the source as well."""
        if not self.closed:
            self._source.close()
        super().close()


def verified(source: Readable, blob: Descriptor, where: str = "") -> BinaryIO:
    """`source` as a buffered stream of exactly the bytes of `blob` (see VerifyingReader)."""
    return io.BufferedReader(VerifyingReader(source, blob, where), _BUFFER)
