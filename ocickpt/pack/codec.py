"""The middle three steps between content and packs, and back: hash, compress, seal; open, decompress, verify.

The only place of this room that knows a hash or a compressor, but for `marks`, which leave no host. Whoever packs is
given a `Codec`, whoever reads takes that of the index; cutting, packs and the index's records know nothing of what it
does.
"""

from __future__ import annotations

import hashlib
import threading
from typing import ClassVar, Final

import zstandard

from ocickpt.errors import IntegrityError

SHA256: Final = 1
"""The hash algorithm of plain checkpoints, as the root writes it (schemas/README.md, "Root")."""
HASH_SIZE: Final = 32
"""Bytes of a hash, whatever the algorithm: the width of the index's records."""

_FRAMING: Final = 32
"""What compressing adds at most to a chunk (RFC 8878: the headers of the frame and of its blocks)."""


class Codec:
    """The plain one: SHA-256, one zstd frame for each piece, no seal. Threads may share it.

    Another one is a class derived from this that overrides `algorithm`, `extra`, `hash`, `seal`, `open` and
    `opens`; nothing else in the room changes. What each promises:

    - **Deterministic.** The same bytes give the same hash and the same stored bytes, in every thread, for one version
      of zstd: equal content is stored once and packs come out equal. A seal takes its nonce from what it seals, the
      *frame*, and stores it beside: taken from the content's hash it would come twice with two versions of zstd.
    - **Sizes.** A hash has HASH_SIZE bytes, uniformly spread: the first eight are the key of hash tables. A seal adds
      exactly `extra` bytes, at most 48: an index bounds a chunk's stored size by 2 * raw + 64.
    - **Bounds before memory.** `open` allocates no more than it is given, `decompress` no more than `raw` bytes, and
      that only after the frame's header said that there are so many.
    - **Errors.** Whatever was not made by an equal codec from that content raises IntegrityError, and no byte of it
      is returned. Nothing else is raised. That an index is of another codec is told by its root, as UnsupportedError.
    """

    algorithm: ClassVar[int] = SHA256
    """The number by which an index's root names this codec, 1 to 255."""
    extra: ClassVar[int] = 0
    """Bytes that `seal` adds."""

    def __init__(self, level: int = 1) -> None:
        """`level` is zstd's; any level reads what any other wrote."""
        self._level = level
        self._local = threading.local()  # either tool takes longer to make than a chunk to go through it

    # The steps.

    def hash(self, data: bytes | memoryview) -> bytes:
        """What content is found by and verified against: HASH_SIZE bytes."""
        return hashlib.sha256(data).digest()

    def compress(self, data: bytes | memoryview) -> bytes:
        """One zstd frame with its content size, without dictionary and checksum."""
        tool: zstandard.ZstdCompressor | None = getattr(self._local, "compressor", None)
        if tool is None:
            tool = zstandard.ZstdCompressor(level=self._level, write_checksum=False, write_content_size=True)
            self._local.compressor = tool
        return tool.compress(data)

    def seal(self, frame: bytes) -> bytes:
        """What is stored for `frame`: `extra` bytes more."""
        return frame

    def open(self, stored: bytes | memoryview, what: str) -> bytes | memoryview:  # noqa: ARG002 - for those that seal
        """The frame that was sealed; IntegrityError naming `what` when it was not sealed so."""
        return stored

    def decompress(self, frame: bytes | memoryview, raw: int, what: str) -> bytes:
        """The `raw` bytes in one zstd frame; IntegrityError naming `what` if `frame` is anything else.

        The frame must carry its content size (`raw`, so that nothing more is ever allocated), no dictionary, and
        nothing may follow it.
        """
        try:
            header = zstandard.get_frame_parameters(frame)
            if header.content_size == raw and not header.dict_id:
                tool: zstandard.ZstdDecompressor | None = getattr(self._local, "decompressor", None)
                if tool is None:
                    tool = self._local.decompressor = zstandard.ZstdDecompressor()
                found = tool.decompress(frame, max_output_size=raw, allow_extra_data=False)
                if len(found) == raw:
                    return found
        except zstandard.ZstdError as error:
            raise IntegrityError(f"{what} cannot be decompressed: {error}") from error
        raise IntegrityError(f"{what} does not hold the {raw} bytes that it should")

    def verify(self, data: bytes | memoryview, digest: bytes, what: str) -> None:
        """IntegrityError naming `what` unless `data` has that hash."""
        if self.hash(data) != digest:
            raise IntegrityError(f"{what} does not match its hash")

    def opens(self, other: Codec) -> bool:
        """Whether what `other` stored can be inherited: it has the same hashes, and this one opens it."""
        return self.algorithm == other.algorithm

    # A chunk, all the way.

    def encode(self, data: bytes | memoryview) -> bytes:
        """What a pack holds for the content `data`; at most `room` bytes."""
        return self.seal(self.compress(data))

    def decode(self, stored: bytes | memoryview, raw: int, digest: bytes, what: str = "a chunk") -> bytes:
        """The `raw` bytes of content that `stored` holds, with that hash; IntegrityError naming `what`."""
        found = self.decompress(self.open(stored, what), raw, what)
        self.verify(found, digest, what)
        return found

    def room(self, raw: int) -> int:
        """The most bytes that `encode` gives for content of 1 to `raw` bytes, up to a chunk (format.CHUNK_SIZE)."""
        return raw + _FRAMING + self.extra


PLAIN: Final = Codec()
"""What is used where nothing else is asked for."""
