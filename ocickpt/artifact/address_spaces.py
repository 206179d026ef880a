"""The memory of a checkpoint by (pagemap image, virtual address).

Some of it must be there before a process runs, the rest may follow.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from ocickpt.errors import IntegrityError
from ocickpt.memory.pagemap import PE_LAZY, PE_PRESENT, PageMap
from ocickpt.model import BlobSource, Kind, Run
from ocickpt.pack import format as fmt
from ocickpt.pack.index import Index
from ocickpt.pack.read_ahead import ReadAhead

_PROCESS = re.compile(r"checkpoint/pagemap-(\d+)\.img")
_MOST = 1 << 20
"""An answer of more would keep the processes that wait for a page waiting."""
_SHORT = 64 << 10
"""CRIU asks for less when a process waits for a page; what it brings in the background begins with so much, and grows
(DEFAULT_XFER_LEN in criu/uffd.c)."""
_FAR = 1 << 20
"""Who asks for memory in the order of its addresses is done with a chunk after so many bytes, or comes back to it."""


def is_lazy(name: str) -> bool:
    """Whether the memory of this pagemap can follow at all: that of a process can, shared memory cannot."""
    return bool(_PROCESS.fullmatch(name))


def divide(name: str, pagemap: PageMap) -> tuple[list[Run], list[Run]]:
    """The present memory of a pagemap: what must be there before the process runs, and what may follow."""
    eager: list[Run] = []
    later: list[Run] = []
    for entry in pagemap.entries:
        if entry.flags & PE_PRESENT:
            runs = later if is_lazy(name) and entry.flags & PE_LAZY else eager
            length = entry.pages * pagemap.page_size
            if runs and runs[-1].offset + runs[-1].length == entry.address:
                runs[-1] = Run(runs[-1].offset, runs[-1].length + length)
            else:
                runs.append(Run(entry.address, length))
    return eager, later


def covered(extents: fmt.Records, pagemap: PageMap) -> int:
    """How many bytes of `pagemap` these extents of one file cover; IntegrityError when they hold anything else."""
    runs = pagemap.runs()
    starts = np.array([run.offset for run in runs], np.uint64)
    ends = starts + np.array([run.length for run in runs], np.uint64)
    if not len(extents):
        return 0
    run = np.searchsorted(starts, extents["offset"], side="right").astype(np.int64) - 1
    if not len(runs) or (run < 0).any() or (extents["offset"] + extents["length"] > ends[run]).any():
        raise IntegrityError("the checkpoint has memory that its pagemap does not know")
    return int(extents["length"].sum())


def read_runs(index: Index, source: BlobSource, number: int, runs: list[Run]) -> Iterator[tuple[int, memoryview]]:
    """The memory in `runs` of PAGES file `number` as (address, data), zeros left out."""
    extents = index.extents_of(number)
    addresses = np.ascontiguousarray(extents["offset"])
    wanted: list[tuple[int, int, int, int]] = []
    for run in runs:
        at = max(int(np.searchsorted(addresses, np.uint64(run.offset), side="right")) - 1, 0)
        while at < len(extents) and int(extents[at]["offset"]) < run.offset + run.length:
            offset, chunk, inner, size = (int(extents[at][name]) for name in ("offset", "chunk", "inner", "length"))
            begin, end = max(offset, run.offset), min(offset + size, run.offset + run.length)
            if begin < end and chunk != fmt.ZEROS:
                wanted.append((begin, chunk, inner + begin - offset, end - begin))
            at += 1
    with ReadAhead(index, source, np.array([chunk for _, chunk, _, _ in wanted], np.uint32)) as chunks:
        for address, chunk, inner, length in wanted:
            yield address, memoryview(chunks.get(chunk))[inner : inner + length]


class AddressSpaces:
    """Answers the page server. A context manager."""

    def __init__(self, index: Index, source: BlobSource, fetched: Callable[[int], None]) -> None:
        self._spaces: dict[int, tuple[fmt.Records, npt.NDArray[np.uint64]]] = {}
        """The extents of each process's memory, and their addresses once more: side by side they are found quickly."""
        self._zeros = memoryview(bytes(_MOST))
        wanted: list[npt.NDArray[np.uint32]] = []
        for number, entry in index.files_of(Kind.MEMORY):
            if found := _PROCESS.fullmatch(entry.path):
                extents = index.extents_of(number)
                self._spaces[int(found[1])] = extents, np.ascontiguousarray(extents["offset"])
                chunks = np.ascontiguousarray(extents["chunk"])
                wanted.append(chunks[chunks != fmt.ZEROS])
        numbers = np.concatenate(wanted) if wanted else np.zeros(0, np.uint32)
        # No more than there is memory, whatever the chunks hold beside it.
        most = sum(int(extents["length"].sum()) for extents, _ in self._spaces.values())
        again = self._scattered(len(index.chunks))
        self._chunks = ReadAhead(index, source, numbers, again=again, most=most, fetched=fetched)

    def _scattered(self, chunks: int) -> npt.NDArray[np.bool_]:
        """For each chunk of the index whether its pages lie far apart, or in several address spaces."""
        first, last = np.full(chunks, np.iinfo(np.uint64).max, np.uint64), np.zeros(chunks, np.uint64)
        for number, (extents, _) in enumerate(self._spaces.values()):
            real = extents["chunk"] != fmt.ZEROS
            chunk, place = extents["chunk"][real], extents["offset"][real] + (np.uint64(number) << np.uint64(48))
            np.minimum.at(first, chunk, place)
            np.maximum.at(last, chunk, place)
        return (first < last) & (last - first > _FAR)

    def __enter__(self) -> AddressSpaces:
        return self

    def __exit__(self, *error: object) -> None:
        self._chunks.__exit__(*error)

    def read(self, image: int, address: int, length: int) -> list[memoryview]:
        """The memory of process `image` from `address` on: `length` bytes at most, up to a gap, up to 1 MiB."""
        if image not in self._spaces:
            raise IntegrityError(f"there is no memory of process {image} in the checkpoint")
        extents, addresses = self._spaces[image]
        at = int(np.searchsorted(addresses, np.uint64(address), side="right")) - 1
        end, found = address + min(length, _MOST), list[memoryview]()
        while at >= 0 and at < len(extents) and address < end:
            _, offset, chunk, inner, size = extents[at].item()
            if not offset <= address < offset + size:
                break
            skip, take = address - offset, min(end, offset + size) - address
            data = self._zeros if chunk == fmt.ZEROS else memoryview(self._chunks.get(chunk, alone=length < _SHORT))
            found.append(data[:take] if chunk == fmt.ZEROS else data[inner + skip : inner + skip + take])
            address, at = address + take, at + 1
        if not found:
            raise IntegrityError(f"address {address:#x} of process {image} is not in the checkpoint")
        return found
