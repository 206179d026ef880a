"""The one place that hashes and compresses, and that another one can stand in its place."""

from __future__ import annotations

import ast
import hashlib
import hmac
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ocickpt.pack
from ocickpt.errors import IntegrityError, UnsupportedError
from ocickpt.model import Content, Entry, FileType, Kind, Packed
from ocickpt.pack import format as fmt
from ocickpt.pack.codec import HASH_SIZE, PLAIN, Codec
from ocickpt.pack.index import Index
from ocickpt.pack.inherited import Inherited
from ocickpt.pack.packer import Packer
from ocickpt.pack.read_ahead import ReadAhead
from ocickpt.pack.reader import check, read_file
from tests.unit.test_pack_support import PAGE, MemoryStore, pages, regular, unpack

ROOM = Path(ocickpt.pack.__file__).parent
NONCE, TAG = 24, 16
WORDS = b"what the process said to itself " * 128


class Sealing(Codec):
    """A keyed hash, and a seal of a nonce, a stream and a tag: a cipher's shape, and no cipher to be used."""

    algorithm: ClassVar[int] = 200
    extra: ClassVar[int] = NONCE + TAG

    def __init__(self, key: bytes) -> None:
        super().__init__()
        self._key = key

    def hash(self, data: bytes | memoryview) -> bytes:
        return hmac.digest(self._key, data, "sha256")

    def _stream(self, nonce: bytes, data: bytes) -> bytes:
        mask = hashlib.shake_128(self._key + nonce).digest(len(data))
        return (int.from_bytes(data, "little") ^ int.from_bytes(mask, "little")).to_bytes(len(data), "little")

    def seal(self, frame: bytes) -> bytes:
        nonce = hashlib.blake2b(frame, key=self._key, digest_size=NONCE).digest()
        body = nonce + self._stream(nonce, frame)
        return body + hashlib.blake2b(body, key=self._key, digest_size=TAG).digest()

    def open(self, stored: bytes | memoryview, what: str) -> bytes:
        body, tag = bytes(stored[:-TAG]), bytes(stored[-TAG:])
        if len(stored) < self.extra or hashlib.blake2b(body, key=self._key, digest_size=TAG).digest() != tag:
            raise IntegrityError(f"{what} was sealed with another key, or changed")
        return self._stream(body[:NONCE], body[NONCE:])

    def opens(self, other: Codec) -> bool:
        return isinstance(other, Sealing) and other._key == self._key


OURS, OTHERS = Sealing(b"our key"), Sealing(b"another key")


def contents() -> list[Content]:
    rng = random.Random(4)
    return [
        regular(Kind.BOOT, "config.dump", WORDS[:700]),
        regular(Kind.ROOTFS, "random", rng.randbytes(200_000) + b"!"),
        regular(Kind.ROOTFS, "tiny", b"x"),
        pages("m", {0x10000: WORDS + rng.randbytes(32 * PAGE) + bytes(PAGE) + WORDS, 0x80000: WORDS}),
    ]


def packed(store: MemoryStore, codec: Codec, inherited: Index | None = None) -> Packed:
    with Packer(store, codec=codec, inherited=Inherited(inherited) if inherited else None, threads=2) as packer:
        for content in contents():
            packer.add(content)
        return packer.finish()


@pytest.mark.parametrize("path", sorted(ROOM.glob("*.py")), ids=lambda path: path.stem)
def test_only_the_codec_hashes_and_compresses(path: Path) -> None:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").partition(".")[0])
    tools = names & {"hashlib", "hmac", "zstandard", "zlib", "compression", "_hashlib"}
    # A mark is never stored with anything: it is between this host and itself.
    assert tools == {"codec": {"hashlib", "zstandard"}, "marks": {"hashlib", "hmac"}}.get(path.stem, set())


@pytest.mark.parametrize("codec", [PLAIN, OURS], ids=["plain", "sealing"])
@given(data=st.binary(min_size=1, max_size=70_000))
def test_content_comes_back_and_takes_no_more_room_than_promised(codec: Codec, data: bytes) -> None:
    digest, stored = codec.hash(data), codec.encode(data)
    assert codec.decode(stored, len(data), digest) == data == codec.decode(memoryview(stored), len(data), digest)
    assert len(digest) == HASH_SIZE
    assert len(stored) <= min(codec.room(len(data)), 2 * len(data) + 64)
    assert (codec.hash(memoryview(data)), codec.encode(memoryview(data))) == (digest, stored)


@pytest.mark.parametrize("size", [1, 255, 256, 4096, fmt.CHUNK_SIZE])
@pytest.mark.parametrize("codec", [PLAIN, OURS], ids=["plain", "sealing"])
def test_room_is_enough_for_what_cannot_be_compressed(codec: Codec, size: int) -> None:
    assert len(codec.encode(random.Random(size).randbytes(size))) <= min(codec.room(size), 2 * size + 64)


