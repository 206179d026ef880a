"""The page server's side of CRIU's lazy pages: requests for pages come in, pages go out, in order.

Source: criu/page-xfer.c. A request is ``struct page_server_iov``, whose layout changed with CRIU 4.2 and is
not negotiated; the answer is the same structure and then the pages. An answer may hold fewer pages than
were asked for, but not none: CRIU asks for the rest again, after whatever a process waits for.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable

from ocickpt.errors import IntegrityError
from ocickpt.versions import numbers

_CRIU_WIDE = (4, 2)
_NARROW = struct.Struct("<IIQQ")
_WIDE = struct.Struct("<I4xQQQ")
_GET, _CLOSE, _FORCE_CLOSE = 7, 0x1023, 0x1024
_PRESENT_PAGES = 0x00040006
_MOST_PAGES = 1 << 20
_MOST_PIECES = 1024
"""IOV_MAX of Linux."""

Read = Callable[[int, int, int], list[memoryview]]
"""(pagemap image, virtual address, bytes) → the first of these bytes, in pieces: at least a page, all at most."""


def is_wide(criu_version: str) -> bool:
    """Whether this version of CRIU counts pages in 64 bits."""
    return numbers(criu_version) >= _CRIU_WIDE


def serve(connection: socket.socket, read: Read, *, wide: bool, page_size: int) -> bool:
    """Answer CRIU until it closes; whether it said good-bye, and so has all it needs.

    Raises IntegrityError for requests that cannot be, and whatever `read` raises: then nothing was
    answered, and the process that waits must not go on.
    """
    layout = _WIDE if wide else _NARROW
    while True:
        request = _receive(connection, layout.size)
        if not request:
            return False
        command, pages, address, image = layout.unpack(request)
        if command in (_CLOSE, _FORCE_CLOSE):
            connection.sendall(struct.pack("<i", 0))
            return True
        if command & 0xFFFF != _GET or not 0 < pages <= _MOST_PAGES or address % page_size:
            raise IntegrityError(f"CRIU asks its page server for {command:#x}: {pages} pages at {address:#x}")
        pieces = read(image, address, pages * page_size)
        size = sum(map(len, pieces))
        if not size or size % page_size or size > pages * page_size:
            raise IntegrityError(f"{size} bytes are not the pages at {address:#x}")
        head = layout.pack(_PRESENT_PAGES, size // page_size, address, image)
        _send(connection, [memoryview(head), *pieces])


def _send(connection: socket.socket, pieces: list[memoryview]) -> None:
    """Send all of `pieces`, without putting them together first."""
    while pieces:
        sent = connection.sendmsg(pieces[:_MOST_PIECES])
        while pieces and sent >= len(pieces[0]):
            sent -= len(pieces.pop(0))
        if sent:
            pieces[0] = pieces[0][sent:]


def _receive(connection: socket.socket, size: int) -> bytes:
    """Exactly `size` bytes, or none when the other side is gone."""
    received = b""
    while len(received) < size:
        part = connection.recv(size - len(received))
        if not part:
            return b""
        received += part
    return received
