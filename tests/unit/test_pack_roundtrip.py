"""unpack(pack(x)) == x, equal input gives equal blobs, and what was stored already is not stored again."""

from __future__ import annotations

import io
import random

import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from ocickpt.model import Content, Entry, FileType, Kind, Run
from ocickpt.pack.index import Index
from ocickpt.pack.reader import check, read_file, read_files, stored_size
from tests.unit.test_pack_support import PAGE, MemoryStore, opener, pack, pages, regular, unpack

CHUNK = 64 << 10


def random_bytes(seed: int, length: int) -> bytes:
    return random.Random(seed).randbytes(length)


def page_of(number: int) -> bytes:
    """Page content by a small number: 0 is the zero page, some compress, some do not."""
    if number == 0:
        return bytes(PAGE)
    return random_bytes(number, PAGE) if number % 2 else (b"text %d " % number * PAGE)[:PAGE]


address_spaces = st.dictionaries(
    st.integers(0, 80) | st.integers(1 << 34, (1 << 34) + 40), st.integers(0, 6), max_size=60
)
file_runs = st.tuples(
    st.integers(0, 200_000),
    st.lists(st.tuples(st.integers(0, 70_000), st.integers(0, 70_000)), max_size=6),
    st.integers(0, 9),
)


def sparse(path: str, size: int, steps: list[tuple[int, int]], seed: int) -> tuple[Content, bytes]:
    """A regular file with holes; runs need not be aligned to anything."""
    data, runs, parts, at = bytearray(size), [], [], 0
    for hole, length in steps:
        start, stop = min(at + hole, size), min(at + hole + length, size)
        part = random_bytes(seed, stop - start) if seed % 3 else bytes(stop - start)
        data[start:stop] = part
        runs.append(Run(start, stop - start))
        parts.append(part)
        at = stop
    entry = Entry(Kind.ROOTFS, FileType.REGULAR, path, 0o600, size=size)
    return Content(entry, runs, opener(b"".join(parts))), bytes(data)


@settings(max_examples=60, deadline=None)
@given(spaces=st.lists(address_spaces, max_size=3), files=st.lists(file_runs, max_size=4))
def test_what_was_packed_comes_back(
    spaces: list[dict[int, int]], files: list[tuple[int, list[tuple[int, int]], int]]
) -> None:
    store = MemoryStore()
    contents, expected = [], {}
    for number, space in enumerate(spaces):
        memory = {page * PAGE: page_of(what) for page, what in space.items()}
        contents.append(pages(f"pagemap-{number}.img", memory))
        expected[Kind.MEMORY, f"pagemap-{number}.img"] = memory
    for number, (size, steps, seed) in enumerate(files):
        content, data = sparse(f"file-{number}", size, steps, seed)
        contents.append(content)
        expected[Kind.ROOTFS, f"file-{number}"] = {0: data}
    packed = pack(store, contents)
    index = Index.load(store, packed.index)
    assert unpack(index, store) == expected
    assert store.open == 0
    check(index, store)


