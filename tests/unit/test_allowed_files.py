"""Which files an artifact may bring to podman and CRIU, and what becomes of /dev/shm."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest

from ocickpt.artifact import allowed_files
from ocickpt.artifact.rebuild import _rewritten
from ocickpt.engine.files import archive
from ocickpt.errors import IntegrityError, UnsupportedError
from ocickpt.model import Content, Entry, FileType, Kind, Run


@pytest.mark.parametrize(
    "name",
    [
        "config.dump",
        "spec.dump",
        "network.status",
        "ctr.log",
        "stats-dump",
        "devshm-checkpoint.tar",
        "checkpoint/inventory.img",
        "checkpoint/descriptors.json",
        "checkpoint/core-1.img",
        "checkpoint/pagemap-shmem-12.img",
        "checkpoint/tmpfs-dev-203.tar.gz.img",
        "checkpoint/ip6tables-9.img",
        "checkpoint/amdgpu-renderD-128.img",
    ],
)
def test_what_podman_and_criu_write_passes(name: str) -> None:
    allowed_files.check((Entry(Kind.BOOT, FileType.REGULAR, name), Entry(Kind.STATE, FileType.REGULAR, name)))


@pytest.mark.parametrize(
    "name",
    [
        "deleted.files",
        "rootfs-diff.tar",
        "volumes/v.tar",
        "config.json",
        "secrets/key",
        "artifacts/x",
        "checkpoint",
        "checkpoint/parent",
        "checkpoint/parent/core-1.img",
        "checkpoint/pages-1.img",
        "checkpoint/runc.conf",
        "checkpoint/ocickpt-operation",
        "checkpoint/x\n.img",
        "checkpoint/core-1.img\n",
    ],
)
@pytest.mark.parametrize("kind", [Kind.BOOT, Kind.STATE])
def test_nothing_else_does(name: str, kind: Kind) -> None:
    with pytest.raises(UnsupportedError):
        allowed_files.check((Entry(kind, FileType.REGULAR, name),))


@pytest.mark.parametrize(
    "entry",
    [
        Entry(Kind.BOOT, FileType.SYMLINK, "checkpoint/core-1.img", link="/etc/shadow"),
        Entry(Kind.STATE, FileType.DIRECTORY, "checkpoint"),
        Entry(Kind.MEMORY, FileType.PAGES, "config.dump"),
        Entry(Kind.BOOT, FileType.PAGES, "eager/checkpoint/core-1.img"),
        Entry(Kind.VOLUME, FileType.DIRECTORY, "."),
        Entry(Kind.VOLUME, FileType.DIRECTORY, "-v"),
    ],
)
def test_nor_does_another_type(entry: Entry) -> None:
    with pytest.raises(UnsupportedError):
        allowed_files.check((entry,))


def test_trees_and_memory_pass() -> None:
    allowed_files.check(
        (
            Entry(Kind.ROOTFS, FileType.SYMLINK, "any/deleted.files", link="/"),
            Entry(Kind.VOLUME, FileType.DIRECTORY, "vol1"),
            Entry(Kind.VOLUME, FileType.REGULAR, "vol1/a\nb"),
            Entry(Kind.MEMORY, FileType.PAGES, "checkpoint/pagemap-1.img"),
            Entry(Kind.BOOT, FileType.PAGES, "eager/checkpoint/pagemap-1.img"),
        )
    )


def tar(path: Path, *entries: Entry) -> Path:
    def contents() -> Iterator[Content]:
        for entry in entries:
            data = b"x" * entry.size
            yield Content(entry, (Run(0, entry.size),), lambda data=data: io.BytesIO(data))  # type: ignore[misc]

    archive.tree_tar(path, contents())
    return path


SHM = (
    Entry(Kind.STATE, FileType.DIRECTORY, ".", mode=0o1777),
    Entry(Kind.STATE, FileType.REGULAR, "PostgreSQL.1", mode=0o600, uid=70, size=5000),
    Entry(Kind.STATE, FileType.SYMLINK, "link", mode=0o777, link="/etc"),
)


@pytest.mark.parametrize("read", [lambda path: path, lambda path: path.read_bytes()])
def test_shared_memory_is_what_it_was(tmp_path: Path, read: object) -> None:
    assert callable(read)
    made = _rewritten(read(tar(tmp_path / "a.tar", *SHM)), tmp_path)
    found = [(each.name, each.type, each.mode, each.uid, each.size, each.link) for each in archive.members(made)]
    assert found == [(each.path, each.type, each.mode, each.uid, each.size, each.link) for each in SHM]


@pytest.mark.parametrize(
    "entry",
    [
        Entry(Kind.STATE, FileType.REGULAR, "link/passwd", size=1),
        Entry(Kind.STATE, FileType.HARDLINK, "x", link="link/passwd"),
        Entry(Kind.STATE, FileType.REGULAR, "link", size=1),
    ],
)
def test_shared_memory_that_leads_to_the_host_is_refused(tmp_path: Path, entry: Entry) -> None:
    with pytest.raises(IntegrityError):
        _rewritten(tar(tmp_path / "a.tar", *SHM, entry), tmp_path)
