"""An index or a pack made by an enemy: an error of ours or correct content, never anything else."""

from __future__ import annotations

import dataclasses
import random
import struct
from typing import Any

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from ocickpt import names
from ocickpt.errors import IntegrityError, NotFoundError, OcickptError, UnsupportedError
from ocickpt.model import Content, Descriptor, Entry, FileType, Kind, digest_of
from ocickpt.pack import files
from ocickpt.pack import format as fmt
from ocickpt.pack.codec import PLAIN
from ocickpt.pack.index import Index
from ocickpt.pack.reader import check, extract, read_file
from ocickpt.pack.writer import Part, write_index
from tests.unit.test_pack_support import PAGE, MemoryStore, pack, pages, regular, unpack

RANDOM = random.Random(1)
SMALL = [
    Content(Entry(Kind.ROOTFS, FileType.DIRECTORY, ".", 0o755)),
    regular(Kind.ROOTFS, "file", RANDOM.randbytes(3000) + b"a" * 3000),
    pages("m", {0x10000: RANDOM.randbytes(PAGE) + bytes(PAGE) + b"b" * PAGE, 0x40000: b"b" * PAGE}),
    regular(Kind.BOOT, "config.dump", b'{"a": 1}' * 30),
]


def made() -> tuple[MemoryStore, Descriptor, Any]:
    store = MemoryStore()
    blob = pack(store, SMALL).index
    return store, blob, unpack(Index.load(store, blob), store)


STORE, BLOB, EXPECTED = made()


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_a_flipped_bit_is_an_error_or_makes_no_difference(data: st.DataObject) -> None:
    digest = data.draw(st.sampled_from(sorted(STORE.blobs)))
    blob = bytearray(STORE.blobs[digest])
    bit = data.draw(st.integers(0, 8 * len(blob) - 1))
    blob[bit // 8] ^= 1 << bit % 8
    store = MemoryStore(STORE.blobs | {digest: bytes(blob)})
    try:
        found = unpack(Index.load(store, BLOB), store)
    except (IntegrityError, UnsupportedError):
        return
    assert found == EXPECTED


def test_every_byte_of_the_index_matters() -> None:
    original = STORE.blobs[BLOB.digest]
    for at in range(len(original)):
        blob = bytearray(original)
        blob[at] ^= 0x10
        with pytest.raises(IntegrityError):
            Index.load(MemoryStore(STORE.blobs | {BLOB.digest: bytes(blob)}), BLOB)


@pytest.mark.parametrize("digest", sorted(STORE.blobs))
def test_truncations(digest: str) -> None:
    original = STORE.blobs[digest]
    for length in (0, 1, len(original) // 2, len(original) - 1):
        store = MemoryStore(STORE.blobs | {digest: original[:length]})
        with pytest.raises(IntegrityError):
            unpack(Index.load(store, BLOB), store)


@pytest.mark.parametrize("digest", sorted(STORE.blobs))
def test_a_source_that_answers_with_less(digest: str) -> None:
    class Short(MemoryStore):
        def read_at(self, blob: Descriptor, offset: int, length: int) -> bytes:
            return super().read_at(blob, offset, length)[: -1 if blob.digest == digest else None]

    store = Short(STORE.blobs)
    with pytest.raises(IntegrityError):
        unpack(Index.load(store, BLOB), store)


def root() -> tuple[bytes, int]:
    place = fmt.Place.of(BLOB)
    return STORE.blobs[BLOB.digest][place.offset :], place.offset


@settings(max_examples=600, deadline=None)
@given(st.data())
def test_a_root_that_was_tampered_with_and_signed(data: st.DataObject) -> None:
    """Digests right, fields wrong: still nothing but our errors, or the same content, or less of it."""
    raw, offset = root()
    changed = bytearray(raw)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(raw) - 1))
        changed[at] = data.draw(st.sampled_from((0, 1, 2, 0x7F, 0x80, 0xFF)) | st.integers(0, 255))
    assert_harmless(STORE.blobs[BLOB.digest][:offset] + changed, len(changed))


def resigned(blob: bytes, length: int) -> tuple[MemoryStore, Descriptor]:
    place = fmt.Place(len(blob) - length, length, digest_of(blob[len(blob) - length :]), len(blob) - length)
    made = Descriptor(names.INDEX_TYPE, digest_of(blob), len(blob), place.annotations())
    return MemoryStore(STORE.blobs | {made.digest: blob}), made


