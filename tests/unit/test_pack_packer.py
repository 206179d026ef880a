"""What the packer promises beside the content: limits, errors, nothing left behind, order, progress."""

from __future__ import annotations

import gc
import io
import random
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from ocickpt.errors import IntegrityError, StorageError, UnsupportedError
from ocickpt.model import Content, Descriptor, Entry, FileType, Kind, Run, Silent
from ocickpt.pack import inherited, packer
from ocickpt.pack.index import Index
from ocickpt.pack.inherited import Inherited
from ocickpt.pack.packer import Packer, pack_size_for
from ocickpt.pack.reader import check
from tests.unit.test_pack_support import PAGE, MemoryStore, MemoryWriter, opener, pack, pages, regular, unpack


def random_bytes(seed: int, length: int) -> bytes:
    return random.Random(seed).randbytes(length)


class Count(Silent):
    def __init__(self) -> None:
        self.done = 0

    def advance(self, size: int) -> None:
        self.done += size


def test_progress_is_told_of_every_byte_that_was_read() -> None:
    progress = Count()
    with Packer(MemoryStore(), progress=progress) as tool:
        tool.add(pages("m", {0: bytes(5 << 20), 1 << 30: random_bytes(1, 3 << 20)}))
        tool.add(regular(Kind.STATE, "s", b"12345"))
        tool.finish()
    assert progress.done == (8 << 20) + 5


def test_packs_are_announced_when_they_are_there() -> None:
    store = MemoryStore()
    seen: list[Descriptor] = []

    def on_pack(blob: Descriptor) -> None:
        assert blob.digest in store.blobs
        seen.append(blob)

    with Packer(store, pack_size=1 << 20, on_pack=on_pack) as tool:
        tool.add(pages("m", {0: random_bytes(2, 6 << 20)}))
        packed = tool.finish()
    assert seen == list(packed.new) == list(packed.packs)
    assert len(seen) == 6


def test_an_error_of_who_is_told_ends_the_packing() -> None:
    store = MemoryStore()

    def on_pack(_: Descriptor) -> None:
        raise StorageError("no")

    with pytest.raises(StorageError, match="no"), Packer(store, pack_size=1 << 20, on_pack=on_pack) as tool:
        tool.add(pages("m", {0: random_bytes(2, 3 << 20)}))
        tool.finish()
    assert store.open == 0


def test_leaving_early_leaves_nothing_unfinished() -> None:
    store = MemoryStore()
    with Packer(store) as tool:
        tool.add(pages("m", {0: random_bytes(2, 9 << 20)}))
    assert store.open == 0 and not store.blobs


class FullWriter(MemoryWriter):
    def write(self, data: bytes | bytearray | memoryview) -> int:
        raise StorageError("no space left")


class FullStore(MemoryStore):
    def new_blob(self) -> MemoryWriter:
        return FullWriter(self)


@pytest.mark.parametrize("size", [PAGE, 40 << 20])
def test_a_full_disk(size: int) -> None:
    store = FullStore()
    with pytest.raises(StorageError, match="no space left"), Packer(store, pack_size=1 << 20) as tool:
        tool.add(pages("m", {0: random_bytes(3, size)}))
        tool.finish()
    assert store.open == 0 and not store.blobs


class FailingWriter(MemoryWriter):
    def commit(self, media_type: str, annotations: Mapping[str, str] = {}) -> Descriptor:
        raise StorageError("fsync failed")


class FailingStore(MemoryStore):
    def new_blob(self) -> MemoryWriter:
        return FailingWriter(self)


def test_a_pack_that_cannot_be_made_durable() -> None:
    store = FailingStore()
    with pytest.raises(StorageError, match="fsync"), Packer(store, pack_size=1 << 20) as tool:
        tool.add(pages("m", {0: random_bytes(3, 8 << 20)}))
        tool.finish()
    assert store.open == 0


def test_boot_is_one_small_pack() -> None:
    store = MemoryStore()
    packed = pack(store, [regular(Kind.BOOT, "a", random_bytes(4, 7 << 20))], pack_size=1 << 20)
    assert len(packed.packs) == 1
    with pytest.raises(UnsupportedError, match="8 MiB"):
        pack(store, [regular(Kind.BOOT, "a", random_bytes(4, 9 << 20))])
    assert store.open == 0


