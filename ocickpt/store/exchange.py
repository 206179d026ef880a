"""One HTTP request and its answer, and what can be read out of both without trusting either."""

from __future__ import annotations

import contextlib
import email.utils
import http.client
import time
import urllib.request
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Final, Self
from urllib.parse import urlsplit

import urllib3
from urllib3.exceptions import HTTPError, SSLError

from ocickpt.errors import RegistryError
from ocickpt.model import json_value
from ocickpt.store.addresses import host_of
from ocickpt.store.auth import Scope
from ocickpt.store.pace import Clock
from ocickpt.store.text import clean
from ocickpt.store.verify import Readable

_MAX_ERROR_BYTES: Final = 64 << 10
_MAX_HEADER: Final = 8 << 10


class TransientError(RegistryError):
    """What may go better the next time: a lost connection, 429, 5xx. `after` is in seconds, 0 if not told."""

    def __init__(self, message: str, *, hint: str = "", after: float = 0.0) -> None:
        super().__init__(message, hint=hint)
        self.after = after


@dataclass(frozen=True, slots=True)
class Request:
    """One request. `url` is a path at the registry or an absolute URL that the registry gave."""

    method: str
    url: str
    scope: Scope = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Callable[[], bytes | Readable] | None = None
    """Called for every attempt; a stream needs a Content-Length header."""
    ok: Collection[int] = (200,)
    doing: str = ""
    """What it is for, in messages: "the manifest of REPO:TAG"."""
    attempts: int = 0
    """Requests at most; 0 for what `Retry` says."""
    size: int = 0
    """Bytes of the blob that is asked for; 0 for an answer that is small."""


class Reply:
    """An answer whose body has not been read. Use as a context manager, so that its connection is let go."""

    def __init__(self, raw: urllib3.BaseHTTPResponse, url: str, clock: Clock) -> None:
        self._raw = raw
        self._clock = clock
        self.url = url
        """Where it came from: not where the request went first, after a redirect."""
        self.status = raw.status

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes of the body; b"" at its end.

        TransientError when the connection is lost or too slow, RegistryError when the body is encoded: identity is
        asked for, and a few bytes of gzip can stand for gigabytes.
        """
        codings = {each.strip().lower() for each in self.header("Content-Encoding").split(",")}
        if codings - {"", "identity"}:
            self._raw.close()
            coding = clean(self.header("Content-Encoding"), 40)
            raise RegistryError(
                f"{host_of(self.url)} sends its answer encoded ({coding}), which was not asked for",
                hint="a proxy may do this that compresses what it passes on",
            )
        try:
            return self._raw.read(size, decode_content=False)
        except (HTTPError, http.client.HTTPException, OSError) as error:
            self._raw.close()
            why = reason_of(error)
            raise TransientError(f"the connection to {host_of(self.url)} was lost while reading: {why}") from error

    def read_all(self, limit: int) -> bytes | None:
        """The whole body; None when it is longer than `limit` bytes."""
        parts, left = [], limit + 1
        while left and (data := self.read(left)):
            parts.append(data)
            left -= len(data)
        if not left:
            return None
        return b"".join(parts)

    def header(self, name: str) -> str:
        """A header's value, "" when it is not there."""
        return ", ".join(self.header_values(name))

    def header_values(self, name: str) -> list[str]:
        """The values of a header that may be there several times; RegistryError for more than anybody needs."""
        found = self._raw.headers.getlist(name)
        if sum(map(len, found)) > _MAX_HEADER:
            self._raw.close()
            raise RegistryError(f"{host_of(self.url)} answers with a header {name} of more than {_MAX_HEADER} bytes")
        return found

    def close(self) -> None:
        """Give the connection back if the body is at its end (or known to be small), else close it."""
        raw = self._raw
        with contextlib.suppress(HTTPError, http.client.HTTPException, OSError):
            left = raw.length_remaining
            if left is not None and left <= _MAX_ERROR_BYTES:
                self._clock.rest()
                raw.read(decode_content=False)
                raw.release_conn()
                return
        raw.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def said(reply: Reply) -> str:
    """What an error's body says (distribution-spec, "Error codes"), bounded and clean."""
    with contextlib.suppress(RegistryError, ValueError):
        value = json_value(reply.read(_MAX_ERROR_BYTES) or b"{}")
        errors = value.get("errors") if isinstance(value, dict) else None
        for error in errors if isinstance(errors, list) else []:
            if isinstance(error, dict):
                text = error.get("message") or error.get("code") or ""
                return clean(text) if isinstance(text, str) else ""
    return ""


def retry_after(reply: Reply) -> float:
    """Seconds that Retry-After asks for (RFC 9110, section 10.2.3); 0 when it does not say."""
    text = reply.header("Retry-After").strip()[:64]
    if text.isascii() and text.isdigit():
        return float(text[:6])
    with contextlib.suppress(TypeError, ValueError, OverflowError):
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    return 0.0


def proxy_for(url: str) -> str:
    """The proxy that the environment names for `url`, "" for none; never for this host itself."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if host in ("localhost", "::1") or host.startswith("127.") or urllib.request.proxy_bypass(host):
        return ""
    return urllib.request.getproxies().get(parts.scheme, "")


def tls_reason(error: SSLError) -> str:
    """Why TLS failed, in a sentence without its subject."""
    reason = getattr(error.args[0] if error.args else error, "verify_message", "") or str(error)
    if "WRONG_VERSION_NUMBER" in reason or "record layer failure" in reason.lower():
        return "it does not speak TLS"
    return f"its certificate cannot be trusted: {clean(reason, 160)}"


def reason_of(error: BaseException) -> str:
    """The innermost cause in a few words, without the addresses of objects that urllib3 puts in."""
    seen: BaseException = error
    while (inner := seen.__cause__ or (seen.args[-1] if seen.args else None)) is not None:
        if not isinstance(inner, BaseException):
            break
        seen = inner
    if isinstance(seen, OSError) and seen.strerror:
        return clean(seen.strerror, 160)
    return clean(str(seen).rpartition(">: ")[2] or type(seen).__name__, 160)
