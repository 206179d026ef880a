"""What a restore could not give back to a file is told."""

from __future__ import annotations

import errno
import os
from contextlib import closing
from pathlib import Path

import pytest

from ocickpt import artifact
from ocickpt.artifact import extras
from ocickpt.artifact.rebuild import Rebuilder
from ocickpt.engine.files.archivewriter import tree_tar
from ocickpt.log import Logged
from ocickpt.model import Content, Entry, FileType, Kind, Silent
from ocickpt.store import open_store
from ocickpt.store.reference import Reference
from tests.unit.test_podman_archive import _pycriu, checkpoint, needs_root, sent, written

fake_pycriu = _pycriu


class Notes(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture
def _no_attributes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A filesystem without extended attributes."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    monkeypatch.setattr(os, "setxattr", refuse)


def artifact_with(tmp_path: Path, *names: str) -> str:
    """A checkpoint whose root, volume and /dev/shm have a file with attributes for each of `names`."""

    def tree(kind: Kind, top: str) -> bytes:
        contents = [
            Content(Entry(kind, FileType.DIRECTORY, top or ".", mode=0o755)),
            *(
                Content(Entry(kind, FileType.REGULAR, f"{top}/{name}" if top else name, xattrs=((f"user.{n}", b"x"),)))
                for n, name in enumerate(names)
            ),
        ]
        tree_tar(tmp_path / "tar", contents, strip=top)
        return (tmp_path / "tar").read_bytes()

    files = checkpoint() | {
        "devshm-checkpoint.tar": tree(Kind.STATE, ""),
        "rootfs-diff.tar": tree(Kind.ROOTFS, ""),
        "volumes/data.tar": tree(Kind.VOLUME, "data"),
    }
    return sent(written(tmp_path / "in.tar", files), tmp_path)


def restored(ref: str, tmp_path: Path, progress: Silent) -> None:
    reference = Reference.parse(ref)
    with closing(open_store(reference)) as source:
        found = artifact.open(source, reference)
        rebuilder = Rebuilder(artifact.load_index(source, found.manifest), source, progress)
        for place in ("root", "volume", "shm", "work"):
            (tmp_path / place).mkdir()
        rebuilder.tree(Kind.ROOTFS, tmp_path / "root")
        rebuilder.tree(Kind.VOLUME, tmp_path / "volume", "data")
        rebuilder.shm(tmp_path / "shm", tmp_path / "work")


def test_what_criu_leaves_out_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads, usual = list[bytes](), extras.Extras.from_bytes

    def counted(data: bytes) -> extras.Extras:
        reads.append(data)
        return usual(data)

    monkeypatch.setattr(extras.Extras, "from_bytes", counted)
    files = checkpoint() | {"extras.json": b'{"threads": [{"id": 1, "ioClass": 3}]}'}
    reference = Reference.parse(sent(written(tmp_path / "in.tar", files), tmp_path))
    with closing(open_store(reference)) as source:
        rebuilder = Rebuilder(artifact.load_index(source, artifact.open(source, reference).manifest), source, Silent())
        reads.clear()
        assert rebuilder.extras() is rebuilder.extras()
    assert len(reads) == 1


@needs_root
@pytest.mark.usefixtures("_no_attributes")
def test_attributes_that_no_filesystem_takes_are_told(tmp_path: Path) -> None:
    told = Notes()
    restored(artifact_with(tmp_path, "a", "b\n\x1b", "c", "d"), tmp_path, told)
    assert len(told.notes) == 3
    for note, where in zip(told.notes, ("the root filesystem", "volume data", "/dev/shm"), strict=True):
        assert note.startswith(
            f"4 extended attributes were lost, for {where} is on a filesystem that does not take them"
        )
        assert "'user.0' of 'a'" in note
        assert "'user.1' of 'b\\n\\x1b'" in note
        assert "user.3" not in note
        assert note.isprintable()


@needs_root
@pytest.mark.usefixtures("_no_attributes")
def test_one_is_one(tmp_path: Path) -> None:
    told = Notes()
    restored(artifact_with(tmp_path, "a"), tmp_path, told)
    assert [note.split(",")[0] for note in told.notes] == ["1 extended attribute was lost"] * 3


@needs_root
def test_what_could_be_set_is_not_told(tmp_path: Path) -> None:
    told = Notes()
    restored(artifact_with(tmp_path), tmp_path, told)
    assert told.notes == []


@needs_root
@pytest.mark.usefixtures("_no_attributes")
def test_where_nobody_watches_it_is_logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logged: list[str] = []
    monkeypatch.setattr("syslog.syslog", lambda _, text: logged.append(text))
    restored(artifact_with(tmp_path, "a"), tmp_path, Logged("container c1c1"))
    assert all(text.startswith("container c1c1: 1 extended attribute was lost") for text in logged)
    assert len(logged) == 3
