"""The page server of one lazy restore: a process of its own, started and watched by the guard.

It is told on its stdin which checkpoint's memory is wanted, reads its index, and is told then that there is a restore
(see `guarding`). It answers the requests of CRIU's lazy-pages daemon from verified chunks.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ocickpt import artifact
from ocickpt.artifact.address_spaces import AddressSpaces
from ocickpt.errors import OcickptError
from ocickpt.lazy import states
from ocickpt.memory import page_protocol
from ocickpt.store import (
    Access,
    Reference,
    Retry,
    open_source,
    registry,  # noqa: F401 - it is loaded when it is used, and there will be no time then
)

if TYPE_CHECKING:
    from ocickpt.rendezvous import Reading

_SHOWN_EVERY = 0.5
_SO_SNDBUFFORCE = 32  # socket(7)
_BUFFER = 4 << 20
"""An answer goes out at once, and the next is looked for while CRIU still reads it."""


class _Arrived:
    """Counts what was fetched, and shows it twice a second."""

    def __init__(self, key: str) -> None:
        self._key = key
        self._size = 0
        self._shown = 0.0
        self._lock = threading.Lock()

    def __call__(self, size: int) -> None:
        with self._lock:
            self._size += size
            if time.monotonic() - self._shown < _SHOWN_EVERY:
                return
            self._shown = time.monotonic()
            states.change(self._key, arrived=self._size)


def serve(key: str, connection: socket.socket) -> int:
    """Serve the lazy restore `key` until CRIU closes `connection`; 1 after an error, which is in its state.

    0 when CRIU has all it needs, or when there is no restore.
    """
    if not (line := sys.stdin.readline()):
        return 0
    plan, decided = json.loads(line), False
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _BUFFER)
    try:
        with _memory(plan, _Arrived(key)) as memory:
            if not (decided := bool(sys.stdin.readline())):
                return 0
            done = page_protocol.serve(connection, memory.read, wide=plan["wide"], page_size=mmap.PAGESIZE)
    except OcickptError as error:
        if decided or sys.stdin.readline():
            states.change(key, error=error.message)
        return 1
    return 0 if done else 1


@contextlib.contextmanager
def _memory(plan: Reading, arrived: _Arrived) -> Iterator[AddressSpaces]:
    """The memory of the checkpoint that the plan names."""
    reference = Reference.parse(plan["reference"])
    authfile = Path(plan["authfile"]) if plan["authfile"] else None
    access = Access(authfile, plan["tls_verify"], Retry(attempts=1 << 30, total=float(plan["patience"])))
    with contextlib.closing(open_source(reference, access)) as source:
        _, manifest = artifact.resolve(source, reference)
        with AddressSpaces(artifact.load_index(source, manifest), source, arrived) as memory:
            yield memory
