"""Marks of pages: they tell which pages are what they were, without a look at what a registry has of them.

A mark is a keyed hash of a page. The key is this host's own, so no container can choose memory of equal marks. A file
has the marks of all chunks of one index, in the order of their numbers, is bound to the digest of that index's root,
and sealed under the key. It is a cache: a checkpoint made without it, or with one that is damaged, comes out larger,
and never wrong.
"""

from __future__ import annotations

import hashlib
import hmac
import mmap
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Self

import numpy as np
import numpy.typing as npt

SIZE: Final = 16
"""Bytes of a mark."""
MOST: Final = 256 << 20
"""Bytes of a file; the chunks after these have none. It is enough for the memory of 64 GiB."""
_HEAD: Final = struct.Struct("<8s32sII")
_MAGIC: Final = b"OCIMARK\x01"
_SEAL: Final = 32
_START: Final = 128
"""Where the marks begin, after head and seal."""
_BLOCK: Final = 1 << 20


class Marker:
    """Makes marks with the `key` of this host. Threads may share it."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._keyed = hashlib.sha256(key.ljust(64, b"\0"))

    def of(self, page: bytes | memoryview) -> bytes:
        """The mark of a page: the first SIZE bytes of SHA-256 over a block with the key, and the page."""
        keyed = self._keyed.copy()
        keyed.update(page)
        return keyed.digest()[:SIZE]

    def seal(self, head: bytes, blocks: Iterator[bytes]) -> bytes:
        """What proves that a file was written on this host, and is as it was."""
        seal = hashlib.blake2b(head, digest_size=_SEAL, key=self._key, person=b"ocickpt marks")
        for block in blocks:
            seal.update(block)
        return seal.digest()


class Marks:
    """The marks of an index that this host has written; `slots` of each chunk."""

    def __init__(self, memory: mmap.mmap, slots: int) -> None:
        found = np.frombuffer(memory, f"V{SIZE}", offset=_START)
        self._marks: npt.NDArray[np.void] = found[: len(found) // slots * slots].reshape(-1, slots)

    @classmethod
    def read(cls, directory: Path, marker: Marker, digest: str, slots: int) -> Self | None:
        """Those of the index whose root has that `digest`, kept in `directory`; None where something else is there.

        OSError.
        """
        with place(directory, digest).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            head = _head(digest, slots)
            if not _START < size <= _START + MOST or file.read(_HEAD.size) != head:
                return None
            seal = file.read(_SEAL)
            if not hmac.compare_digest(marker.seal(head, _blocks(file.fileno())), seal):
                return None
            return cls(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ), slots)

    def of(self, chunk: int) -> bytes:
        """Those of a chunk, one after the other; nothing where there are none."""
        return self._marks[chunk].tobytes() if chunk < len(self._marks) else b""

    def at(self, chunks: npt.NDArray[np.int64], places: npt.NDArray[np.int64]) -> npt.NDArray[np.void]:
        """Those of the pages that stand at `places` in `chunks`, each below the number of slots."""
        found = np.zeros(len(chunks), f"V{SIZE}")
        known = chunks < len(self._marks)
        found[known] = self._marks[chunks[known], places[known]]
        return found


class MarksWriter:
    """Collects marks in a file that has no name until it is kept; what goes wrong before is told then, as OSError.

    Not for several threads. The `directory` is nobody else's; `slots` is how many pages a chunk has.
    """

    def __init__(self, directory: Path, marker: Marker, slots: int) -> None:
        self.marker = marker
        self._directory, self._slots, self._digest = directory, slots, ""
        self._failure: OSError | None = None
        self._fd = os.open(directory, os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600)

    def put(self, chunk: int, marks: bytes) -> None:
        """The marks of a chunk, at most as many as there are slots."""
        at = chunk * self._slots * SIZE
        if marks and at + self._slots * SIZE <= MOST:
            with self._later():  # what a short write leaves out is not known, as what was never there
                os.pwrite(self._fd, marks[: self._slots * SIZE], _START + at)

    def finish(self, digest: str, chunks: int) -> None:
        """They are those of the index whose root has that `digest`, and so many chunks that are not boot."""
        head, self._digest = _head(digest, self._slots), digest
        with self._later():
            os.truncate(self._fd, _START + min(chunks * self._slots * SIZE, MOST))
            os.pwrite(self._fd, head + self.marker.seal(head, _blocks(self._fd)), 0)

    @contextmanager
    def _later(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._failure = self._failure or error

    def keep(self) -> None:
        """Give the file its name, once it is finished. OSError, also of what went wrong before."""
        if self._failure:
            raise self._failure
        path = place(self._directory, self._digest)
        path.unlink(missing_ok=True)
        unnamed = os.open("/proc/self/fd", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            # Where no directory is given, Python links the symlink that is there.
            os.link(str(self._fd), path, src_dir_fd=unnamed)
        finally:
            os.close(unnamed)

    def close(self) -> None:
        """Nothing more comes."""
        os.close(self._fd)


def place(directory: Path, digest: str) -> Path:
    """Where the marks of the index whose root has that `digest` are kept."""
    return directory / digest.partition(":")[2]


def _head(digest: str, slots: int) -> bytes:
    return _HEAD.pack(_MAGIC, bytes.fromhex(digest.partition(":")[2]), slots, 0)


def _blocks(file: int) -> Iterator[bytes]:
    at = _START
    while block := os.pread(file, _BLOCK, at):
        yield block
        at += len(block)
