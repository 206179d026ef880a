"""The page server of one lazy restore: a process of its own, started and watched by the guard.

`main` with WORK FD answers the requests of CRIU's lazy-pages daemon, which come over
the socket FD, from verified chunks of the checkpoint that the plan in WORK names. It ends with status 0 when
CRIU has all it needs.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import socket
import threading
import time
from contextlib import closing
from pathlib import Path

from ocickpt import guard
from ocickpt.errors import OcickptError
from ocickpt.flows import artifact
from ocickpt.flows.memory import AddressSpaces
from ocickpt.memory import pageserver
from ocickpt.store import Access, Reference, Retry, open_source

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
            guard.write_state(self._key, arrived=self._size)


def main(argv: list[str]) -> int:
    """Serve until CRIU closes; 1 after an error, which is in the state file."""
    work, connection = Path(argv[0]), socket.socket(fileno=int(argv[1]))
    plan = json.loads((work / guard.PLAN).read_text("utf-8"))
    access = Access(
        Path(plan["authfile"]) if plan["authfile"] else None,
        plan["tls_verify"],
        Retry(attempts=1 << 30, total=float(plan["patience"])),
    )
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _BUFFER)
    reference = Reference.parse(plan["reference"])
    try:
        with closing(open_source(reference, access)) as source:
            _, manifest = artifact.resolve(source, reference)
            index = artifact.load_index(source, manifest)
            with AddressSpaces(index, source, _Arrived(work.name)) as spaces:
                done = pageserver.serve(connection, spaces.read, wide=plan["wide"], page_size=mmap.PAGESIZE)
    except OcickptError as error:
        guard.write_state(work.name, error=error.message)
        return 1
    return 0 if done else 1