def test_large_content_over_many_batches_and_packs() -> None:
    store = MemoryStore()
    data = random_bytes(1, 5 << 20) + bytes(3 << 20) + b"words " * 500_000 + random_bytes(1, 5 << 20)
    data = data[: len(data) // PAGE * PAGE]
    packed = pack(store, [regular(Kind.ROOTFS, "a/b", data + b"tail"), pages("m", {0x7F0000001000: data})])
    index = Index.load(store, packed.index)
    found = unpack(index, store)
    assert found[Kind.ROOTFS, "a/b"] == {0: data + b"tail"}
    memory = found[Kind.MEMORY, "m"]
    assert b"".join(memory[address] for address in sorted(memory)) == data
    assert min(memory) == 0x7F0000001000
    assert len(packed.packs) > 8


def test_zeros_are_not_stored_and_runs_of_them_are_one_extent() -> None:
    store = MemoryStore()
    packed = pack(store, [pages("m", {0x10000: bytes(64 << 20)}), regular(Kind.ROOTFS, "z", bytes(1 << 20))])
    index = Index.load(store, packed.index)
    assert packed.packs == () and len(index.chunks) == 0
    assert index.extents.tolist() == [(0, 0x10000, 0xFFFFFFFF, 0, 64 << 20)]
    assert unpack(index, store)[Kind.ROOTFS, "z"] == {0: bytes(1 << 20)}


def test_a_window_is_one_chunk_cut_by_address() -> None:
    store = MemoryStore()
    one, two = page_of(1), page_of(3)
    packed = pack(store, [pages("m", {0xF000: one, 0x10000: two, 0x11000: bytes(PAGE), 0x13000: one})])
    index = Index.load(store, packed.index)
    assert index.chunks["raw"].tolist() == [PAGE, 2 * PAGE]
    assert index.extents.tolist() == [
        (0, 0xF000, 0, 0, PAGE),
        (0, 0x10000, 1, 0, PAGE),
        (0, 0x11000, 0xFFFFFFFF, 0, PAGE),
        (0, 0x13000, 1, PAGE, PAGE),
    ]


def test_equal_content_is_stored_once_but_not_across_kinds() -> None:
    store = MemoryStore()
    data = random_bytes(5, 4 * CHUNK)
    packed = pack(
        store,
        [
            pages("one", {0: data}),
            pages("two", {1 << 40: data}),
            regular(Kind.ROOTFS, "f", data),
            regular(Kind.BOOT, "b", data),
        ],
    )
    index = Index.load(store, packed.index)
    assert len(index.chunks) == 12
    assert [one.media_type.split(".")[-1] for one in packed.packs] == ["boot+zstd", "memory+zstd", "rootfs+zstd"]
    assert packed.raw == {Kind.BOOT: 4 * CHUNK, Kind.MEMORY: 8 * CHUNK, Kind.ROOTFS: 4 * CHUNK}
    store.reads.clear()
    unpack(index, store)
    assert len(store.reads) == 3
    assert stored_size(index, range(4)) == sum(one.size for one in packed.packs)


def test_only_changes_are_new() -> None:
    store = MemoryStore()
    data = bytearray(random_bytes(6, 6 << 20))
    first = pack(store, [pages("m", {1 << 32: bytes(data)}), regular(Kind.BOOT, "b", b"boot")])
    data[5 * CHUNK + PAGE : 5 * CHUNK + 2 * PAGE] = page_of(7)
    data[40 * CHUNK : 40 * CHUNK + 8] = b"8 bytes."
    parent = Index.load(store, first.index)
    second = pack(store, [pages("m", {1 << 32: bytes(data)}), regular(Kind.BOOT, "b", b"boot")], inherited=parent)
    assert next(one.size for one in second.new if "memory" in one.media_type) < 2 * CHUNK + 100
    assert set(first.packs) <= set(second.packs)
    assert len(second.packs) == len(first.packs) + 1
    index = Index.load(store, second.index)
    memory = unpack(index, store)[Kind.MEMORY, "m"]
    assert b"".join(memory[address] for address in sorted(memory)) == data


def test_unchanged_content_needs_nothing_new_but_boot() -> None:
    store = MemoryStore()
    contents = [pages("m", {0: random_bytes(8, 2 << 20)}), regular(Kind.BOOT, "b", b"boot")]
    first = pack(store, contents)
    second = pack(store, contents, inherited=Index.load(store, first.index))
    assert second.index == first.index
    assert [one.media_type for one in second.new] == [Kind.BOOT.media_type]


def test_fragments_are_not_inherited_from() -> None:
    store = MemoryStore()
    data = random_bytes(9, 2 << 20)
    first = pack(store, [pages("m", {0: data})], pack_size=16 << 20)
    little = data[: 2 * CHUNK]
    second = pack(store, [pages("m", {0: little})], inherited=Index.load(store, first.index))
    assert second.packs == first.packs and not second.new
    third = pack(store, [pages("m", {0: little})], inherited=Index.load(store, second.index))
    assert third.packs == third.new and third.packs != first.packs


def test_equal_input_gives_equal_blobs() -> None:
    contents = [
        pages("m", {0: random_bytes(1, 3 << 20) * 2, 1 << 40: b"ab" * (1 << 20)}),
        *(regular(Kind.ROOTFS, f"f{number}", random_bytes(number, number * 997)) for number in range(50)),
    ]
    made = []
    for _ in range(3):
        store = MemoryStore()
        made.append((pack(store, contents), store.blobs))
    assert made[0] == made[1] == made[2]


def test_zstd_reads_a_pack() -> None:
    store = MemoryStore()
    data = random_bytes(2, 100_000) + b"tail" * 20_000
    packed = pack(store, [regular(Kind.STATE, "f", data)])
    blob = store.blobs[packed.packs[0].digest]
    reader = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(blob), read_across_frames=True)
    assert reader.read() == data


def test_the_head_suffices_for_boot() -> None:
    store = MemoryStore()
    contents = [
        *(regular(Kind.ROOTFS, f"d/{number}", random_bytes(number, 200)) for number in range(300)),
        regular(Kind.BOOT, "config.dump", b"{}" * 100),
        pages("m", {0: random_bytes(3, 1 << 20)}),
        regular(Kind.BOOT, "checkpoint/core-1.img", random_bytes(4, 100_000)),
    ]
    packed = pack(store, contents)
    store.reads.clear()
    head = Index.load_head(store, packed.index)
    assert [entry.path for entry in head.files] == ["config.dump", "checkpoint/core-1.img"]
    assert read_files(head, store, [0, 1], 1 << 20) == {0: b"{}" * 100, 1: random_bytes(4, 100_000)}
    assert len(store.reads) == 2
    assert store.reads[0][2] < packed.index.size / 4
    whole = Index.load(store, packed.index)
    assert whole.packs == head.packs
    assert whole.files[:2] == head.files and len(whole.files) == 303
    assert read_file(whole, store, 1, 100_000) == random_bytes(4, 100_000)
    assert [number for number, _ in whole.files_of(Kind.BOOT)] == [0, 1]
    assert whole.extents_of(0).tolist() == head.extents_of(0).tolist()


def test_entries_of_every_type() -> None:
    store = MemoryStore()
    entries = [
        Entry(Kind.ROOTFS, FileType.DIRECTORY, ".", 0o755, mtime=-5),
        Entry(Kind.ROOTFS, FileType.OPAQUE, "dir", 0o1777, 1000, 4294967295, 1_700_000_000_123_456_789),
        Entry(Kind.ROOTFS, FileType.FIFO, "dir/\udcff\udc80", xattrs=(("user.a", b"\0\xff"), ("user.b", b""))),
        Entry(Kind.ROOTFS, FileType.HARDLINK, "dir/again", link="dir/\udcff\udc80"),
        Entry(Kind.ROOTFS, FileType.SYMLINK, "link", link="/../anywhere"),
        Entry(Kind.ROOTFS, FileType.CHARACTER, "null", 0o666, major=1, minor=3),
        Entry(Kind.ROOTFS, FileType.BLOCK, "sda", major=8),
        Entry(Kind.ROOTFS, FileType.WHITEOUT, "gone"),
        Entry(Kind.VOLUME, FileType.DIRECTORY, "data", 0o700),
        Entry(Kind.ROOTFS, FileType.REGULAR, "empty"),
    ]
    packed = pack(store, [Content(entry) for entry in entries])
    assert Index.load(store, packed.index).files == entries
