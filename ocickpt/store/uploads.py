"""Putting one blob into a registry (distribution-spec, "Pushing blobs").

POST opens a session, one PATCH streams the blob, PUT with the digest closes it. When the connection is
lost, the session is asked how far it got and the rest is sent; when it does not say, or is gone, the
blob starts over in a new session.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import BinaryIO, Final
from urllib.parse import quote

from ocickpt.errors import IntegrityError, StorageError
from ocickpt.model import Descriptor, Progress
from ocickpt.store.auth import Scope
from ocickpt.store.exchange import Request, TransientError
from ocickpt.store.http import Client

_RANGE: Final = re.compile(r"(?:bytes=)?0-(\d{1,18})")
_SKIP_BYTES: Final = 1 << 20


class Upload:
    """One blob on its way to `repository`."""

    def __init__(
        self,
        client: Client,
        blob: Descriptor,
        source: Callable[[], BinaryIO],
        progress: Progress,
        *,
        repository: str,
        scope: Scope,
    ) -> None:
        self._client = client
        self._repository = repository
        self._scope = scope
        self._blob = blob
        self._source = source
        self._progress = progress
        self._reported = 0
        self._doing = f"uploading blob {blob.digest[:19]}… to {repository}"

    def run(self) -> None:
        """Upload it; RegistryError when that could not be done in as many attempts as requests get."""
        location, offset = "", 0
        attempts = self._client.retry.attempts
        for attempt in range(attempts):
            try:
                if not location:
                    location, offset = self._start(), 0
                location = self._send_rest(location, offset)
                self._finish(location)
                return
            except TransientError as error:
                if attempt + 1 >= attempts:
                    raise
                self._client.pause(attempt, error.after)
                if self._arrived():
                    self._report(self._blob.size)
                    return
                location, offset = self._status(location)

    def _start(self) -> str:
        request = Request(
            "POST",
            f"/v2/{self._repository}/blobs/uploads/",
            self._scope,
            {"Content-Length": "0"},
            ok=(202,),
            doing=self._doing,
        )
        with self._client.send(request) as reply:
            return self._location(reply.header("Location"))

    def _send_rest(self, location: str, offset: int) -> str:
        left = self._blob.size - offset
        if not left:
            return location
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(left)}
        if offset:
            headers["Content-Range"] = f"{offset}-{self._blob.size - 1}"
        request = Request(
            "PATCH",
            location,
            self._scope,
            headers,
            lambda: _Body(self._source(), self._blob, offset, self._report),
            ok=(202, 204, 404, 416),
            doing=self._doing,
            attempts=1,
        )
        with self._client.send(request) as reply:
            if reply.status in (404, 416):
                raise TransientError(f"{self._client.registry} forgot the session of {self._doing}")
            return self._location(reply.header("Location") or location)

    def _finish(self, location: str) -> None:
        """PUT with the digest. Its answer may be lost and the blob be there: `run` looks."""
        url = f"{location}{'&' if '?' in location else '?'}digest={quote(self._blob.digest, safe='')}"
        request = Request(
            "PUT",
            url,
            self._scope,
            {"Content-Length": "0", "Content-Type": "application/octet-stream"},
            ok=(201, 204, 404, 416),
            doing=self._doing,
            attempts=1,
        )
        with self._client.send(request) as reply:
            if reply.status in (404, 416):
                raise TransientError(f"{self._client.registry} forgot the session of {self._doing}")
            stored = reply.header("Docker-Content-Digest")
        if stored and stored.startswith("sha256:") and stored != self._blob.digest:
            raise IntegrityError(f"{self._client.registry} stored other bytes than it was sent: {self._doing}")
        self._report(self._blob.size)

    def _arrived(self) -> bool:
        url = f"/v2/{self._repository}/blobs/{self._blob.digest}"
        request = Request("HEAD", url, self._scope, ok=(200, 404), doing=self._doing)
        with self._client.send(request) as reply:
            return reply.status == 200

    def _status(self, location: str) -> tuple[str, int]:
        """Where to go on and from which byte; ("", 0) to start over."""
        if not location:
            return "", 0
        request = Request("GET", location, self._scope, ok=(204, 404, 400, 405, 416), doing=self._doing)
        with self._client.send(request) as reply:
            # "0-0" is what is said of no bytes and of one.
            known = _RANGE.fullmatch(reply.header("Range")) if reply.status == 204 else None
            received = int(known[1]) + 1 if known else 0
            if received <= 1 or received > self._blob.size:
                return "", 0
            return self._location(reply.header("Location") or location), received

    def _location(self, text: str) -> str:
        if not text:
            raise TransientError(f"{self._client.registry} does not say where to go on with {self._doing}")
        return text

    def _report(self, sent: int) -> None:
        """Tell the progress about bytes up to `sent`, those that go out again left out."""
        if sent > self._reported:
            self._progress.advance(sent - self._reported)
            self._reported = sent


class _Body:
    """The bytes of `blob` from `offset`, hashed from the start, so that nothing else is ever uploaded."""

    def __init__(self, source: BinaryIO, blob: Descriptor, offset: int, report: Callable[[int], None]) -> None:
        self._source = source
        self._blob = blob
        self._report = report
        self._hash = hashlib.sha256()
        self._done = 0
        while self._done < offset:
            self._next(min(_SKIP_BYTES, offset - self._done))

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes; IntegrityError before the last ones when the blob is not what it should be."""
        self._report(self._done)
        left = self._blob.size - self._done
        wanted = left if size < 0 else min(size, left)
        data = self._next(wanted) if wanted else b""
        if data and self._done == self._blob.size:
            if "sha256:" + self._hash.hexdigest() != self._blob.digest:
                raise IntegrityError(f"blob {self._blob.digest} has other bytes than its digest says")
            if self._source.read(1):
                raise IntegrityError(f"blob {self._blob.digest} is longer than {self._blob.size} bytes")
        return data

    def _next(self, size: int) -> bytes:
        try:
            data = self._source.read(size)
        except OSError as error:
            # As an OSError it would look like a lost connection.
            raise StorageError(f"blob {self._blob.digest} cannot be read: {error}") from error
        if not data:
            raise IntegrityError(f"blob {self._blob.digest} is shorter than {self._blob.size} bytes")
        self._hash.update(data)
        self._done += len(data)
        return data

    def close(self) -> None:
        """Close the source."""
        self._source.close()
