"""Of what a later checkpoint holds, only the pages that changed are packed; which those are tell marks of this host."""

from __future__ import annotations

import random
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocickpt import names
from ocickpt.artifact import publishing
from ocickpt.artifact.marked import Marked
from ocickpt.model import Content, Descriptor, Kind, Manifest, Packed, Silent
from ocickpt.pack import format as fmt
from ocickpt.pack import marks
from ocickpt.pack.index import Index
from ocickpt.pack.inherited import Inherited
from ocickpt.pack.marks import Marker, Marks, MarksWriter
from ocickpt.pack.packer import Packer
from tests.unit.test_pack_support import PAGE, MemoryStore, pack, pages, regular, unpack

if TYPE_CHECKING:
    from ocickpt.store import Store

SLOTS = fmt.CHUNK_SIZE // PAGE
MARKER = Marker(b"k" * 32)


class Line:
    """Checkpoints one after the other, each built upon the one before."""

    def __init__(self, directory: Path, threads: int = 2) -> None:
        self.store, self.directory, self.threads = MemoryStore(), directory, threads
        self.index: Index | None = None
        self.digest = ""
        self.sent: list[int] = []

    def known(self) -> Inherited | None:
        if self.index is None:
            return None
        try:
            return Inherited(self.index, Marks.read(self.directory, MARKER, self.digest, SLOTS))
        except FileNotFoundError:
            return Inherited(self.index)

    def add(self, *contents: Content) -> Packed:
        """The next one; what is read back of it is what was packed."""
        with closing(MarksWriter(self.directory, MARKER, SLOTS)) as writer:
            with Packer(self.store, inherited=self.known(), marks=writer, threads=self.threads) as tool:
                for content in contents:
                    tool.add(content)
                packed = tool.finish()
            writer.keep()
        self.index, self.digest = Index.load(self.store, packed.index), fmt.Place.of(packed.index).digest
        self.sent.append(sum(pack.size for pack in packed.new))
        return packed

    def holds(self) -> dict[tuple[Kind, str], dict[int, bytes]]:
        assert self.index
        return unpack(self.index, self.store)


def changed(data: bytes, numbers: list[int], seed: int) -> bytes:
    found, generator = bytearray(data), random.Random(seed)
    for number in numbers:
        found[number * PAGE : number * PAGE + PAGE] = generator.randbytes(PAGE)
    return bytes(found)


def by_page(data: bytes) -> dict[int, bytes]:
    return {at: data[at : at + PAGE] for at in range(0, len(data), PAGE)}


