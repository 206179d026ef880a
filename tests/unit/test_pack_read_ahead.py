"""Chunks one after the other, and those that somebody waits for before all others."""

from __future__ import annotations

import errno
import os
import random
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ocickpt.errors import IntegrityError
from ocickpt.model import Descriptor
from ocickpt.pack import read_ahead
from ocickpt.pack.index import Index
from ocickpt.pack.read_ahead import ReadAhead
from tests.unit.test_pack_support import MemoryStore, pack, pages

CHUNK = 64 << 10
STORED = CHUNK + 100
RANGE = 4
CHUNKS = 28 * RANGE
CONTENT = random.Random(1).randbytes(CHUNKS * CHUNK)


class Source(MemoryStore):
    """Knows what was read by the thread that waits, as (chunk, chunks); holds up the others until it is `open_`."""

    def __init__(self) -> None:
        super().__init__()
        self.waited: list[tuple[int, int]] = []
        self.others = 0
        self.open_ = threading.Event()
        self.open_.set()
        self.broken = 0

    def read_at(self, blob: Descriptor, offset: int, length: int) -> bytes:
        if threading.current_thread() is threading.main_thread():
            self.waited.append((offset // CHUNK, round(length / CHUNK)))
            if self.broken:
                self.broken -= 1
                raise IntegrityError("the blob is broken")
        else:
            self.others += 1
            assert self.open_.wait(10)
        return super().read_at(blob, offset, length)


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def chunks(source: Source, monkeypatch: pytest.MonkeyPatch) -> Iterator[ReadAhead]:
    monkeypatch.setattr(read_ahead, "RANGE", RANGE * STORED)
    monkeypatch.setattr(read_ahead, "ALONE", 2)
    packed = pack(source, [pages("checkpoint/pagemap-1.img", {0: CONTENT})], pack_size=CHUNKS * STORED)
    index = Index.load(source, packed.index)
    source.waited.clear()
    with ReadAhead(index, source, np.arange(CHUNKS, dtype=np.uint32)) as made:
        yield made
        source.open_.set()


def of(number: int) -> bytes:
    return CONTENT[number * CHUNK : (number + 1) * CHUNK]


def test_one_after_the_other(source: Source, chunks: ReadAhead) -> None:
    for number in range(CHUNKS):
        assert chunks.get(number) == of(number)
    assert source.waited[0] == (0, RANGE)
    assert source.others + len(source.waited) == CHUNKS // RANGE


def test_who_waits_does_not_wait_for_others(source: Source, chunks: ReadAhead) -> None:
    source.open_.clear()
    chunks.get(0)
    source.waited.clear()
    # What comes next comes in the background, which stands still.
    assert chunks.get(101, alone=True) == of(101)
    assert chunks.get(101, alone=True) == of(101)
    assert source.waited == [(101, 1)]
    assert chunks.get(102, alone=True) == of(102)
    assert chunks.get(103, alone=True) == of(103)
    assert source.waited == [(101, 1), (102, 1), (100, RANGE)]
    # Of the four ranges after the first, two threads are at work on two.
    assert chunks.get(4 * RANGE, alone=True) == of(4 * RANGE)
    assert source.waited[-1] == (4 * RANGE, RANGE)


def test_only_what_came_in_ranges_is_counted(source: Source) -> None:
    told: list[int] = []
    packed = pack(source, [pages("checkpoint/pagemap-1.img", {0: CONTENT})], pack_size=CHUNKS * STORED)
    index = Index.load(source, packed.index)
    with ReadAhead(index, source, np.arange(CHUNKS, dtype=np.uint32), fetched=told.append) as made:
        for number in (90, 3, 111):
            made.get(number, alone=True)
        assert told == []
        for number in range(CHUNKS):
            made.get(number)
    assert sum(told) == sum(int(stored) for stored in index.chunks["stored"])


def test_what_is_wanted_again_and_again_is_fetched_once(
    source: Source, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Every fourth chunk has pages from everywhere; few ranges are kept."""
    monkeypatch.setattr(read_ahead, "RANGE", RANGE * STORED)
    monkeypatch.setattr(read_ahead, "KEPT", read_ahead.AHEAD + 1)
    (tmp_path / "kept").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "kept"))
    packed = pack(source, [pages("checkpoint/pagemap-1.img", {0: CONTENT})], pack_size=CHUNKS * STORED)
    index, told = Index.load(source, packed.index), list[int]()
    numbers = np.arange(CHUNKS, dtype=np.uint32)
    with ReadAhead(index, source, numbers, again=numbers % 4 == 0, most=len(CONTENT), fetched=told.append) as made:
        for number in range(0, CHUNKS, 4):
            made.get(number)
        source.waited.clear()
        source.others = 0
        for number in reversed(range(0, CHUNKS, 4)):
            assert made.get(number) == made.get(number, alone=True) == of(number)
        assert (source.waited, source.others) == ([], 0)
        assert sum(told) == sum(int(stored) for stored in index.chunks["stored"])
    assert not [*(tmp_path / "kept").iterdir()]


@pytest.mark.parametrize("trouble", ["no directory", "full", "half full", "unreadable", "more than there should be"])
def test_what_cannot_be_kept_is_fetched_again(source: Source, monkeypatch: pytest.MonkeyPatch, trouble: str) -> None:
    """A container whose memory follows does not end for want of room beside it."""
    index = Index.load(source, pack(source, [pages("checkpoint/pagemap-1.img", {0: CONTENT})]).index)
    numbers = np.arange(CHUNKS, dtype=np.uint32)
    monkeypatch.setattr(read_ahead, "KEPT", 2)

    def fails(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left")

    match trouble:
        case "no directory":
            monkeypatch.setenv("TMPDIR", "/nowhere")
        case "full":
            monkeypatch.setattr(os, "pwrite", fails)
        case "half full":
            pwrite = os.pwrite
            monkeypatch.setattr(os, "pwrite", lambda file, data, at: pwrite(file, data[: CHUNK // 2], at))
        case "unreadable":
            monkeypatch.setattr(os, "pread", fails)
    most = 3 * CHUNK if trouble == "more than there should be" else len(CONTENT)
    with ReadAhead(index, source, numbers, again=numbers >= 0, most=most) as made:
        for number in (*range(CHUNKS), *reversed(range(CHUNKS))):
            assert made.get(number) == of(number)
        assert made._again._file < 0 or os.fstat(made._again._file).st_size <= most


@pytest.mark.parametrize("alone", [True, False])
def test_what_failed_is_tried_again(source: Source, chunks: ReadAhead, alone: bool) -> None:
    source.broken = 2
    for _ in range(2):
        with pytest.raises(IntegrityError, match="broken"):
            chunks.get(50, alone=alone)
    assert chunks.get(50, alone=alone) == of(50)


def test_a_range_that_failed_in_the_background_is_tried_again(
    source: Source, chunks: ReadAhead, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, failed = Source.read_at, threading.Event()

    def broken(self: Source, blob: Descriptor, offset: int, length: int) -> bytes:
        if threading.current_thread() is not threading.main_thread():
            failed.set()
            raise IntegrityError("the blob is broken")
        return real(self, blob, offset, length)

    monkeypatch.setattr(Source, "read_at", broken)
    chunks.get(0)
    assert failed.wait(10)
    with pytest.raises(IntegrityError, match="broken"):
        chunks.get(RANGE)
    assert chunks.get(RANGE) == of(RANGE)


def test_little_is_kept(source: Source, chunks: ReadAhead, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_ahead, "SINGLE", 3)
    monkeypatch.setattr(read_ahead, "KEPT", 2)
    for number in range(0, CHUNKS, RANGE):
        assert chunks.get(number, alone=True) == of(number)
    assert len(chunks._single) == 3
    for number in range(CHUNKS):
        chunks.get(number)
    assert len(chunks._held) == 2
    assert len(chunks._coming) <= 2
