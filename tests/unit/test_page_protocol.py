"""The page server's answers, as CRIU reads them."""

from __future__ import annotations

import socket
import struct
import threading

import pytest

from ocickpt.errors import IntegrityError
from ocickpt.memory import page_protocol

PAGE = 4096
WIDE = struct.Struct("<I4xQQQ")


def asked(connection: socket.socket, pages: int, address: int) -> tuple[int, bytes]:
    """How many pages come for a request, and what is in them."""
    connection.sendall(WIDE.pack(7, pages, address, 1))
    command, count, where, image = WIDE.unpack(connection.recv(WIDE.size, socket.MSG_WAITALL))
    assert (command, where, image) == (0x00040006, address, 1)
    return count, connection.recv(count * PAGE, socket.MSG_WAITALL)


def test_an_answer_of_many_pieces_comes_whole() -> None:
    ours, theirs = socket.socketpair()
    memory = b"".join(struct.pack("<Q", number) * (PAGE // 8) for number in range(1500))

    def read(image: int, address: int, length: int) -> list[memoryview]:
        assert image == 1
        found = memoryview(memory)[address : address + length]
        return [found[at : at + PAGE] for at in range(0, len(found), PAGE)]

    ended: list[bool] = []
    server = threading.Thread(
        target=lambda: ended.append(page_protocol.serve(ours, read, wide=True, page_size=PAGE)), daemon=True
    )
    server.start()
    assert asked(theirs, 1, 7 * PAGE) == (1, memory[7 * PAGE : 8 * PAGE])
    assert asked(theirs, 4000, 0) == (1500, memory)
    theirs.sendall(WIDE.pack(0x1023, 0, 0, 0))
    assert theirs.recv(4, socket.MSG_WAITALL) == bytes(4)
    server.join(10)
    assert ended == [True]
    ours.close()
    theirs.close()


@pytest.mark.parametrize("pieces", [[], [memoryview(b"x")], [memoryview(bytes(2 * PAGE))]])
def test_what_is_no_answer_is_not_sent(pieces: list[memoryview]) -> None:
    ours, theirs = socket.socketpair()
    theirs.sendall(WIDE.pack(7, 1, 0, 1))
    with pytest.raises(IntegrityError):
        page_protocol.serve(ours, lambda *_: pieces, wide=True, page_size=PAGE)
    ours.close()
    assert theirs.recv(1) == b""
    theirs.close()
