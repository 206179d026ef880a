"""The pagemap decoder against images encoded here by hand, sound and damaged."""

from __future__ import annotations

import contextlib
import io
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocickpt.errors import IntegrityError, OcickptError, UnsupportedError
from ocickpt.memory.pagemap import PE_LAZY, PE_PRESENT, PageMap, mark_lazy
from ocickpt.model import Run

PAGE = 4096
MAGICS = struct.pack("<II", 0x54564319, 0x56084025)
LAZY = PE_LAZY | PE_PRESENT


def varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


def message(*fields: tuple[int, int]) -> bytes:
    body = b"".join(varint(number << 3) + varint(value) for number, value in fields)
    return struct.pack("<I", len(body)) + body


def old(vaddr: int, pages: int, flags: int) -> bytes:
    return message((1, vaddr), (2, pages), (4, flags))


def new(vaddr: int, pages: int, flags: int) -> bytes:
    return message((1, vaddr), (2, 0), (4, flags), (5, pages))


def image(*entries: bytes, pages_id: int = 7) -> bytes:
    return MAGICS + message((1, pages_id)) + b"".join(entries)


@pytest.mark.parametrize("encode", [old, new])
def test_an_image_of_either_age(encode: type) -> None:
    found = PageMap.parse(image(encode(0x1000, 2, LAZY), encode(0x3000, 1, PE_PRESENT), encode(0x9000, 3, LAZY)))
    assert found.pages_id == 7
    assert found.file_size == 6 * PAGE
    assert found.lazy_bytes == 5 * PAGE
    assert found.runs() == [Run(0x1000, 3 * PAGE), Run(0x9000, 3 * PAGE)]
    assert [tuple(entry) for entry in found.entries] == [
        (0x1000, 2, LAZY, 0),
        (0x3000, 1, PE_PRESENT, 2 * PAGE),
        (0x9000, 3, LAZY, 3 * PAGE),
    ]


def test_locating() -> None:
    found = PageMap.parse(image(old(0x1000, 2, LAZY), old(0x3000, 1, PE_PRESENT), old(0x9000, 3, LAZY)))
    assert list(found.locate(0x1000, 3 * PAGE)) == [(0, 3 * PAGE)]
    assert list(found.locate(0x2800, 0x900)) == [(0x1800, 0x900)]
    assert list(found.locate(0xB000, PAGE)) == [(5 * PAGE, PAGE)]
    assert list(found.present(0, 1 << 40)) == found.runs()
    assert list(found.present(0x3800, 0x6000)) == [Run(0x3800, 0x800), Run(0x9000, 0x800)]
    assert list(found.present(0x4000, 0x5000)) == []
    for address in (0, 0x4000, 0xC000):
        with pytest.raises(IntegrityError, match="not in the pagemap"):
            list(found.locate(address, PAGE))
    with pytest.raises(IntegrityError):
        list(found.locate(0x3000, 2 * PAGE))


def test_pages_that_a_lazy_dump_left_with_the_source_take_no_room_in_the_file() -> None:
    found = PageMap.parse(image(old(0x1000, 1, PE_LAZY), old(0x2000, 1, PE_PRESENT)))
    assert found.file_size == PAGE
    assert list(found.locate(0x2000, PAGE)) == [(0, PAGE)]


def test_an_entry_without_flags_is_present_as_criu_has_it() -> None:
    assert PageMap.parse(image(message((1, 0x1000), (2, 1)))).file_size == PAGE


def test_an_address_space_may_be_empty_and_a_segment_begins_at_zero() -> None:
    assert PageMap.parse(image()).runs() == []
    assert PageMap.parse(image(new(0, 1, PE_PRESENT))).runs() == [Run(0, PAGE)]


def test_larger_pages() -> None:
    assert PageMap.parse(image(old(0x10000, 2, PE_PRESENT)), page_size=65536).file_size == 131072


