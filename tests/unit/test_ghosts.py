"""Deleted files that a container has open are asked for their size before CRIU saves them."""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ocickpt.artifact import parts
from ocickpt.engine import freezer
from ocickpt.errors import UnsupportedError
from ocickpt.gate import confinement
from ocickpt.save import unrestorable

SIZE = 1 << 20


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Asks it of this process; less than that size is taken."""
    monkeypatch.setattr(parts, "SMALL_LIMIT", SIZE)
    monkeypatch.setattr(freezer, "tree", lambda _: [os.getpid(), 2**22 + 1])
    monkeypatch.setattr(confinement, "specification", lambda _: None)
    subject: Any = SimpleNamespace(name="web", pid=os.getpid(), bundle=tmp_path, shm=tmp_path / "shm")
    return lambda: unrestorable.check_again(subject)


@pytest.fixture
def deleted(tmp_path: Path) -> Iterator[int]:
    """An open file without a name."""
    handle = os.open(tmp_path / "gone", os.O_RDWR | os.O_CREAT)
    (tmp_path / "gone").unlink()
    yield handle
    os.close(handle)


def test_one_that_is_too_large(check: Any, deleted: int) -> None:
    check()
    os.write(deleted, b"x" * (SIZE // 2))
    check()
    os.write(deleted, b"x" * SIZE)
    with pytest.raises(UnsupportedError, match=r"'web' has .*/gone open, a deleted file of more than 64 MiB"):
        check()


def test_one_that_is_only_mapped(check: Any, tmp_path: Path) -> None:
    path = tmp_path / "gone"
    path.write_bytes(b"x" * 2 * SIZE)
    libc = ctypes.CDLL(None)  # what `mmap` maps it keeps open
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long)
    with path.open("rb") as file:
        address = libc.mmap(None, 2 * SIZE, mmap.PROT_READ, mmap.MAP_PRIVATE, file.fileno(), 0)
    path.unlink()
    try:
        with pytest.raises(UnsupportedError):
            check()
    finally:
        libc.munmap(ctypes.c_void_p(address), ctypes.c_size_t(2 * SIZE))
    check()


def test_holes_are_not_saved(check: Any, deleted: int) -> None:
    os.truncate(deleted, 100 * SIZE)
    check()


def test_what_has_a_name_and_what_is_memory(check: Any, tmp_path: Path) -> None:
    with (tmp_path / "there").open("wb") as file, os.fdopen(os.memfd_create("memory"), "wb") as memory:
        for each in (file, memory):
            each.write(b"x" * 2 * SIZE)
            each.flush()
        with mmap.mmap(-1, 2 * SIZE) as shared:
            shared.write(b"x" * 2 * SIZE)
            check()
