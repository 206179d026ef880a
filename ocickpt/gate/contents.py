"""Images of what processes held: messages, and after each the bytes that it announces.

The bytes go to the processes, and act on nothing else. The messages do, and are read here one after the other up to the
very end of the image, as CRIU reads them.

Source: criu/pipes.c, sk-queue.c, sk-tcp.c, ipc_ns.c, files-reg.c (mkreg_ghost), pagemap.c.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final, TypeAlias

from ocickpt.errors import IntegrityError
from ocickpt.memory.pagemap import PageMap

Message: TypeAlias = Any
"""A protobuf message of pycriu."""
Decode: TypeAlias = Callable[[str, bytes], Message]
"""Makes a message of these bytes and nothing else: the one of that name, or where it is empty that of the image."""

_MOST: Final = 1 << 20
"""Messages in one image, at most."""


class Reader:
    """The messages of one image and the bytes between them, from byte `at` on."""

    def __init__(self, name: str, data: bytes, at: int, decode: Decode) -> None:
        self.name = name
        self._data = data
        self._at = at
        self._decode = decode
        self._read = 0

    def more(self) -> bool:
        """Whether there is anything left."""
        return self._at < len(self._data)

    def message(self, name: str = "") -> Message:
        """The next message, which is the image's own kind or of that name; IntegrityError where there is none."""
        size = int.from_bytes(self._take(4), "little")
        self._read += 1
        if self._read > _MOST:
            raise IntegrityError(f"the checkpoint's {self.name}.img has more than {_MOST} messages")
        return self._decode(name, self._take(size))

    def skip(self, size: int, alignment: int = 1) -> None:
        """Pass over so many bytes, and those that fill them up to the `alignment`."""
        self._forward(-(-size // alignment) * alignment)

    def end(self) -> None:
        """IntegrityError where something is left."""
        if self.more():
            raise IntegrityError(f"the checkpoint's {self.name}.img has more in it than it says")

    def rest(self) -> None:
        """Pass over what is left."""
        self._at = len(self._data)

    def _take(self, size: int) -> bytes:
        begin = self._at
        self._forward(size)
        return self._data[begin : self._at]

    def _forward(self, size: int) -> None:
        if size > len(self._data) - self._at:
            raise IntegrityError(f"the checkpoint's {self.name}.img is cut short")
        self._at += size


def plain(reader: Reader) -> Iterator[Message]:
    """Messages and nothing else."""
    while reader.more():
        yield reader.message()


def pipes(reader: Reader) -> Iterator[Message]:
    """What is in pipes."""
    while reader.more():
        yield (entry := reader.message())
        reader.skip(entry.bytes)


def check_queues(reader: Reader) -> Iterator[Message]:
    """What is in sockets. Files that come along are named by their number in files.img, where they are looked at."""
    while reader.more():
        yield (entry := reader.message())
        reader.skip(entry.length)


def tcp(reader: Reader) -> Iterator[Message]:
    """What is on its way in a connection."""
    yield (entry := reader.message())
    reader.skip(entry.inq_len)
    reader.skip(entry.outq_len)


def shared_memory(reader: Reader) -> Iterator[Message]:
    """Memory of System V; of what CRIU 4 writes the content is elsewhere."""
    while reader.more():
        yield (entry := reader.message())
        if not entry.in_pagemaps:
            reader.skip(entry.size, 4)


def semaphores(reader: Reader) -> Iterator[Message]:
    """Their values, of two bytes each."""
    while reader.more():
        yield (entry := reader.message())
        reader.skip(2 * entry.nsems, 8)


def queues_of_messages(reader: Reader) -> Iterator[Message]:
    """Each with the messages that are in it."""
    while reader.more():
        yield (entry := reader.message())
        for _ in range(entry.qnum):
            yield (message := reader.message("ipc_msg"))
            reader.skip(message.msize, 8)


def check_ghost(reader: Reader) -> Iterator[Message]:
    """A deleted file: its content whole, or in pieces that ascend."""
    yield (entry := reader.message("ghost_file_entry"))
    if not entry.chunks:
        reader.rest()
        return
    end = 0
    while reader.more():
        yield (chunk := reader.message("ghost_chunk_entry"))
        if chunk.off < end or chunk.off + chunk.len > entry.size:
            raise IntegrityError(f"the checkpoint's {reader.name}.img has content where its file has none")
        end = chunk.off + chunk.len
        reader.skip(chunk.len)


def check_pagemap(data: bytes) -> None:
    """Refuse a map of pages that is out of order, or of a kind that is not known. IntegrityError, UnsupportedError."""
    PageMap.parse(data)
