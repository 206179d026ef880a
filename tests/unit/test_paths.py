"""Deleted files that lie behind a symlink of the container are refused, wherever the container has its files.

CRIU's images are stood in for by what `gate.remaps` reads of them; the crafted checkpoints of tests/hostile have real
ones.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ocickpt import oci
from ocickpt.errors import IntegrityError, UnsupportedError
from ocickpt.gate import deleted_files, verification
from ocickpt.gate.remaps import check_remaps
from ocickpt.model import Entry, FileType, Kind

PROCFS, GHOST = 2, 0
REGULAR = 1


class Images:
    """The images of a checkpoint in which the file at `path`, on the mount at `mountpoint`, is deleted and open."""

    def __init__(self, path: str, mountpoint: str = "/", ext_key: str = "", remap: int = GHOST, mount: int = 7) -> None:
        self._all: dict[str, list[Any]] = {
            "remap-fpath": [SimpleNamespace(orig_id=1, remap_id=5, remap_type=remap)],
            "files": [SimpleNamespace(id=1, type=REGULAR, reg=SimpleNamespace(name=path, mnt_id=mount))],
        }
        self._mount = SimpleNamespace(mnt_id=7, mountpoint=mountpoint, ext_key=ext_key)

    def messages(self, name: str) -> list[Any]:
        return self._all[name]

    def numbered(self, name: str) -> dict[int, list[Any]]:
        assert name == "mountpoints"
        return {12: [self._mount]}

    def names(self, _pattern: str) -> list[str]:
        return []


def refuse(images: Images, is_symlink: Callable[[str, str], bool]) -> None:
    with pytest.raises(IntegrityError, match="behind a symlink"):
        check_remaps(images, is_symlink)  # type: ignore[arg-type]


def allow(images: Images, is_symlink: Callable[[str, str], bool]) -> None:
    check_remaps(images, is_symlink)  # type: ignore[arg-type]


def test_every_directory_on_the_way_is_asked_for() -> None:
    asked: list[tuple[str, str]] = []

    def is_symlink(mount: str, path: str) -> bool:
        asked.append((mount, path))
        return False

    allow(Images("/srv/a/b/c"), is_symlink)
    assert sorted(asked) == [("/", "srv"), ("/", "srv/a"), ("/", "srv/a/b")]


@pytest.mark.parametrize("link", ["srv", "srv/a", "srv/a/b"])
def test_a_symlink_anywhere_on_the_way_is_one_too_many(link: str) -> None:
    refuse(Images("/srv/a/b/c"), lambda _, path: path == link)


def test_the_file_itself_may_have_the_name_of_a_symlink() -> None:
    allow(Images("/srv/link"), lambda _, path: path == "srv/link")


def test_what_was_a_process_is_no_path() -> None:
    allow(Images("/srv/a/b", remap=PROCFS), lambda *_: True)


def test_a_mount_is_asked_for_by_what_is_mounted() -> None:
    refuse(Images("/data/a/b", "/data", "/data"), lambda mount, path: (mount, path) == ("/data", "a"))
    allow(Images("/data/a/b", "/data", "/data"), lambda mount, path: (mount, path) == ("/", "data/a"))


@pytest.mark.parametrize("images", [Images("/srv/a", mount=8), Images("/other/a", "/data", "/data")])
def test_a_file_on_no_mount_of_the_container(images: Images) -> None:
    with pytest.raises(IntegrityError, match="on no mount"):
        check_remaps(images, lambda *_: False)  # type: ignore[arg-type]


class Rebuilder:
    """A checkpoint with these entries."""

    def __init__(self, *entries: Entry) -> None:
        self.index = SimpleNamespace(files_of=lambda kind: [(0, each) for each in entries if each.kind is kind])


def found_in(monkeypatch: pytest.MonkeyPatch, images: Images) -> None:
    monkeypatch.setattr(verification, "of", lambda _rebuilder: images)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory of the host in which ``a`` is a symlink and ``plain`` is none."""
    (tmp_path / "source" / "plain").mkdir(parents=True)
    (tmp_path / "source" / "a").symlink_to("/etc")
    return tmp_path / "source"


SPECS = ("volume", "bind")


@pytest.mark.parametrize("kind", SPECS)
@pytest.mark.parametrize(("path", "refused"), [("/data/a/passwd", True), ("/data/plain/file", False)])
def test_what_a_volume_or_a_bind_has_in_place(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, place: Path, kind: str, path: str, refused: bool
) -> None:
    found_in(monkeypatch, Images(path, "/data", "/data"))
    mount = oci.Mount("/data", "bind", str(place), ("rbind", kind))
    spec = oci.Bundle(root=oci.Root(str(tmp_path / "rootfs")), mounts=(mount,))
    if refused:
        with pytest.raises(IntegrityError, match="behind a symlink"):
            deleted_files.check_placed(Rebuilder(), spec, tmp_path)  # type: ignore[arg-type]
    else:
        deleted_files.check_placed(Rebuilder(), spec, tmp_path)  # type: ignore[arg-type]


def test_of_what_is_mounted_from_elsewhere_nothing_is_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found_in(monkeypatch, Images("/data/plain/file", "/data", "/data"))
    with pytest.raises(IntegrityError, match="behind a symlink"):
        deleted_files.check_placed(Rebuilder(), oci.Bundle(root=oci.Root("/nowhere")), tmp_path)  # type: ignore[arg-type]


def imported(place: Path) -> Any:
    mount = oci.Mount("/data", "bind", str(place), ("rbind",))
    return SimpleNamespace(volumes={"vol": str(place)}, spec=oci.Saved(mounts=(mount,)))


@pytest.mark.parametrize(
    ("path", "link"),
    [
        ("/data/sub/file", Entry(Kind.VOLUME, FileType.SYMLINK, "vol/sub", link="/etc")),
        ("/srv/sub/file", Entry(Kind.ROOTFS, FileType.SYMLINK, "srv/sub", link="/etc")),
        ("/srv/sub/file", Entry(Kind.ROOTFS, FileType.SYMLINK, "srv", link="/etc")),
    ],
)
def test_what_podman_would_unpack(monkeypatch: pytest.MonkeyPatch, place: Path, path: str, link: Entry) -> None:
    where = ("/data", "/data") if path.startswith("/data") else ("/", "")
    found_in(monkeypatch, Images(path, *where))
    with pytest.raises(IntegrityError, match="behind a symlink"):
        deleted_files.check_packed(Rebuilder(link), imported(place), (place,), "hint")  # type: ignore[arg-type]
    deleted_files.check_packed(Rebuilder(), imported(place), (place,), "hint")  # type: ignore[arg-type]


def test_without_layers_nothing_is_known(monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    found_in(monkeypatch, Images("/srv/sub/file"))
    with pytest.raises(UnsupportedError, match="cannot be looked into here"):
        deleted_files.check_packed(Rebuilder(), imported(place), (), "hint")  # type: ignore[arg-type]


def test_what_podman_would_remove(monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    found_in(monkeypatch, Images("/srv/sub/file"))
    gone = Rebuilder(Entry(Kind.ROOTFS, FileType.WHITEOUT, "a/passwd"))
    with pytest.raises(IntegrityError, match="behind a symlink of the image"):
        deleted_files.check_packed(gone, imported(place), (place,), "hint")  # type: ignore[arg-type]