def test_what_changed_is_what_is_sent(tmp_path: Path) -> None:
    """2 % of the pages at random, ten times over: never much more than those, and always all that was there."""
    line, data = Line(tmp_path), random.Random(1).randbytes(8 << 20)
    line.add(pages("a", {0: data}))
    generator = random.Random(2)
    for generation in range(10):
        numbers = generator.sample(range(len(data) // PAGE), 41)
        data = changed(data, numbers, generation)
        line.add(pages("a", {0: data}))
        assert line.sent[-1] < 1.05 * len(numbers) * PAGE
        assert line.holds() == {(Kind.MEMORY, "a"): by_page(data)}
    line.add(pages("a", {0: data}))
    assert line.sent[-1] == 0


def test_files_that_are_large_too(tmp_path: Path) -> None:
    """In place, longer and shorter, with an end that is no page."""
    line, data = Line(tmp_path), random.Random(1).randbytes((1 << 20) + 100)
    for kind in (Kind.ROOTFS, Kind.VOLUME):
        line.add(regular(kind, "file", data))
        line.add(regular(kind, "file", changed(data, [3], 1)))
        assert line.sent[-1] < 2 * PAGE
        for more in (data + b"x" * 5000, data[: -2 * PAGE + 7], data[: 200 * PAGE], data):
            line.add(regular(kind, "file", more))
            assert line.holds() == {(kind, "file"): {0: more}}


@pytest.mark.parametrize("lost", ["missing", "cut", "of another index", "changed", "another host's", "empty"])
def test_marks_that_cannot_be_trusted(tmp_path: Path, lost: str) -> None:
    """It comes out larger, and right."""
    line, data = Line(tmp_path), random.Random(1).randbytes(1 << 20)
    line.add(pages("a", {0: data}))
    path = marks.place(tmp_path, line.digest)
    kept = path.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o600
    match lost:
        case "missing":
            path.unlink()
        case "cut":
            path.write_bytes(kept[:-1])
        case "empty":
            path.write_bytes(b"")
        case "of another index":
            other = Line(tmp_path)
            other.add(pages("a", {0: changed(data, [1, 2], 5)}))
            path.write_bytes(marks.place(tmp_path, other.digest).read_bytes())
        case "another host's":
            with closing(MarksWriter(tmp_path, Marker(b"x" * 32), SLOTS)) as writer:
                writer.finish(line.digest, 16)
                writer.keep()
        case "changed":
            # As if the third page had been what it is now.
            now = MARKER.of(changed(data, [2], 3)[2 * PAGE : 3 * PAGE])
            at = kept.index(MARKER.of(data[2 * PAGE : 3 * PAGE]))
            path.write_bytes(kept[:at] + now + kept[at + marks.SIZE :])
    data = changed(data, [2], 3)
    line.add(pages("a", {0: data}))
    assert fmt.CHUNK_SIZE <= line.sent[-1] < 2 * fmt.CHUNK_SIZE
    assert line.holds() == {(Kind.MEMORY, "a"): by_page(data)}


def test_another_index_under_our_digest(tmp_path: Path) -> None:
    """A registry says of its own index, whose root is its own too, that it is the one that this host has written."""
    marked, data, store = Marked(tmp_path, Silent()), random.Random(1).randbytes(1 << 20), MemoryStore()
    with marked.writing(SLOTS) as writer, Packer(store, marks=writer) as tool:
        tool.add(pages("checkpoint/pagemap-1.img", {0: data}))
        ours = tool.finish()
        marked.keep(writer)
    theirs = pack(store, [pages("checkpoint/pagemap-1.img", {0: changed(data, [5], 1)})])

    def marks_of(served: Packed) -> bytes:
        """What is taken for those of the first chunk of an index that is served under the digest of ours."""
        index = replace(served.index, digest=ours.index.digest)
        store.blobs[index.digest] = store.blobs[served.index.digest]
        config = Descriptor(names.CONFIG_TYPE, f"sha256:{'0' * 64}", 2)
        data = Manifest(config, (index, *served.packs), names.ARTIFACT_TYPE).to_bytes()
        there = SimpleNamespace(resolve=lambda _: (config, data), read_at=store.read_at, tags=list)
        found = publishing._find_parent(cast("Store", there), "1", "web", marked, Silent())
        assert found
        return found[1].marks(0)

    assert marks_of(ours)
    assert not marks_of(theirs)


def test_marks_are_those_of_this_host_alone() -> None:
    """A container that knows the algorithm does not know the marks: equal ones cannot be chosen."""
    page = bytes(PAGE)
    assert len({MARKER.of(page), Marker(b"x" * 32).of(page), MARKER.of(page[:-1])}) == 3


def test_it_comes_out_the_same_whatever_the_threads(tmp_path: Path) -> None:
    made = []
    for threads in (1, 2, 7):
        directory = tmp_path / str(threads)
        directory.mkdir()
        line, data = Line(directory, threads), random.Random(1).randbytes(4 << 20)
        line.add(pages("a", {0: data}), pages("b", {0: data[: 1 << 20]}))
        data = changed(data, list(range(0, 1000, 9)), 1)
        made.append(line.add(pages("a", {0: data}), pages("b", {0: data[: 1 << 20]})))
    assert made[0] == made[1] == made[2]


def test_packs_that_are_left_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages in packs that nothing may be inherited from are packed again."""
    line, data = Line(tmp_path), random.Random(1).randbytes(1 << 20)
    line.add(pages("a", {0: data}))
    monkeypatch.setattr("ocickpt.pack.packer.FULL", 0)
    data = changed(data, [3], 3)
    line.add(pages("a", {0: data}))
    assert line.sent[-1] > 1 << 20
    assert line.holds() == {(Kind.MEMORY, "a"): by_page(data)}


def test_most_of_a_window_that_is_new_is_one_chunk(tmp_path: Path) -> None:
    line, data = Line(tmp_path), random.Random(1).randbytes(1 << 20)
    line.add(pages("a", {0: data}))
    line.add(pages("a", {0: changed(data, list(range(9)), 3)}))
    assert line.index
    assert len(line.index.extents) == 16


def test_processes_that_have_forked(tmp_path: Path) -> None:
    """What changed in both is sent once."""
    line, data = Line(tmp_path), random.Random(1).randbytes(4 << 20)
    line.add(pages("a", {0: data}), pages("b", {0: data}))
    numbers = list(range(3, 1000, 40))
    data = changed(data, numbers, 1)
    line.add(pages("a", {0: data}), pages("b", {0: data}), pages("new", {0: data}))
    assert line.sent[-1] < 1.05 * len(numbers) * PAGE
    assert line.holds() == {(Kind.MEMORY, name): by_page(data) for name in ("a", "b", "new")}


def test_packs_of_which_little_is_used_are_left(tmp_path: Path) -> None:
    """After many checkpoints a restore fetches no more than a few times what there is."""
    line, data, generator = Line(tmp_path), random.Random(1).randbytes(4 << 20), random.Random(2)
    line.add(pages("a", {0: data}))
    for generation in range(25):
        data = changed(data, generator.sample(range(len(data) // PAGE), 102), generation)
        line.add(pages("a", {0: data}))
    assert line.index
    assert int(line.index.chunks["raw"].sum()) < 2.5 * len(data)
    assert line.holds() == {(Kind.MEMORY, "a"): by_page(data)}


class Changing:
    """Memory and a file of a few windows, and what may happen to them from one checkpoint to the next."""

    page = st.integers(0, 70)
    content = st.one_of(st.just(b""), st.integers(1, 6).map(lambda seed: random.Random(seed).randbytes(PAGE)))
    step = st.dictionaries(page, content, max_size=20)


@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(Changing.step, min_size=2, max_size=6), sizes=st.lists(st.integers(0, 40000), min_size=6, max_size=6)
)
def test_any_line_of_checkpoints(
    tmp_path_factory: pytest.TempPathFactory, steps: list[dict[int, bytes]], sizes: list[int]
) -> None:
    """Pages come, go, move, become zeros; a file grows and shrinks: what is read is what there was."""
    line, memory = Line(tmp_path_factory.mktemp("line")), dict[int, bytes]()
    for step, size in zip(steps, sizes, strict=False):
        memory |= {number * PAGE: data or bytes(PAGE) for number, data in step.items()}
        for number in [number for number in step if number % 7 == 0]:
            memory.pop(number * PAGE, None)
        file = b"".join(memory.get(at, b"y" * PAGE) for at in range(0, 40 * PAGE, PAGE))[: 100 * PAGE - size]
        line.add(pages("a", memory), regular(Kind.ROOTFS, "f", file))
        assert line.holds() == {(Kind.MEMORY, "a"): memory, (Kind.ROOTFS, "f"): {0: file}}
