"""What this host remembers of the pages of the checkpoints it made last, beside its local store (`pack.marks`)."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final

from ocickpt.model import Progress
from ocickpt.pack.index import Index
from ocickpt.pack.marks import Marker, Marks, MarksWriter

_DIRECTORY: Final = "marks"
_KEY: Final = "key"
_KEY_SIZE: Final = 32
KEPT: Final = 64
"""Of so many checkpoints, and no more than `MOST` bytes."""
MOST: Final = 1 << 30


class Marked:
    """The marks beside the local store at `root`. What goes wrong is told to `progress`: a checkpoint comes out larger,
    that is all."""

    def __init__(self, root: Path, progress: Progress) -> None:
        self._directory, self._progress = root / _DIRECTORY, progress
        self._marker: Marker | None = None
        with self._told():
            self._directory.mkdir(mode=0o700, exist_ok=True)
            self._marker = Marker(self._key())

    def of(self, index: Index, digest: str) -> Marks | None:
        """Those of an index, if this host has written it not long ago."""
        if self._marker:
            with self._told(), suppress(FileNotFoundError):
                return Marks.read(self._directory, self._marker, digest, index.chunk_size // index.page_size)
        return None

    @contextmanager
    def writing(self, slots: int) -> Iterator[MarksWriter | None]:
        """Where those of a new index go, with `slots` pages a chunk; None for none, and where they cannot be kept."""
        writer = None
        if self._marker and slots:
            with self._told():
                writer = MarksWriter(self._directory, self._marker, slots)
        if writer is None:
            yield None
            return
        with closing(writer):
            yield writer

    def keep(self, writer: MarksWriter | None) -> None:
        """Have them found by the next checkpoint; the oldest are forgotten."""
        if writer:
            with self._told():
                writer.keep()
                self._forget()

    def _forget(self) -> None:
        found = []
        for path in self._directory.iterdir():
            with suppress(FileNotFoundError):  # another one has forgotten it
                if path.name != _KEY:
                    status = path.stat()
                    found.append((status.st_mtime_ns, status.st_size, path))
        size = 0
        for number, (_, each, path) in enumerate(sorted(found, reverse=True)):
            size += each
            if number >= KEPT or (number and size > MOST):
                path.unlink(missing_ok=True)

    def _key(self) -> bytes:
        """This host's, made when it is not there. OSError."""
        path = self._directory / _KEY
        with suppress(FileNotFoundError):
            if len(key := path.read_bytes()) == _KEY_SIZE:
                return key
        new = self._directory / f"{_KEY}.{secrets.token_hex(8)}"
        new.touch(mode=0o600)
        new.write_bytes(key := secrets.token_bytes(_KEY_SIZE))
        new.replace(path)
        return key

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._progress.note(f"{self._directory}: {error.strerror}: the next checkpoint will send more than changed")