def test_more_than_four_billion_pages() -> None:
    found = PageMap.parse(image(new(0x1000, 1 << 33, PE_PRESENT), new(1 << 46, 1, PE_PRESENT)))
    assert list(found.locate(1 << 46, PAGE)) == [((1 << 33) * PAGE, PAGE)]


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (old(0x1000, 1, 1), "incremental"),
        (message((1, 0x1000), (2, 1), (3, 1)), "incremental"),
        (old(0x1000, 1, 8 | PE_PRESENT), "unknown flags 0xc"),
        (old(0x1000, 1, 0), "unknown flags 0x0"),
        (message((1, 0x1000), (2, 1), (4, 4), (6, 4096)), "unknown field 6"),
        (message((1, 0x1000), (2, 1), (4, 4), (60, 1)), "unknown field"),
        (struct.pack("<I", 70) + b"\x08" * 70, "70 bytes"),
        (struct.pack("<I", 7) + b"\x08\x80\x20\x10\x01\x32\x00", "unknown field 6"),
    ],
)
def test_what_is_not_known_is_refused(entry: bytes, words: str) -> None:
    with pytest.raises(UnsupportedError, match=words):
        PageMap.parse(image(entry))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "truncated"),
        (b"\0" * 64, "not a pagemap"),
        (image()[:-1], "truncated"),
        (image(old(0x1000, 1, 4))[:-1], "truncated"),
        (image() + b"\1\0", "truncated"),
        (MAGICS + message(), "does not name"),
        (MAGICS + message((1, 1), (1, 2)), "damaged"),
        (MAGICS + message((1, 1 << 40)), "damaged"),
        (image(old(0x1001, 1, 4)), "page boundary"),
        (image(old(0x1000, 0, 4)), "0 pages"),
        (image(old(0x2000, 1, 4), old(0x1000, 1, 4)), "out of order"),
        (image(old(0x1000, 2, 4), old(0x2000, 1, 4)), "out of order"),
        (image(new(0x1000, (1 << 64) - 1, 4)), "cannot be"),
        (image(new((1 << 64) - PAGE, 1, 4)), "cannot be"),
        (image(new((1 << 63) - PAGE, 2, 4)), "cannot be"),
        (image(message((1, 0x1000), (4, 4))), "lacks"),
        (image(message((2, 1), (4, 4))), "lacks"),
        (image(message((1, 0x1000), (2, 1), (5, 2))), "contradicts"),
        (image(message((1, 0x1000), (2, 1 << 33))), "contradicts"),
        (image(message((1, 0x1000), (1, 0x1000), (2, 1))), "vaddr twice"),
        (image(struct.pack("<I", 2) + b"\x0a\x00"), "wrong type"),
        (image(struct.pack("<I", 3) + b"\x08\x80\x80"), "damaged"),
        (image(struct.pack("<I", 12) + b"\x08" + b"\xff" * 10 + b"\x01"), "damaged"),
        (image(struct.pack("<I", 11) + b"\x08" + b"\xff" * 9 + b"\x7f"), "damaged"),
    ],
)
def test_what_is_damaged_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(IntegrityError, match=words):
        PageMap.parse(data)


def test_an_image_of_criu_1_is_refused() -> None:
    with pytest.raises(UnsupportedError):
        PageMap.parse(struct.pack("<III", 0x56084025, 2, 0))


@given(st.binary(max_size=200))
def test_nothing_but_our_errors_comes_out(tail: bytes) -> None:
    for data in (tail, image() + tail, MAGICS + tail):
        with contextlib.suppress(OcickptError):
            PageMap.parse(data)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 9), st.sampled_from([4, 6, 2])), max_size=40))