@pytest.mark.parametrize("codec", [PLAIN, OURS], ids=["plain", "sealing"])
def test_every_thread_encodes_alike(codec: Codec) -> None:
    rng = random.Random(1)
    data = [rng.randbytes(3000) + WORDS[:n] for n in range(100)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(codec.encode, data)) == [codec.encode(each) for each in data]


def test_what_another_level_wrote_is_read() -> None:
    data = bytes(random.Random(3).choices(b"abcdefgh", [9, 8, 7, 6, 5, 4, 3, 2], k=50_000))
    stored = Codec(level=19).encode(data)
    assert len(stored) < len(PLAIN.encode(data))
    assert PLAIN.decode(stored, len(data), PLAIN.hash(data)) == data
    assert PLAIN.opens(Codec(level=19))


@pytest.mark.parametrize("codec", [PLAIN, OURS], ids=["plain", "sealing"])
def test_any_other_bytes_size_or_hash_is_an_error(codec: Codec) -> None:
    data = WORDS[:300]
    stored, digest = codec.encode(data), codec.hash(data)
    wrong = [stored[:-1], stored + b"\0", b"", stored + stored]
    wrong += [stored[:at] + bytes([stored[at] ^ 1]) + stored[at + 1 :] for at in range(len(stored))]
    for each in wrong:
        with pytest.raises(IntegrityError, match="a thing"):
            codec.decode(each, len(data), digest, "a thing")
    for raw in (0, 1, len(data) - 1, len(data) + 1, 1 << 40):
        with pytest.raises(IntegrityError):
            codec.decode(stored, raw, digest)
    with pytest.raises(IntegrityError, match="hash"):
        codec.decode(stored, len(data), bytes(HASH_SIZE))


def test_another_codec_stands_in_its_place() -> None:
    store = MemoryStore()
    made = packed(store, OURS)
    index = Index.load(store, made.index, OURS)
    plain = MemoryStore()
    assert unpack(index, store) == unpack(Index.load(plain, packed(plain, PLAIN).index), plain)
    check(index, store)
    numbers = {entry.path: number for number, entry in enumerate(index.files)}
    assert read_file(index, store, numbers["tiny"], 1) == b"x"
    head = Index.load_head(store, made.index, OURS)
    assert read_file(head, store, numbers["config.dump"], 700) == WORDS[:700]
    with ReadAhead(index, store, index.chunks["pack"] * 0) as ahead:
        chunk = index.stored(0)
        stored = store.read_at(chunk.pack, chunk.offset, chunk.stored)
        assert ahead.get(0) == index.codec.decode(stored, chunk.raw, chunk.hash)
    assert all(word not in blob for blob in store.blobs.values() for word in (WORDS[:32], b"config.dump", b"random"))


def test_sealed_twice_is_the_same_and_is_inherited_under_the_same_key_only() -> None:
    store = MemoryStore()
    first = packed(store, OURS)
    index = Index.load(store, first.index, OURS)
    assert packed(store, Sealing(b"our key")) == first
    again = packed(store, Sealing(b"our key"), index)
    assert again.packs == first.packs
    assert [pack.media_type for pack in again.new] == [Kind.BOOT.media_type]
    for codec in (OTHERS, PLAIN):
        assert len(packed(store, codec, index).new) == len(first.packs)


def test_another_key_opens_nothing() -> None:
    store = MemoryStore()
    made = packed(store, OURS)
    for load in (Index.load, Index.load_head):
        with pytest.raises(IntegrityError, match="segment"):
            load(store, made.index, OTHERS)


def test_an_index_of_another_codec_is_called_that() -> None:
    store = MemoryStore()
    with pytest.raises(UnsupportedError, match="hash algorithm 200"):
        Index.load(store, packed(store, OURS).index)
    with pytest.raises(UnsupportedError, match="hash algorithm 1 "):
        Index.load(store, packed(store, PLAIN).index, OURS)


def test_segments_that_are_stored_raw_are_sealed_too() -> None:
    """Records that would compress better than a reader takes them (format.MAX_RATIO)."""
    store = MemoryStore()
    entries = [Entry(Kind.ROOTFS, FileType.REGULAR, f"{number:06}") for number in range(30_000)]
    with Packer(store, codec=OURS) as packer:
        for entry in entries:
            packer.add(Content(entry))
        made = packer.finish()
    place = fmt.Place.of(made.index)
    root = fmt.Root.from_bytes(store.blobs[made.index.digest][place.offset :], place.offset, OURS)
    assert next((row.codec, row.stored - row.raw) for row in root.segments) == (fmt.RAW, OURS.extra)
    assert Index.load(store, made.index, OURS).files == entries
