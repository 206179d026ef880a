"""What an index may cost whoever reads it: memory in proportion to its blob, whatever its records are.

Each index is made by somebody who is up to no good, and read by a process of its own, whose peak is what counts.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import zstandard

from ocickpt import names
from ocickpt.errors import IntegrityError, UnsupportedError
from ocickpt.model import Descriptor, Entry, FileType, Kind, digest_of
from ocickpt.pack import files
from ocickpt.pack import format as fmt
from ocickpt.pack.index import Index
from ocickpt.pack.writer import Part, write_index
from tests.unit.test_pack_support import MemoryStore

SIZE = 18 << 20
BOUND = 300
"""MiB. The format allows 96 MiB and 8 times the 18 MiB, which is 240; the rest are Python, numpy and the blob."""

_READ = """
import json, resource, sys
from pathlib import Path
sys.path.insert(0, {root!r})
from ocickpt.model import Descriptor
from ocickpt.pack.index import Index
resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
class Source:
    def read_at(self, blob, offset, length):
        with open({path!r}, "rb") as file:
            file.seek(offset)
            return file.read(length)
blob = Descriptor.from_json(json.loads({blob!r}))
try:
    result = f"{{len(Index.load(Source(), blob).files)}} files"
except BaseException as error:
    result = f"{{type(error).__name__}}: {{error}}"