def assert_harmless(blob: bytes, length: int) -> None:
    store, made = resigned(blob, length)
    for load in (Index.load, Index.load_head):
        try:
            index = load(store, made)
            extract(index, store, range(len(index.files)), lambda _number, _offset, _data: None)
        except OcickptError:
            pass


def test_versions_and_flags() -> None:
    raw, offset = root()
    for at, value, error in ((8, b"\2\0", UnsupportedError), (8, b"\0\0", IntegrityError)):
        changed = raw[:at] + value + raw[at + len(value) :]
        with pytest.raises(error):
            fmt.Root.from_bytes(changed, offset)
    for at in (10, 11):
        with pytest.raises(UnsupportedError, match="unknown"):
            fmt.Root.from_bytes(raw[:at] + b"\7" + raw[at + 1 :], offset)
    later = raw[:8] + b"\2\0" + raw[10:] + b"whatever comes"
    with pytest.raises(UnsupportedError) as caught:
        fmt.Root.from_bytes(later, offset)
    assert "upgrade" in caught.value.hint
    for bad in (b"", raw[:20], raw[:-1], raw + b"\0", b"X" + raw[1:]):
        with pytest.raises(IntegrityError):
            fmt.Root.from_bytes(bad, offset)


@pytest.mark.parametrize(
    "changes",
    [
        {"annotations": {}},
        {"annotations": {names.ANNOTATION_INDEX_ROOT: "0+1@sha256:" + "0" * 64}},
        {"annotations": {names.ANNOTATION_INDEX_ROOT: "-1+1@sha256:" + "0" * 64}},
        {"annotations": {**BLOB.annotations, names.ANNOTATION_INDEX_HEAD: str(1 << 62)}},
        {"annotations": {**BLOB.annotations, names.ANNOTATION_INDEX_HEAD: "x"}},
        {"annotations": {**BLOB.annotations, names.ANNOTATION_INDEX_HEAD: "1\n"}},
        {"size": BLOB.size + 1},
        {"size": 1 << 40},
        {"media_type": Kind.BOOT.media_type},
    ],
)
def test_descriptors_that_lie(changes: dict[str, Any]) -> None:
    with pytest.raises(IntegrityError):
        Index.load(STORE, dataclasses.replace(BLOB, **changes))


def test_without_the_heads_place_the_head_is_still_found() -> None:
    annotations = {names.ANNOTATION_INDEX_ROOT: BLOB.annotations[names.ANNOTATION_INDEX_ROOT]}
    head = Index.load_head(STORE, dataclasses.replace(BLOB, annotations=annotations))
    assert read_file(head, STORE, 0, 1000) == b'{"a": 1}' * 30


def index_of(
    chunks: list[tuple[Any, ...]], extents: list[tuple[int, ...]], entries: list[Entry] | None = None, packs: int = 1
) -> Index:
    """An index with these records, of which none was checked when it was written."""
    store = MemoryStore()
    entries = entries or [
        Entry(Kind.MEMORY, FileType.PAGES, "m"),
        Entry(Kind.ROOTFS, FileType.REGULAR, "f", size=100),
        Entry(Kind.ROOTFS, FileType.DIRECTORY, "d"),
    ]
    table = [Descriptor(Kind.MEMORY.media_type, digest_of(b"%d" % n), 100_000) for n in range(packs)]
    rest = Part(entries, np.array(chunks, fmt.CHUNK), np.array(extents, fmt.EXTENT))
    none = Part([], np.empty(0, fmt.CHUNK), np.empty(0, fmt.EXTENT))
    blob = write_index(store, page_size=PAGE, chunk_size=65536, packs=table, boot=none, rest=rest)
    return Index.load(store, blob)


GOOD = (0, 10, 20, 8192, b"h" * 32)


def test_records_that_are_sound() -> None:
    index = index_of([GOOD], [(0, 0, 0, 0, 8192), (0, 8192, fmt.ZEROS, 0, 1 << 40), (1, 0, fmt.ZEROS, 0, 100)])
    assert index.stored(0).offset == 10
    with pytest.raises(ValueError, match="read-only"):
        index.chunks["raw"] = 1