def broken(stream: Callable[[], io.RawIOBase | io.BytesIO], size: int) -> Content:
    entry = Entry(Kind.ROOTFS, FileType.REGULAR, "f", size=size)
    return Content(entry, [Run(0, size)], stream)  # type: ignore[arg-type]  # typing's BinaryIO is not io's


class Unreadable(io.RawIOBase):
    def readable(self) -> bool:
        return True

    def readinto(self, _: object) -> int:
        raise OSError("input/output error")


@pytest.mark.parametrize(
    "content",
    [broken(lambda: io.BytesIO(b"short"), 6), broken(Unreadable, 6), broken(lambda: io.BytesIO(b""), 3 << 20)],
)
def test_a_file_that_cannot_be_read_cannot_be_finished(content: Content) -> None:
    store = MemoryStore()
    with Packer(store) as tool:
        with pytest.raises(StorageError, match="'f'"):
            tool.add(content)
        with pytest.raises(RuntimeError):
            tool.finish()
    assert store.open == 0


class OnlyRead:
    """A stream that knows nothing but read, and gives little at a time."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def __enter__(self) -> OnlyRead:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def read(self, size: int) -> bytes:
        return self._data.read(min(size, 1000))


def test_a_stream_that_gives_little_at_a_time() -> None:
    store = MemoryStore()
    data = random_bytes(5, 100_000)
    entry = Entry(Kind.ROOTFS, FileType.REGULAR, "f", size=len(data))
    packed = pack(store, [Content(entry, [Run(0, len(data))], lambda: OnlyRead(data))])  # type: ignore[arg-type,return-value]
    assert unpack(Index.load(store, packed.index), store)[Kind.ROOTFS, "f"] == {0: data}


@pytest.mark.parametrize(
    ("entry", "runs"),
    [
        (Entry(Kind.ROOTFS, FileType.REGULAR, "f", size=10), [Run(0, 11)]),
        (Entry(Kind.ROOTFS, FileType.REGULAR, "f", size=10), [Run(0, 5), Run(4, 2)]),
        (Entry(Kind.ROOTFS, FileType.REGULAR, "f", size=10), [Run(0, -1)]),
        (Entry(Kind.ROOTFS, FileType.REGULAR, "f", size=10), [Run(-1, 5)]),
        (Entry(Kind.ROOTFS, FileType.DIRECTORY, "f"), [Run(0, 1)]),
        (Entry(Kind.MEMORY, FileType.PAGES, "f"), [Run(1, PAGE)]),
        (Entry(Kind.MEMORY, FileType.PAGES, "f"), [Run(0, PAGE - 1)]),
        (Entry(Kind.MEMORY, FileType.PAGES, "f"), [Run((1 << 63) - PAGE, 2 * PAGE)]),
    ],
)
def test_runs_that_cannot_be(entry: Entry, runs: list[Run]) -> None:
    with pytest.raises(IntegrityError), Packer(MemoryStore()) as tool:
        tool.add(Content(entry, runs, opener(bytes(3 * PAGE))))
    with pytest.raises(IntegrityError), Packer(MemoryStore()) as tool:
        tool.add(Content(Entry(Kind.ROOTFS, FileType.REGULAR, "f", size=10), [Run(0, 10)]))


def test_memory_at_the_end_of_the_address_space() -> None:
    store = MemoryStore()
    memory = {(1 << 63) - PAGE: random_bytes(6, PAGE), (1 << 63) - (1 << 20): bytes(PAGE)}
    packed = pack(store, [pages("m", memory)])
    assert unpack(Index.load(store, packed.index), store) == {(Kind.MEMORY, "m"): memory}


@pytest.mark.parametrize("threads", [1, 2, 5, 100])
def test_the_number_of_threads_makes_no_difference(threads: int) -> None:
    store = MemoryStore()
    contents = [pages("m", {0: random_bytes(7, 4 << 20) * 2}), regular(Kind.STATE, "s", b"abc" * 100_000)]
    with Packer(store, pack_size=1 << 20, threads=threads) as tool:
        for content in contents:
            tool.add(content)
        assert tool.finish() == pack(MemoryStore(), contents)


def test_a_larger_page_size() -> None:
    store = MemoryStore()
    data = random_bytes(8, 1 << 20)
    with Packer(store, page_size=65536) as tool:
        tool.add(pages("m", {1 << 40: data}))
        index = Index.load(store, tool.finish().index)
    assert (index.page_size, index.chunk_size) == (65536, 65536)
    assert len(index.chunks) == 16
    for size in (1024, 5000, 1 << 17):
        with pytest.raises(IntegrityError):
            Packer(store, page_size=size)


def test_no_further_packs_are_inherited_from_when_there_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    data = random_bytes(9, 6 << 20)
    first = pack(store, [pages("m", {0: data})])
    parent = Index.load(store, first.index)
    monkeypatch.setattr(packer, "FULL", 2)
    second = pack(store, [pages("m", {0: data})], inherited=parent)
    assert second.packs[:2] == first.packs[:2]
    index = Index.load(store, second.index)
    check(index, store)
    memory = unpack(index, store)[Kind.MEMORY, "m"]
    assert b"".join(memory[address] for address in sorted(memory)) == data


def test_packs_grow_when_there_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packer, "CROWDED", 8)
    packed = pack(MemoryStore(), [pages("m", {0: random_bytes(9, 8 << 20)})], pack_size=64 << 10)
    assert len(packed.packs) < 60
    assert packed.packs[-2].size > 7 * packed.packs[0].size


def test_only_the_fullest_packs_are_inherited_from(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    data = random_bytes(10, 3 << 20)
    first = pack(store, [pages("a", {0: data}), regular(Kind.STATE, "s", b"small")])
    monkeypatch.setattr(inherited, "MAX_INHERITED", 2)
    found = Inherited(Index.load(store, first.index))
    index = Index.load(store, first.index)
    packs = {
        found.stored(number).pack.digest
        for number in range(len(index.chunks))
        if found.find(Kind.MEMORY, bytes(index.chunks["hash"][number])) is not None
    }
    assert len(packs) == 2
    assert found.find(Kind.STATE, bytes(index.chunks["hash"][-1])) is None


def test_what_is_known_is_known_by_kind() -> None:
    store = MemoryStore()
    index = Index.load(store, pack(store, [regular(Kind.STATE, "s", b"x"), regular(Kind.BOOT, "b", b"y")]).index)
    found = Inherited(index)
    state, boot = (next(bytes(c["hash"]) for c in index.chunks if c["pack"] == n) for n in (1, 0))
    assert found.find(Kind.STATE, state) == 1
    assert found.stored(1) == index.stored(1)
    assert found.find(Kind.ROOTFS, state) is None
    assert found.find(Kind.BOOT, boot) is None
    assert found.find(Kind.STATE, bytes(32)) is None


def test_content_packed_anew_may_equal_another_pack() -> None:
    """And one pack may be of two kinds: the same bytes under two media types."""
    store = MemoryStore()
    data = random_bytes(11, 1 << 16)
    first = pack(store, [regular(Kind.ROOTFS, "a", data)])
    again = pack(store, [regular(Kind.ROOTFS, "a", data), regular(Kind.VOLUME, "v", data)])
    assert first.packs[0] in again.packs
    assert len({blob.digest for blob in again.packs}) == 1 and len(again.packs) == 2
    assert len(unpack(Index.load(store, again.index), store)) == 2


def test_pack_size() -> None:
    assert pack_size_for(0) == pack_size_for(4 << 30) == 16 << 20
    assert pack_size_for(300 << 30) == 1 << 30


class Nowhere(MemoryStore):
    """Keeps nothing."""

    def new_blob(self) -> MemoryWriter:
        return Forgetful(self)


class Forgetful(MemoryWriter):
    def write(self, data: bytes | bytearray | memoryview) -> int:
        return len(data)


class Noise(io.RawIOBase):
    """Compressible to a half, no window like another one."""

    def __init__(self) -> None:
        self._random = random.Random(1)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        for at in range(0, len(buffer), 4096):
            part = buffer[at : at + 2048]
            part[:] = self._random.randbytes(len(part))
        return len(buffer)


def resident() -> int:
    """The most memory this process ever had, in bytes (proc(5), VmHWM)."""
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) << 10


def peak(size: int) -> int:
    """The most memory that packing so many bytes takes."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    with Packer(Nowhere(), threads=2) as tool:
        tool.add(Content(Entry(Kind.MEMORY, FileType.PAGES, "m"), [Run(0, size)], lambda: io.BufferedReader(Noise())))
        tool.finish()
    return resident()


def test_memory_does_not_grow_with_what_is_packed() -> None:
    peak(32 << 20)
    small, large = peak(64 << 20), peak(1 << 30)
    assert large < small + (2 << 20)