# Not ru_maxrss, in which that of the process counts that started this one.
print(next(int(line.split()[1]) >> 10 for line in Path("/proc/self/status").open() if line.startswith("VmHWM")), result)
"""


def peak(path: Path, blob: Descriptor) -> tuple[int, str]:
    """The most memory in MiB that a process had which loaded that index, and what came of it."""
    root = str(Path(__file__).parents[2])
    code = _READ.format(root=root, path=str(path), blob=json.dumps(blob.to_json()))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    size, _, result = done.stdout.strip().partition(" ")
    return int(size), result


def plain(n: int, path: str) -> Entry:
    return Entry(
        Kind.ROOTFS, FileType.REGULAR, path, 0o644, 1 << 30 | n, 1 << 29 | n, 1 << 60 | n, 1 << 40 | n, "", n, n
    )


NOISE = np.random.default_rng(1).bytes(36_000)
"""So that nothing is compressed more than 32 times."""


def noisy(*entries: Entry) -> list[Entry]:
    return [Entry(Kind.ROOTFS, FileType.REGULAR, "noise", xattrs=(("n", NOISE),)), *entries]


def small() -> list[Entry]:
    return noisy(*(plain(1000 + n, f"{n:x}") for n in range(20_000)))


def deep() -> list[Entry]:
    return noisy(*(plain(n, f"{n:x}" + "/a" * 2000) for n in range(240)))


def wide() -> list[Entry]:
    return noisy(*(plain(n, f"{n:x}\U0001f40d" + "a" * 4000) for n in range(240)))


def linked() -> list[Entry]:
    return noisy(*(Entry(Kind.ROOTFS, FileType.HARDLINK, f"{n:x}", link=f"x{n:x}") for n in range(18_000)))


def attributes() -> list[Entry]:
    pairs = tuple((f"{n:x}", b"") for n in range(60_000))
    return noisy(Entry(Kind.ROOTFS, FileType.REGULAR, "a", xattrs=pairs))


def wide_attributes() -> list[Entry]:
    pairs = tuple((f"{n:x}\U0001f40d" + "a" * 240, b"") for n in range(3500))
    return noisy(Entry(Kind.ROOTFS, FileType.REGULAR, "a", xattrs=pairs))


def chunks() -> fmt.Records:
    found = np.zeros(fmt.MAX_SEGMENT // fmt.CHUNK.itemsize, fmt.CHUNK)
    found["stored"] = found["raw"] = 4096
    found["hash"][:1100] = np.frombuffer(NOISE, "V32", 1100)
    return found


def extents() -> fmt.Records:
    found = np.zeros(fmt.MAX_SEGMENT // fmt.EXTENT.itemsize, fmt.EXTENT)
    found["offset"], found["length"], found["chunk"] = np.arange(len(found)) * 4096, 4096, fmt.ZEROS
    found["inner"][:9000] = np.frombuffer(NOISE, "<u4", 9000)
    return found


KINDS = (small, deep, wide, linked, attributes, wide_attributes, chunks, extents)


def hostile(records: list[Entry] | fmt.Records, path: Path, *, within: bool) -> Descriptor:
    """An index of SIZE bytes with as many copies of a segment of these records as fit into it, and padding.

    `within`: no more of them than a reader takes by what the root says.
    """
    if isinstance(records, list):
        kind, data = fmt.RecordType.FILES, b"".join(map(files.encode, records))
    else:
        kind = fmt.RecordType.CHUNKS if records.dtype == fmt.CHUNK else fmt.RecordType.EXTENTS
        data = records.tobytes()
    stored = zstandard.ZstdCompressor(level=3, write_content_size=True).compress(data)
    codec = fmt.ZSTD
    if len(stored) * fmt.MAX_RATIO < len(data):
        codec, stored = fmt.RAW, data
    copies = min(SIZE // len(stored), fmt.MAX_RECORDS[kind] // len(records))
    digest = bytes.fromhex(digest_of(stored)[7:])
    rows = [
        fmt.Segment(kind, codec, len(records), n * len(stored), len(stored), len(data), digest) for n in range(copies)
    ]
    if within:
        copies = min(copies, (fmt.FREE_MEMORY + fmt.MEMORY_RATIO * SIZE) // fmt.memory(rows[:1]))
    counts = [0, 0, 0]
    counts[kind] = copies * len(records)
    packs = (Descriptor(Kind.ROOTFS.media_type, digest_of(b"pack"), 1 << 40),)
    total, none = fmt.Counts(*counts), fmt.Counts(0, 0, 0)
    root = fmt.Root(4096, 65536, packs, tuple(rows[:copies]), total, none).to_bytes()
    end = max(SIZE - len(root), copies * len(stored))
    place = fmt.Place(end, len(root), digest_of(root), end)
    blob = (stored * copies).ljust(end, b"\0") + root
    path.write_bytes(blob)
    return Descriptor(names.INDEX_TYPE, digest_of(blob), len(blob), place.annotations())


@pytest.mark.parametrize("records", KINDS)
@pytest.mark.parametrize("within", [False, True], ids=["all that fits", "all that is taken"])
def test_memory_in_proportion_to_the_blob(tmp_path: Path, records: object, within: bool) -> None:
    made = records()  # type: ignore[operator]
    blob = hostile(made, tmp_path / "index", within=within)
    assert blob.size <= SIZE + (1 << 20)
    size, result = peak(tmp_path / "index", blob)
    assert "Memory" not in result
    assert size < BOUND, result
    assert ("says that it holds more" in result) <= (not within)


NONE = Part([], np.empty(0, fmt.CHUNK), np.empty(0, fmt.EXTENT))


def write(entries: list[Entry], extents: fmt.Records = NONE.extents) -> tuple[MemoryStore, Descriptor]:
    store = MemoryStore()
    rest = Part(entries, NONE.chunks, extents)
    return store, write_index(store, page_size=4096, chunk_size=65536, packs=(), boot=NONE, rest=rest)


def codecs(store: MemoryStore, blob: Descriptor) -> dict[fmt.RecordType, set[int]]:
    place = fmt.Place.of(blob)
    found: dict[fmt.RecordType, set[int]] = {}
    for segment in fmt.Root.from_bytes(store.blobs[blob.digest][place.offset :], place.offset).segments:
        found.setdefault(segment.type, set()).add(segment.codec)
    return found


def tree(count: int) -> list[Entry]:
    return [plain(n, f"usr/lib/python3/{n >> 12}/package-{n >> 5}/module-{n}.py") for n in range(count)]


def test_many_files_are_taken_as_they_are() -> None:
    entries = tree(70_000)
    store, blob = write(entries)
    assert codecs(store, blob) == {fmt.RecordType.FILES: {fmt.ZSTD}}
    begin = time.monotonic()
    assert Index.load(store, blob).files == entries
    assert time.monotonic() - begin < 10


def test_what_compresses_too_well_is_stored_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fmt, "FREE_MEMORY", 0)
    entries = tree(5000)
    store, blob = write(entries)
    assert codecs(store, blob) == {fmt.RecordType.FILES: {fmt.RAW}}
    assert Index.load(store, blob).files == entries
    zeros = np.zeros(200_000, fmt.EXTENT)
    zeros["offset"] = np.cumsum(np.random.default_rng(1).integers(2, 200, 200_000)) * 4096
    zeros["length"], zeros["chunk"] = 4096, fmt.ZEROS
    memory = [Entry(Kind.MEMORY, FileType.PAGES, "checkpoint/pagemap-1.img")]
    store, blob = write(memory, zeros)
    assert codecs(store, blob) == {fmt.RecordType.FILES: {fmt.RAW}, fmt.RecordType.EXTENTS: {fmt.RAW}}
    assert len(Index.load(store, blob).extents) == 200_000
    assert store.open == 0


def test_what_no_reader_would_take_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fmt, "FREE_MEMORY", 0)
    with pytest.raises(UnsupportedError, match="too much memory"):
        write(attributes())


def test_deep_paths_take_no_more_time_than_their_length() -> None:
    entries = [plain(n, f"{n:x}" + "/a" * 2000) for n in range(3000)]
    begin = time.monotonic()
    files.Tree().add_all(entries)
    assert time.monotonic() - begin < 5


@pytest.mark.parametrize("between", ["", "!", "a", "a/b", "\udc80"])
def test_what_lies_below_a_file_is_found_wherever_it_stands(between: str) -> None:
    """Names that sort before and after a slash are there, too."""
    around = [plain(n, f"x{name}") for n, name in enumerate(("!", "-", ".", "0", "\udcff", "!/y", "0/y"))]
    directories = [Entry(Kind.ROOTFS, FileType.DIRECTORY, each.path) for each in around if "/" not in each.path]
    for below in (f"x/{between}y", f"x/{between}/y" if between else "x/z"):
        for entries in ([plain(0, "x"), plain(1, below)], [plain(1, below), plain(0, "x")]):
            with pytest.raises(IntegrityError, match="lies below 'x', which is not a directory"):
                files.Tree().add_all([*directories, *entries, *(each for each in around if "/" in each.path)])
        files.Tree().add_all([*directories, Entry(Kind.VOLUME, FileType.REGULAR, "x"), plain(1, below)])