def test_what_is_located_is_what_was_written(layout: list[tuple[int, int, int]]) -> None:
    """Each page holds its own address; every way to ask must find it."""
    address, entries, file = 0x10000, [], io.BytesIO()
    for gap, pages, flags in layout:
        address += gap * PAGE
        entries.append(new(address, pages, flags))
        for _ in range(pages):
            if flags & PE_PRESENT:
                file.write(struct.pack("<Q", address) * (PAGE // 8))
            address += PAGE
    found = PageMap.parse(image(*entries))
    raw = file.getvalue()
    assert found.file_size == len(raw)
    assert sum(run.length for run in found.runs()) == len(raw)
    for run in found.runs():
        for page in range(run.offset, run.offset + run.length, PAGE):
            ((offset, length),) = found.locate(page, PAGE)
            assert length == PAGE
            assert raw[offset : offset + 8] == struct.pack("<Q", page)


@pytest.mark.parametrize("encode", [old, new])
def test_entries_are_divided_where_lazy_memory_begins_and_ends(encode: type) -> None:
    data = image(encode(0x1000, 4, PE_PRESENT), encode(0x9000, 1, PE_PRESENT), encode(0x20000, 300, PE_PRESENT))
    areas = [(0x0000, 0x2000), (0x2000, 0x3000), (0x4000, 0x9000), (0x21000, 0x22000)]
    assert mark_lazy(data, areas) == image(
        encode(0x1000, 1, LAZY),
        encode(0x2000, 1, LAZY),
        encode(0x3000, 1, PE_PRESENT),
        encode(0x4000, 1, LAZY),
        encode(0x9000, 1, PE_PRESENT),
        encode(0x20000, 1, PE_PRESENT),
        encode(0x21000, 1, LAZY),
        encode(0x22000, 298, PE_PRESENT),
    )
    assert mark_lazy(data, []) == data


@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(1, 40)), max_size=8),
    st.lists(st.integers(0, 200), max_size=12, unique=True),
)
def test_every_page_is_lazy_that_is_in_an_area(layout: list[tuple[int, int]], edges: list[int]) -> None:
    entries, at = [], 0
    for gap, pages in layout:
        entries.append(new((at + gap) * PAGE, pages, PE_PRESENT))
        at += gap + pages
    edges.sort()
    areas = [(start * PAGE, end * PAGE) for start, end in zip(edges[::2], edges[1::2], strict=False)]
    before, after = PageMap.parse(image(*entries)), PageMap.parse(mark_lazy(image(*entries), areas))
    assert (after.runs(), after.file_size) == (before.runs(), before.file_size)
    for entry in after.entries:
        for page in range(entry.address, entry.address + entry.pages * PAGE, PAGE):
            assert bool(entry.flags & PE_LAZY) == any(start <= page < end for start, end in areas)


@pytest.mark.parametrize(
    "areas", [[(0x3000, 0x2000)], [(0x2000, 0x2000)], [(0, 0x3000), (0x2000, 0x4000)], [(0x800, 0x2000)]]
)
def test_areas_that_cannot_be(areas: list[tuple[int, int]]) -> None:
    with pytest.raises(IntegrityError, match="mappings"):
        mark_lazy(image(new(0x1000, 4, PE_PRESENT)), areas)


def test_a_hundred_thousand_entries() -> None:
    found = PageMap.parse(image(*(new(0x7F0000000000 + i * 8 * PAGE, i % 7 + 1, LAZY) for i in range(100_000))))
    assert len(found.runs()) == 100_000


@pytest.mark.lab
def test_pycriu_reads_the_same() -> None:
    pycriu = pytest.importorskip("pycriu", reason="pycriu is not installed")
    entries = [(0x1000, 3, LAZY), (0x7000, 1, PE_PRESENT), (0x7F0000000000, 500, LAZY)]
    ours = PageMap.parse(image(*(new(*entry) for entry in entries)))
    theirs = pycriu.images.load(io.BytesIO(image(*(new(*entry) for entry in entries))))["entries"]
    assert theirs[0]["pages_id"] == ours.pages_id
    assert [(e["vaddr"], e["nr_pages"], e["flags"]) for e in theirs[1:]] == [tuple(e)[:3] for e in ours.entries]