@pytest.mark.parametrize(
    "chunk",
    [
        (1, 10, 20, 8192, b"h" * 32),
        (0xFFFFFFFF, 10, 20, 8192, b"h" * 32),
        (0, 100_000, 20, 8192, b"h" * 32),
        (0, 99_990, 20, 8192, b"h" * 32),
        (0, (1 << 64) - 1, 20, 8192, b"h" * 32),
        (0, 10, 0, 8192, b"h" * 32),
        (0, 10, 20, 0, b"h" * 32),
        (0, 10, 20, 65537, b"h" * 32),
        (0, 10, 20_000, 8192, b"h" * 32),
    ],
)
def test_chunks_that_cannot_be(chunk: tuple[Any, ...]) -> None:
    with pytest.raises(IntegrityError):
        index_of([chunk], [])


@pytest.mark.parametrize(
    "extents",
    [
        [(3, 0, 0, 0, 4096)],
        [(0, 0, 1, 0, 4096)],
        [(0, 0, 0, 0, 0)],
        [(0, 1, 0, 0, 4096)],
        [(0, 0, 0, 0, 4097)],
        [(0, 0, 0, 0, 12288)],
        [(0, 0, 0, 8192, 4096)],
        [(0, 0, 0, 0xFFFFF000, 4096)],
        [(0, 0, fmt.ZEROS, 4096, 4096)],
        [(0, 1 << 63, 0, 0, 4096)],
        [(0, (1 << 63) - 4096, 0, 0, 8192)],
        [(0, 4096, fmt.ZEROS, 0, (1 << 64) - 4096)],
        [(0, 4096, 0, 0, 4096), (0, 0, 0, 0, 4096)],
        [(0, 0, 0, 0, 8192), (0, 4096, 0, 0, 4096)],
        [(0, 0, 0, 0, 4096), (0, 0, 0, 0, 4096)],
        [(1, 0, fmt.ZEROS, 0, 10), (0, 0, 0, 0, 4096)],
        [(1, 0, fmt.ZEROS, 0, 101)],
        [(1, 100, fmt.ZEROS, 0, 1)],
        [(1, 0, 0, 0, 10)],
        [(2, 0, fmt.ZEROS, 0, 1)],
    ],
)
def test_extents_that_cannot_be(extents: list[tuple[int, ...]]) -> None:
    with pytest.raises(IntegrityError):
        index_of([GOOD], extents)


numbers = st.sampled_from([0, 1, 2, 4096, 8192, 65536, 1 << 31, (1 << 32) - 1])
longs = numbers | st.sampled_from([1 << 62, 1 << 63, (1 << 64) - 4096, (1 << 64) - 1])


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(numbers, longs, numbers, numbers, st.just(b"h" * 32)), max_size=3),
    st.lists(st.tuples(numbers, longs, numbers, numbers, longs), max_size=4),
)
def test_any_records(chunks: list[tuple[Any, ...]], extents: list[tuple[int, ...]]) -> None:
    try:
        index = index_of(chunks, extents)
    except IntegrityError:
        return
    if len(index.chunks):
        with pytest.raises(NotFoundError):  # of the packs there is none
            check(index, MemoryStore())


def entries_of(*entries: Entry) -> None:
    """Write them without any check, and load them."""
    data = b"".join(files.encode(entry) for entry in entries)
    files.Tree().add_all(files.decode(data, len(entries)))


def rootfs(kind: FileType, path: str, **more: Any) -> Entry:
    return Entry(Kind.ROOTFS, kind, path, **more)


@pytest.mark.parametrize(
    "path", ["", "/", "/etc", "a/", "a//b", "./a", "a/.", "..", "a/../b", "a\0b", "x" * 4097, "é" * 2049, "./"]
)
def test_paths_that_are_refused(path: str) -> None:
    for entry in (rootfs(FileType.REGULAR, path), rootfs(FileType.DIRECTORY, path)):
        with pytest.raises(IntegrityError):
            entries_of(entry)


