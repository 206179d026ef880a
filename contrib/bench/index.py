"""How long an index of a million chunks takes to write and to load, how much memory, and how large it is.

Run from the top of the checkout: ``python contrib/bench/index.py [CHUNKS [FILES]]``; with FILES there are so many
files of a root file system beside the memory, of which each has a chunk as long as there are some. Each half runs in a
process of its own.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ocickpt.model import Descriptor, Entry, FileType, Kind, digest_of
from ocickpt.pack import format as fmt
from ocickpt.pack.index import Index
from ocickpt.pack.writer import Part, write_index

RAW = 64 << 10
PACKS = 298


class FileSpool:
    """A spool and a source of one blob, kept in a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def new_blob(self) -> FileWriter:
        """An empty blob."""
        return FileWriter(self.path)

    def read_at(self, blob: Descriptor, offset: int, length: int) -> bytes:
        """`length` bytes at `offset`."""
        if offset + length > blob.size:
            raise ValueError("the blob is shorter than that")
        with self.path.open("rb") as file:
            return os.pread(file.fileno(), length, offset)

    def open_blob(self, blob: Descriptor) -> AbstractContextManager[BinaryIO]:
        """Not needed here."""
        raise NotImplementedError(blob.digest)


class FileWriter:
    """Writes the file; its digest is of no interest here."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Append."""
        return self._file.write(data)

    def commit(self, media_type: str, annotations: Mapping[str, str] = {}) -> Descriptor:
        """Describe it."""
        size = self._file.tell()
        self._file.close()
        return Descriptor(media_type, digest_of(b""), size, annotations)

    def discard(self) -> None:
        """Nothing to do."""
        self._file.close()


def records(count: int) -> tuple[list[Descriptor], fmt.Records, fmt.Records]:
    """Packs, chunks and extents of memory in `count` windows, half of it incompressible."""
    random = np.random.default_rng(1)
    chunks, extents = np.zeros(count, fmt.CHUNK), np.zeros(count, fmt.EXTENT)
    stored = random.integers(20_000, RAW, count)
    per_pack = -(-count // PACKS)
    number = np.arange(count)
    place = np.cumsum(stored) - stored
    chunks["pack"] = number // per_pack
    chunks["offset"] = place - place[number // per_pack * per_pack]
    chunks["stored"], chunks["raw"] = stored, RAW
    chunks["hash"] = np.frombuffer(random.bytes(32 * count), "V32")
    extents["offset"] = (0x7F << 40) + number * RAW
    extents["chunk"], extents["length"] = number, RAW
    sizes = np.bincount(number // per_pack, weights=stored).astype(int).tolist()
    packs = [Descriptor(Kind.MEMORY.media_type, digest_of(b"%d" % n), size) for n, size in enumerate(sizes)]
    return packs, chunks, extents


def rss(field: str = "VmHWM") -> int:
    """Memory of this process in MiB: its peak, or what it takes now (VmRSS)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) >> 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def tree(count: int, extents: fmt.Records) -> list[Entry]:
    """`count` files like those of a volume; the last of `extents` become theirs."""
    random = np.random.default_rng(2)
    sizes, times = random.integers(1, RAW, count).tolist(), random.integers(1 << 60, 1 << 61, count).tolist()
    found = [
        Entry(Kind.ROOTFS, FileType.REGULAR, f"usr/lib/python3/{n >> 12}/package-{n >> 5}/module-{n}.py", 0o644,
              mtime=times[n], size=sizes[n])
        for n in range(count)
    ]  # fmt: skip
    if own := min(count, len(extents) - 1):
        last = extents[-own:]
        last["file"], last["offset"], last["length"] = np.arange(1, own + 1), 0, sizes[:own]
    return found


def write(path: Path, count: int, more: int) -> None:
    """Write an index of `count` chunks and `more` files; its descriptor goes beside it."""
    packs, chunks, extents = records(count)
    files = [Entry(Kind.MEMORY, FileType.PAGES, "checkpoint/pagemap-1.img"), *tree(more, extents)]
    if own := min(more, count - 1):
        rootfs = Descriptor(Kind.ROOTFS.media_type, digest_of(b"rootfs"), own * RAW)
        chunks["pack"][-own:], chunks["offset"][-own:] = len(packs), np.arange(own) * RAW
        packs.append(rootfs)
    none = Part([], np.empty(0, fmt.CHUNK), np.empty(0, fmt.EXTENT))
    begin = time.perf_counter()
    blob = write_index(
        FileSpool(path), page_size=4096, chunk_size=RAW, packs=packs, boot=none, rest=Part(files, chunks, extents)
    )
    seconds = time.perf_counter() - begin
    path.with_suffix(".json").write_text(json.dumps(blob.to_json()))
    print(
        f"write {count} chunks, {more} files: {seconds:.2f} s, peak {rss()} MiB, {blob.size / count:.1f} bytes a chunk"
    )


def load(path: Path, count: int, more: int) -> None:
    """Load it, fully validated."""
    blob = Descriptor.from_json(json.loads(path.with_suffix(".json").read_text()))
    begin = time.perf_counter()
    index = Index.load(FileSpool(path), blob)
    seconds = time.perf_counter() - begin
    if len(index.chunks) != count:
        raise SystemExit("the index is not what was written")
    print(f"load  {count} chunks, {more} files: {seconds:.2f} s, peak {rss()} MiB, {rss('VmRSS')} MiB afterwards")


def main() -> None:
    """Both halves."""
    if len(sys.argv) == 5:
        (write if sys.argv[1] == "write" else load)(Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
        return
    count = sys.argv[1] if len(sys.argv) > 1 else "1000000"
    more = sys.argv[2] if len(sys.argv) > 2 else "0"
    with tempfile.TemporaryDirectory() as folder:
        for half in ("write", "load"):
            subprocess.run([sys.executable, __file__, half, f"{folder}/index", count, more], check=True)


if __name__ == "__main__":
    main()
