"""How long an answer may take: each wait of a connection is counted, whatever trickles in meanwhile.

A timeout of a socket begins anew with every byte, so that a byte a minute would hold a restore, and the lock that
podman holds meanwhile, for ever. Only time in which the registry is waited for counts, not what is done between reads.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import math
import socket
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from ocickpt.store.access import Pace

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


TOO_SLOW: Final = "it sends too slowly"

_MOST_HEAD: Final = 1 << 20
_MOST_SMALL: Final = 16 << 20
"""Bytes on the wire, more than any body that is read to its end has: http.client reads trailers without end."""
_REST_SECONDS: Final = 5.0


class Clock:
    """Counts what one answer is waited for. One thread at a time."""

    def __init__(self, pace: Pace, end: float) -> None:
        """`end` (time.monotonic) is when everything must be over."""
        self._pace, self._end = pace, end
        self._allow(pace.head, _MOST_HEAD)

    def _allow(self, seconds: float, most: int, need: float = math.inf) -> None:
        """From now on `seconds` of waiting are allowed, again as many for every `need` bytes, and `most` bytes."""
        self._seconds, self._most, self._need = seconds, most, need
        self._waited, self._got = 0.0, 0

    def body(self, size: int) -> None:
        """The head is there; a body of `size` bytes is to follow, or with 0 a small one."""
        if size:
            self._allow(self._pace.window, 2 * size + _MOST_SMALL, self._pace.least)
        else:
            self._allow(self._pace.small, _MOST_SMALL)

    def rest(self) -> None:
        """What is left is read only so that the connection can be used again."""
        self._allow(min(self._pace.small, _REST_SECONDS), _MOST_SMALL)

    def left(self) -> float:
        """How long may be waited now; TimeoutError when no longer, ConnectionError when too much came."""
        if self._most < 0:
            raise ConnectionError("it does not stop sending")
        if self._got >= self._need:
            self._waited, self._got = 0.0, 0
        left = min(self._seconds - self._waited, self._end - time.monotonic())
        if left <= 0:
            raise TimeoutError(TOO_SLOW)
        return left

    def count(self, seconds: float, size: int) -> None:
        """`size` bytes came after `seconds`."""
        self._waited += seconds
        self._got += size
        self._most -= size


_now = threading.local()


@contextlib.contextmanager
def kept_by(clock: Clock) -> Iterator[None]:
    """Whatever answer this thread receives meanwhile is counted by `clock`, until its end."""
    # What is sent may come from another registry, asked meanwhile.
    outer = getattr(_now, "clock", None)
    _now.clock = clock
    try:
        yield
    finally:
        _now.clock = outer


class _Counted(io.RawIOBase):
    """The bytes of a socket, none of which is waited for longer than the clock allows."""

    def __init__(self, sock: socket.socket, clock: Clock) -> None:
        self._sock, self._clock = sock, clock
        self._raw = sock.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int | None:
        before, began = self._sock.gettimeout(), time.monotonic()
        self._sock.settimeout(self._clock.left())
        try:
            size = self._raw.readinto(buffer)
        except TimeoutError:
            raise TimeoutError(TOO_SLOW) from None
        finally:
            self._sock.settimeout(before)
        self._clock.count(time.monotonic() - began, size or 0)
        return size

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    def __init__(
        self, sock: socket.socket, debuglevel: int = 0, method: str | None = None, url: str | None = None
    ) -> None:
        super().__init__(sock, debuglevel, method, url)
        # Nothing is in its buffer yet.
        self.fp.close()
        self.fp = io.BufferedReader(_Counted(sock, _now.clock))


class _Plain(HTTPConnection):
    response_class = _Response


class _Secure(HTTPSConnection):
    response_class = _Response


class _PlainPool(HTTPConnectionPool):
    ConnectionCls = _Plain


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _Secure


POOLS: Final = {"http": _PlainPool, "https": _SecurePool}
"""For a urllib3.PoolManager whose answers are received within `kept_by`."""