@pytest.mark.parametrize(
    "entries",
    [
        [rootfs(FileType.REGULAR, "a"), rootfs(FileType.DIRECTORY, "a")],
        [rootfs(FileType.SYMLINK, "a", link="/etc"), rootfs(FileType.REGULAR, "a/b")],
        [rootfs(FileType.REGULAR, "a/b/c"), rootfs(FileType.SYMLINK, "a", link="/etc")],
        [rootfs(FileType.WHITEOUT, "a"), rootfs(FileType.REGULAR, "a/b")],
        [rootfs(FileType.SYMLINK, "a")],
        [rootfs(FileType.SYMLINK, "a", link="b\0c")],
        [rootfs(FileType.SYMLINK, "a", link="b" * 4097)],
        [rootfs(FileType.REGULAR, "a", link="b")],
        [rootfs(FileType.HARDLINK, "a", link="b"), rootfs(FileType.REGULAR, "b")],
        [rootfs(FileType.REGULAR, "b"), rootfs(FileType.HARDLINK, "a", link="../b")],
        [rootfs(FileType.DIRECTORY, "b"), rootfs(FileType.HARDLINK, "a", link="b")],
        [Entry(Kind.VOLUME, FileType.REGULAR, "b"), rootfs(FileType.HARDLINK, "a", link="b")],
        [rootfs(FileType.REGULAR, "a", xattrs=(("", b""),))],
        [rootfs(FileType.REGULAR, "a", xattrs=(("x" * 256, b""),))],
        [rootfs(FileType.REGULAR, "a", xattrs=(("x", b"y" * 65537),))],
        [rootfs(FileType.REGULAR, "a", xattrs=(("x", b"y"), ("x", b"z")))],
        [rootfs(FileType.REGULAR, "a", mode=1 << 16)],
        [rootfs(FileType.REGULAR, "a", size=1 << 63)],
        [rootfs(FileType.PAGES, "a")],
        [Entry(Kind.MEMORY, FileType.REGULAR, "a")],
        [Entry(Kind.MEMORY, FileType.PAGES, "a", size=1)],
    ],
)
def test_entries_that_are_refused(entries: list[Entry]) -> None:
    with pytest.raises(IntegrityError):
        entries_of(*entries)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 5))
def test_any_file_records(data: bytes, count: int) -> None:
    try:
        files.Tree().add_all(files.decode(data, count))
    except IntegrityError:
        return


def test_fields_that_do_not_fit() -> None:
    for entry in (
        rootfs(FileType.REGULAR, "a", uid=1 << 32),
        rootfs(FileType.REGULAR, "a", mtime=1 << 63),
        rootfs(FileType.REGULAR, "\ud800"),
        rootfs(FileType.REGULAR, "a" * 70000),
        rootfs(FileType.REGULAR, "a", xattrs=(("x", b""),) * 65536),
    ):
        with pytest.raises(IntegrityError):
            files.encode(entry)


def frame(data: bytes, **options: Any) -> bytes:
    return zstandard.ZstdCompressor(**options).compress(data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not zstd at all",
        frame(b"x" * 101),
        frame(b"x" * 99),
        frame(b"x" * 100)[:-1],
        frame(b"x" * 100) + b"\0",
        frame(b"x" * 100) + frame(b"x" * 100),
        frame(b"x" * 100, write_content_size=False),
        frame(b"y" * 100),
        frame(b"x" * (1 << 30)),
        struct.pack("<II", 0x184D2A50, 100) + bytes(100),
        frame(b"x" * 50) + frame(b"x" * 50),
    ],
)
def test_frames_that_are_refused(data: bytes) -> None:
    good = b"x" * 100
    with pytest.raises(IntegrityError):
        PLAIN.decode(data, 100, bytes.fromhex(digest_of(good)[7:]))


def test_packs_that_the_manifest_does_not_list() -> None:
    index = Index.load(STORE, BLOB)
    index.check_layers([BLOB, *index.packs])
    for layers in (index.packs[1:], [dataclasses.replace(blob, size=1) for blob in index.packs]):
        with pytest.raises(IntegrityError, match="does not list"):
            index.check_layers(layers)


def test_files_that_are_too_large_or_no_files() -> None:
    index = Index.load(STORE, BLOB)
    numbers = {entry.path: number for number, entry in enumerate(index.files)}
    with pytest.raises(IntegrityError, match="at most 5999 bytes"):
        read_file(index, STORE, numbers["file"], 5999)
    assert len(read_file(index, STORE, numbers["file"], 6000)) == 6000
    for path in (".", "m"):
        with pytest.raises(IntegrityError):
            read_file(index, STORE, numbers[path], 1 << 30)


def test_the_first_error_of_a_write_ends_everything() -> None:
    store = MemoryStore()
    index = Index.load(store, pack(store, [pages("m", {0: RANDOM.randbytes(8 << 20)})]).index)
    calls = []

    def write(number: int, offset: int, data: memoryview) -> None:
        calls.append(offset)
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        extract(index, store, [0], write, threads=3)
    assert len(calls) <= 3
