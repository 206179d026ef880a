"""Artifacts and trees that want to write, read or remove something outside."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ocickpt.engine.files import openat2 as openat2_module
from ocickpt.engine.files.openat2 import openat2
from ocickpt.engine.files.tree import TreeWriter
from ocickpt.errors import IntegrityError, OcickptError, PrerequisiteError, StorageError
from ocickpt.model import Entry, FileType, Kind

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="owners, devices and mounts need root")
pytestmark = needs_root


def entry(type_: FileType, path: str, size: int = 0, link: str = "", mode: int = 0o755, **numbers: int) -> Entry:
    return replace(Entry(Kind.ROOTFS, type_, path, mode=mode, size=size, link=link), **numbers)  # type: ignore[arg-type]


def apply(root: Path, *entries: Entry, data: bytes = b"", strip: str = "") -> None:
    with TreeWriter(root) as writer:
        writer.prepare(list(enumerate(entries)), strip=strip)
        for number, made in enumerate(entries):
            if made.type is FileType.REGULAR and made.size:
                writer.write(number, 0, data[: made.size])
        writer.finish()


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """A directory next to the root, which must be the same afterwards."""
    outside = tmp_path / "outside"
    (outside / "dir").mkdir(parents=True)
    (outside / "file").write_text("precious")
    (outside / "dir" / "file").write_text("precious")
    before = [(path, path.lstat(), path.is_file() and path.read_text()) for path in sorted(outside.rglob("*"))]
    yield outside
    after = [(path, path.lstat(), path.is_file() and path.read_text()) for path in sorted(outside.rglob("*"))]
    assert [(a, b.st_mtime_ns, b.st_mode, b.st_uid, c) for a, b, c in after] == [
        (a, b.st_mtime_ns, b.st_mode, b.st_uid, c) for a, b, c in before
    ]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    root.mkdir()
    return root


def test_a_planted_symlink_to_the_host_stays_in_the_root(root: Path, outside: Path) -> None:
    (root / "a").symlink_to("/")
    apply(root, entry(FileType.REGULAR, "a/etc/ocickpt-test", size=3), data=b"abc")
    assert (root / "etc" / "ocickpt-test").read_bytes() == b"abc"
    assert not Path("/etc/ocickpt-test").exists()
    (root / "b").symlink_to(outside)
    apply(root, entry(FileType.REGULAR, "b/file", size=3), data=b"abc")
    (root / "c").symlink_to("../outside")
    apply(root, entry(FileType.REGULAR, "c/dir/file", size=3), data=b"abc")


def test_a_symlink_in_the_place_of_a_file_or_directory_is_replaced(root: Path, outside: Path) -> None:
    for name in ("file", "dir", "opaque", "fifo", "link"):
        (root / name).symlink_to(outside / "dir")
    apply(
        root,
        entry(FileType.REGULAR, "file", size=3),
        entry(FileType.DIRECTORY, "dir", mode=0o700),
        entry(FileType.REGULAR, "dir/file", size=2),
        entry(FileType.OPAQUE, "opaque"),
        entry(FileType.FIFO, "fifo"),
        entry(FileType.HARDLINK, "link", link="file"),
        data=b"abc",
    )
    assert (root / "file").read_bytes() == b"abc"
    assert not (root / "dir").is_symlink()
    assert (root / "dir" / "file").read_bytes() == b"ab"
    assert not list((root / "opaque").iterdir())
    assert stat.S_ISFIFO((root / "fifo").lstat().st_mode)
    assert (root / "link").stat().st_nlink == 2


def test_whiteouts_remove_the_symlink_and_not_its_target(root: Path, outside: Path) -> None:
    (root / "gone").symlink_to(outside)
    (root / "deep" / "er").mkdir(parents=True)
    (root / "deep" / "er" / "out").symlink_to(outside)
    (root / "through").symlink_to(outside)
    apply(
        root,
        entry(FileType.WHITEOUT, "gone"),
        entry(FileType.WHITEOUT, "deep"),
        entry(FileType.WHITEOUT, "through/file"),
        entry(FileType.WHITEOUT, "not/there"),
    )
    assert [path.name for path in root.iterdir()] == ["through"]


def test_a_symlink_of_the_artifact_leads_nobody_outside(root: Path, outside: Path) -> None:
    """The entry makes the link itself, a later entry wants to go through it."""
    with pytest.raises(IntegrityError, match="inside of what is no directory"):
        apply(root, entry(FileType.SYMLINK, "a", link=str(outside)), entry(FileType.REGULAR, "a/file", size=1))
    apply(root, entry(FileType.SYMLINK, "a", link=str(outside)))
    apply(root, entry(FileType.REGULAR, "a/file", size=3), data=b"abc")
    assert (root / "a" / "file").read_bytes() == b"abc"


def test_hard_links_only_to_what_was_made(root: Path, outside: Path) -> None:
    (root / "theirs").write_text("the image's")
    for link in ("theirs", "missing", "../outside/file", "/etc/passwd", "self"):
        with pytest.raises(IntegrityError):
            apply(root, entry(FileType.HARDLINK, "self", link=link))
    apply(
        root, entry(FileType.SYMLINK, "way", link=str(outside / "file")), entry(FileType.HARDLINK, "self", link="way")
    )
    assert (root / "self").is_symlink()


@pytest.mark.parametrize(
    "path",
    ["", "/etc/passwd", "../outside/file", "a/../../outside/file", "a//b", "./a", "a/", "a/.", "a\0b", "..", "\ud800"],
)
@pytest.mark.parametrize("type_", [FileType.REGULAR, FileType.WHITEOUT, FileType.OPAQUE, FileType.HARDLINK])
def test_paths_that_are_none(root: Path, outside: Path, path: str, type_: FileType) -> None:
    with pytest.raises(IntegrityError):
        apply(root, entry(FileType.REGULAR, "ok"), entry(type_, path, link="ok"))
    assert not list(root.iterdir())


@pytest.mark.parametrize(
    "bad",
    [
        entry(FileType.REGULAR, "."),
        entry(FileType.WHITEOUT, "."),
        entry(FileType.PAGES, "checkpoint/pagemap-1.img"),
        entry(FileType.SYMLINK, "a"),
        entry(FileType.SYMLINK, "a", link="x\0y"),
        entry(FileType.FIFO, "a", size=1),
        entry(FileType.REGULAR, "a", size=-1),
        entry(FileType.REGULAR, "a", uid=-1),
        entry(FileType.REGULAR, "a", gid=(1 << 32) - 1),
        entry(FileType.REGULAR, "a", mtime=1 << 63),
        entry(FileType.BLOCK, "a", major=1 << 12),
        entry(FileType.CHARACTER, "a", minor=-1),
        Entry(Kind.ROOTFS, FileType.REGULAR, "a", xattrs=(("trusted.overlay.redirect", b"/etc"),)),
        Entry(Kind.ROOTFS, FileType.REGULAR, "a", xattrs=(("security.selinux", b"unconfined_t"),)),
        Entry(Kind.ROOTFS, FileType.REGULAR, "a", xattrs=(("user.x", b"x" * 65537),)),
    ],
)
def test_entries_that_cannot_be_are_refused_before_anything_is_touched(root: Path, bad: Entry) -> None:
    (root / "kept").touch()
    with pytest.raises(IntegrityError):
        apply(root, entry(FileType.WHITEOUT, "kept"), entry(FileType.REGULAR, "first"), bad)
    assert [path.name for path in root.iterdir()] == ["kept"]


def test_paths_that_come_twice(root: Path) -> None:
    with pytest.raises(IntegrityError, match="twice"):
        apply(root, entry(FileType.REGULAR, "a"), entry(FileType.SYMLINK, "a", link="/etc/passwd"))
    apply(root, entry(FileType.WHITEOUT, "a"), entry(FileType.DIRECTORY, "a"))
    assert (root / "a").is_dir()


def test_a_prefix_must_be_there(root: Path) -> None:
    apply(root, entry(FileType.DIRECTORY, "data", mode=0o700), entry(FileType.FIFO, "data/x"), strip="data")
    assert (root / "x").is_fifo()
    assert stat.S_IMODE(root.stat().st_mode) == 0o700
    for path in ("database", "other/x", "data/../x"):
        with pytest.raises(IntegrityError):
            apply(root, entry(FileType.FIFO, path), strip="data")


def test_data_outside_of_a_file(root: Path) -> None:
    with TreeWriter(root) as writer:
        writer.prepare([(5, entry(FileType.REGULAR, "a", size=10)), (6, entry(FileType.DIRECTORY, "d"))])
        writer.write(5, 9, b"x")
        for number, offset, data in ((5, 10, b"x"), (5, -1, b"x"), (5, 0, b"x" * 11), (6, 0, b"x"), (7, 0, b"x")):
            with pytest.raises(IntegrityError):
                writer.write(number, offset, data)


def test_a_file_that_is_swapped_under_us_is_not_written(root: Path, outside: Path) -> None:
    with TreeWriter(root) as writer:
        writer.prepare([(0, entry(FileType.REGULAR, "a", size=10)), (1, entry(FileType.REGULAR, "b", size=10))])
        (root / "a").unlink()
        (root / "a").symlink_to(outside / "file")
        with pytest.raises(IntegrityError):
            writer.write(0, 0, b"x")
        (root / "b").unlink()
        (root / "b").hardlink_to(outside / "file")
        with pytest.raises(IntegrityError, match="not the file"):
            writer.write(1, 0, b"x")


@pytest.fixture
def mounted(root: Path, outside: Path) -> Iterator[Path]:
    (root / "mnt").mkdir()
    subprocess.run(["mount", "--bind", outside, root / "mnt"], check=True)
    yield root / "mnt"
    subprocess.run(["umount", root / "mnt"], check=True)


@pytest.mark.lab
def test_mounts_are_not_crossed(root: Path, mounted: Path) -> None:
    for bad in (
        entry(FileType.REGULAR, "mnt/file"),
        entry(FileType.WHITEOUT, "mnt/file"),
        entry(FileType.WHITEOUT, "mnt"),
        entry(FileType.OPAQUE, "mnt"),
        entry(FileType.OPAQUE, "."),
    ):
        with pytest.raises((IntegrityError, StorageError)):
            apply(root, bad)
    assert (mounted / "file").read_text() == "precious"


def test_deep_trees_are_removed(root: Path) -> None:
    at = os.open(root, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d", dir_fd=at)
        inner = os.open("d", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = inner
    os.close(at)
    apply(root, entry(FileType.WHITEOUT, "d"))
    assert not list(root.iterdir())


def test_a_path_of_many_missing_parents(root: Path) -> None:
    apply(root, entry(FileType.FIFO, "/".join(["p"] * 1000)))
    with pytest.raises(IntegrityError):
        apply(root, entry(FileType.FIFO, "/".join(["p"] * 3000)))
    apply(root, entry(FileType.WHITEOUT, "p"))  # pytest could not


def test_missing_parents_go_through_the_images_own_symlinks(root: Path) -> None:
    (root / "usr" / "bin").mkdir(parents=True)
    (root / "bin").symlink_to("usr/bin")
    apply(root, entry(FileType.FIFO, "bin/new/fifo"))
    assert (root / "bin").is_symlink()
    assert (root / "usr" / "bin" / "new" / "fifo").is_fifo()


def test_a_full_disk_is_said_to_be_full(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with TreeWriter(root) as writer:
        writer.prepare([(0, entry(FileType.REGULAR, "a", size=10))])
        monkeypatch.setattr(os, "pwrite", full)
        with pytest.raises(StorageError, match="No space left") as raised:
            writer.write(0, 0, b"x")
        assert raised.value.hint == "the disk is full"


def test_a_kernel_without_openat2(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Old:
        @staticmethod
        def syscall(*args: object) -> int:
            ctypes.set_errno(errno.ENOSYS)
            return -1

    monkeypatch.setattr(openat2_module, "_libc", Old)
    with pytest.raises(PrerequisiteError, match="openat2"):
        apply(root, entry(FileType.FIFO, "a"))


def test_openat2_itself(root: Path) -> None:
    at = os.open(root, os.O_RDONLY)
    with pytest.raises(FileNotFoundError):
        openat2(at, "missing", os.O_RDONLY)
    with pytest.raises(OSError, match="Invalid argument"):
        openat2(at, "a\0b", os.O_RDONLY)
    os.close(at)


PARTS = st.sampled_from(["a", "b", "l", "..", ".", "", "out"])
PATHS = st.lists(PARTS, min_size=1, max_size=4).map("/".join)
ENTRIES = st.builds(
    lambda type_, path, link, size: entry(type_, path, link=link, size=size if type_ is FileType.REGULAR else 0),
    st.sampled_from([t for t in FileType if t is not FileType.PAGES]),
    PATHS,
    PATHS | st.sampled_from(["/", "../outside", "../../..", "/proc/self/root", "/proc/self/cwd"]),
    st.integers(0, 3),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rounds=st.lists(st.lists(ENTRIES, max_size=5), min_size=1, max_size=3))
def test_no_sequence_of_entries_leaves_the_root(
    rounds: list[list[Entry]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    base = tmp_path_factory.mktemp("any")
    (base / "root").mkdir()
    (base / "outside").mkdir()
    (base / "outside" / "a").write_text("precious")
    (base / "root" / "out").symlink_to("../outside")
    before = [(path, path.lstat().st_mtime_ns) for path in (base / "outside", *(base / "outside").iterdir())]
    for entries in rounds:
        with contextlib.suppress(OcickptError):
            apply(base / "root", *entries, data=b"abc")
    after = [(path, path.lstat().st_mtime_ns) for path in (base / "outside", *(base / "outside").iterdir())]
    assert after == before
    assert (base / "outside" / "a").read_text() == "precious"
