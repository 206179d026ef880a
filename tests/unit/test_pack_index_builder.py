"""The books of a packing: every chunk is found again, in little memory."""

from __future__ import annotations

import hashlib

from ocickpt.model import Descriptor, Kind, digest_of
from ocickpt.pack.index_builder import IndexBuilder

MANY = 100_000


def digest(number: int) -> bytes:
    return hashlib.sha256(b"%d" % number).digest()


def test_every_chunk_is_found_by_its_hash() -> None:
    book = IndexBuilder()
    for number in range(MANY):
        assert book.chunk(Kind.MEMORY, (0, number, 1, 1), digest(number)) == number
    assert all(book.find(Kind.MEMORY, digest(number)) == number for number in range(MANY))
    assert not any(book.find(Kind.MEMORY, digest(number)) for number in range(MANY, 2 * MANY))
    assert book.count == MANY
    assert book.memory < 70 * MANY


def test_hashes_that_begin_alike_are_kept_apart() -> None:
    book = IndexBuilder()
    hashes = [bytes(8) + digest(number)[8:] for number in range(200)]
    for number, each in enumerate(hashes):
        book.chunk(Kind.MEMORY, (0, number, 1, 1), each)
    assert [book.find(Kind.MEMORY, each) for each in hashes] == list(range(200))
    assert book.find(Kind.MEMORY, bytes(32)) is None


def test_a_chunk_of_one_kind_is_not_one_of_another() -> None:
    book = IndexBuilder()
    book.chunk(Kind.MEMORY, (0, 0, 1, 1), digest(0))
    assert book.find(Kind.ROOTFS, digest(0)) is None


def test_records_are_in_order_however_many() -> None:
    book = IndexBuilder()
    for number in range(MANY):
        chunk = book.chunk(Kind.MEMORY, (0, number, 1, 1), digest(number))
        book.extend(
            0, chunk, [(number << 16, 4096, 0), ((number << 16) + 4096, 4096, -1), ((number << 16) + 8192, 4096, -1)]
        )
    pack = Descriptor(Kind.MEMORY.media_type, digest_of(b""), 0)
    book.packs.append(pack)
    part = book.part([pack], 0, 0)
    assert part.chunks["offset"].tolist() == list(range(MANY))
    assert [bytes(each) for each in part.chunks["hash"][-3:]] == [digest(number) for number in range(MANY - 3, MANY)]
    assert part.extents["length"].tolist() == [4096, 8192] * MANY
