"""Getting blobs, or pieces of them, out of a registry (distribution-spec, "Pulling blobs")."""

from __future__ import annotations

import contextlib
import re
import shutil
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from typing import IO, BinaryIO, Final

from ocickpt.errors import IntegrityError
from ocickpt.model import Descriptor
from ocickpt.store.exchange import Reply, Request, TransientError
from ocickpt.store.files import storage_errors
from ocickpt.store.http import Client

_CONTENT_RANGE: Final = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)")
_SKIP_BYTES: Final = 1 << 20
_WORTH_BYTES: Final = 1 << 20
_KEPT: Final = 4


def read_range(client: Client, request: Request, blob: Descriptor, offset: int, length: int) -> tuple[bytes, bool]:
    """`length` bytes at `offset`, and whether the registry answered with just these.

    Raises IntegrityError when it gives less, or another range.
    """
    request = _ranged(request, offset, offset + length)

    def attempt() -> tuple[bytes, bool]:
        with client.send(request) as reply:
            if reply.status == 206:
                _check_range(reply, blob, offset, offset + length)
            else:
                _skip(reply, offset, blob)
            return _exactly(reply, length, blob), reply.status == 206

    return client.repeated(attempt)


def _ranged(request: Request, start: int, end: int) -> Request:
    return replace(request, headers={**request.headers, "Range": f"bytes={start}-{end - 1}"}, ok=(200, 206))


def _check_range(reply: Reply, blob: Descriptor, start: int, end: int) -> None:
    told = _CONTENT_RANGE.fullmatch(reply.header("Content-Range").strip())
    if not told or int(told[1]) != start or int(told[2]) != end - 1 or told[3] not in ("*", str(blob.size)):
        raise IntegrityError(f"a registry answers with another range of blob {blob.digest} than was asked for")


def _skip(reply: Reply, size: int, blob: Descriptor) -> None:
    while size:
        data = reply.read(min(size, _SKIP_BYTES))
        if not data:
            raise IntegrityError(f"blob {blob.digest} is shorter than {blob.size} bytes")
        size -= len(data)


def _exactly(reply: Reply, length: int, blob: Descriptor) -> bytes:
    parts = []
    while length:
        data = reply.read(length)
        if not data:
            raise IntegrityError(f"a registry gives less of blob {blob.digest} than was asked for")
        parts.append(data)
        length -= len(data)
    return parts[0] if len(parts) == 1 else b"".join(parts)


class Body:
    """The bytes of a blob (`verify.Readable`, not verified) over as many connections as it takes."""

    def __init__(self, client: Client, request: Request, blob: Descriptor) -> None:
        self._client = client
        self._request = request
        self._blob = blob
        self._position = 0
        self._failures = 0
        self._failed_at = 0
        self._failing_since = 0.0
        self._reply: Reply | None = client.send(request)

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; b"" at the end. TransientError after too many losses in a row."""
        while True:
            try:
                if self._reply is None:
                    self._reply = self._again()
                data = self._reply.read(size)
            except TransientError as error:
                self._reply = None
                # Whoever gives a few bytes a connection is not waited for until the blob is there.
                worth_it = self._position - self._failed_at >= _WORTH_BYTES
                self._failures, self._failed_at = 1 if worth_it else self._failures + 1, self._position
                if self._failures == 1:
                    self._failing_since = time.monotonic()
                retry = self._client.retry
                too_long = time.monotonic() - self._failing_since >= retry.total
                if self._failures >= retry.attempts or too_long or self._position >= self._blob.size:
                    raise
                self._client.pause(self._failures - 1, error.after)
                continue
            self._position += len(data)
            return data

    def _again(self) -> Reply:
        if not self._position:
            return self._client.send(self._request)
        reply = self._client.send(_ranged(self._request, self._position, self._blob.size))
        try:
            if reply.status == 206:
                _check_range(reply, self._blob, self._position, self._blob.size)
            else:
                _skip(reply, self._position, self._blob)
        except BaseException:
            reply.close()
            raise
        return reply

    def close(self) -> None:
        """Let go of the connection."""
        if self._reply is not None:
            self._reply.close()
            self._reply = None


class Whole:
    """Blobs in temporary files, for a registry that answers no ranges: a few, the latest. Threads may share it."""

    def __init__(self) -> None:
        self.wanted = False
        """Set when the registry has shown that it ignores Range."""
        self._lock = threading.Lock()
        self._files: OrderedDict[str, IO[bytes]] = OrderedDict()

    def read_at(self, blob: Descriptor, offset: int, length: int, open_blob: Callable[[Descriptor], BinaryIO]) -> bytes:
        """Bytes of `blob`, which is fetched by `open_blob` (verified) unless it is here."""
        with self._lock, storage_errors("temporary files"):
            file = self._files.get(blob.digest)
            if file is None:
                file = self._fetch(blob, open_blob)
            self._files.move_to_end(blob.digest)
            file.seek(offset)
            return file.read(length)

    def _fetch(self, blob: Descriptor, open_blob: Callable[[Descriptor], BinaryIO]) -> IO[bytes]:
        file = tempfile.TemporaryFile(dir="/var/tmp")  # noqa: SIM115 - kept; unnamed, and /tmp may be memory
        try:
            with open_blob(blob) as stream:
                shutil.copyfileobj(stream, file, _SKIP_BYTES)
        except BaseException:
            file.close()
            raise
        while len(self._files) >= _KEPT:
            self._files.popitem(last=False)[1].close()
        self._files[blob.digest] = file
        return file

    def close(self) -> None:
        """Forget every blob."""
        with self._lock:
            for file in self._files.values():
                with contextlib.suppress(OSError):
                    file.close()
            self._files.clear()
