"""Paths that CRIU would open, make or remove, and where they lead: wherever the container has its files.

CRIU's images are stood in for by what `gate.paths` reads of them; the crafted checkpoints of tests/hostile have real
ones.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ocickpt import oci
from ocickpt.errors import IntegrityError, UnsupportedError
from ocickpt.gate import places, verification
from ocickpt.gate.expected import Expected
from ocickpt.gate.paths import Look, Seen, check_paths
from ocickpt.model import Entry, FileType, Kind

PROCFS, GHOST, LINKED = 2, 1, 0
REGULAR, SOCKET, TMPFS, PROC = 1, 5, 5, 1
DIRECTORY, PLAIN = Seen("", 0, 0, 0o40755), Seen("", 0, 0, 0o100644)


class Part(SimpleNamespace):
    """A message of the images."""

    def HasField(self, name: str) -> bool:  # noqa: N802 - as protobuf has it
        return name in vars(self)


def mount(**values: Any) -> Part:
    usual = {"mnt_id": 7, "mountpoint": "/", "ext_key": "", "flags": 0, "fstype": 17, "root": "/", "root_dev": 9}
    return Part(**{**usual, **values})


class Images:
    """The images of a checkpoint in which the file at `path`, on the mount at `mountpoint`, is open, and deleted."""

    def __init__(
        self,
        path: str,
        mountpoint: str = "/",
        ext_key: str = "",
        remap: int | None = GHOST,
        number: int = 7,
        **file: Any,
    ) -> None:
        reg = Part(**{"name": path, "mnt_id": number, "flags": os.O_RDONLY, **file})
        self._all: dict[str, list[Any]] = {
            "remap-fpath": [] if remap is None else [Part(orig_id=1, remap_id=5, remap_type=remap)],
            "files": [Part(id=1, type=REGULAR, reg=reg)],
        }
        self.mounts = [mount(mountpoint=mountpoint, ext_key=ext_key)]

    def messages(self, name: str) -> list[Any]:
        return self._all[name]

    def numbered(self, name: str) -> dict[int, list[Any]]:
        assert name == "mountpoints"
        return {12: self.mounts}

    def filesystem(self, _name: str) -> Iterator[Any]:
        return iter(())


@dataclass
class Links:
    """A container whose filesystems have symlinks at these (mount point, path), and directories elsewhere."""

    links: dict[tuple[str, str], str]

    def __call__(self, place: str, path: str) -> Seen | None:
        link = self.links.get((place, path), "")
        return Seen(link, 0, 0, 0o120777) if link else DIRECTORY


def linked(*places: tuple[str, str]) -> Links:
    return Links(dict.fromkeys(places, "/etc"))


SPEC = Expected.of(oci.Bundle(root=oci.Root("/")))


def refuse(images: Images, look: Look, said: str = "behind a symlink", expected: Expected = SPEC) -> None:
    with pytest.raises(IntegrityError, match=said):
        check_paths(images, expected, look)  # type: ignore[arg-type]


def allow(images: Images, look: Look, expected: Expected = SPEC) -> None:
    check_paths(images, expected, look)  # type: ignore[arg-type]


def test_every_directory_on_the_way_is_looked_at() -> None:
    asked: list[tuple[str, str]] = []

    def look(place: str, path: str) -> Seen | None:
        asked.append((place, path))
        return DIRECTORY

    allow(Images("/srv/a/b/c"), look)
    assert sorted(asked) == [("/", "srv"), ("/", "srv/a"), ("/", "srv/a/b")]


@pytest.mark.parametrize("remap", [GHOST, None])
@pytest.mark.parametrize("link", ["srv", "srv/a", "srv/a/b"])
def test_a_symlink_anywhere_on_the_way_is_one_too_many(link: str, remap: int | None) -> None:
    refuse(Images("/srv/a/b/c", remap=remap), linked(("/", link)))


def test_a_deleted_file_may_have_the_name_of_a_symlink() -> None:
    allow(Images("/srv/link"), linked(("/", "srv/link")))


def test_a_file_that_is_opened_may_not() -> None:
    refuse(Images("/srv/link", remap=None), linked(("/", "srv/link")), "which is a symlink")
    refuse(Images("/srv/link", remap=None, flags=os.O_PATH), linked(("/", "srv/link")), "which is a symlink")
    allow(Images("/srv/link", remap=None, flags=os.O_PATH | os.O_NOFOLLOW), linked(("/", "srv/link")))


def test_what_was_a_process_is_no_path() -> None:
    images = Images("/proc/7/status", "/proc", remap=PROCFS)
    images.mounts[0].fstype = PROC
    allow(images, linked(("/", "proc")))


def test_a_mount_is_asked_for_by_what_is_mounted() -> None:
    refuse(Images("/data/a/b", "/data", "/data"), linked(("/data", "a")))
    allow(Images("/data/a/b", "/data", "/data"), linked(("/", "data/a")))


@pytest.mark.parametrize("images", [Images("/srv/a", number=8), Images("/other/a", "/data", "/data")])
def test_a_deleted_file_on_no_mount_of_the_container(images: Images) -> None:
    refuse(images, linked(), "on no mount")


def test_nothing_is_made_on_a_mount_that_is_only_read() -> None:
    images = Images("/data/a", "/data", "/data")
    images.mounts[0].flags = 1
    with pytest.raises(UnsupportedError, match="a mount that is only read"):
        check_paths(images, SPEC, linked())  # type: ignore[arg-type]


def test_the_content_of_a_deleted_file_has_a_number_of_its_own() -> None:
    images = Images("/srv/a")
    images.messages("files").append(Part(id=5, type=REGULAR, reg=Part(name="/data/b", mnt_id=8, flags=0)))
    images.mounts.append(mount(mnt_id=8, mountpoint="/data", ext_key="/data", flags=1))
    allow(images, linked())


@pytest.mark.parametrize(("name", "refused"), [("/srv/link_remap.12", False), ("/srv/accounts", True)])
def test_only_what_criu_has_made_is_removed(name: str, refused: bool) -> None:
    images = Images("/srv/gone", remap=LINKED)
    images.messages("files").append(Part(id=5, type=REGULAR, reg=Part(name=name, mnt_id=7, flags=0)))
    if refused:
        refuse(images, linked(), "would remove '/srv/accounts'")
    else:
        allow(images, linked())


USER = Expected.of(oci.Bundle(process=oci.Process(user=oci.User(33, 33), no_new_privileges=True)))


@pytest.mark.parametrize(
    ("seen", "flags", "said"),
    [
        (Seen("", 0, 0, 0o100644), os.O_WRONLY, "open to be written"),
        (Seen("", 0, 0, 0o100666), os.O_RDWR, ""),
        (Seen("", 0, 33, 0o100620), os.O_WRONLY, ""),
        (Seen("", 0, 0, 0o100620), os.O_WRONLY, "open to be written"),
        (Seen("", 33, 0, 0o100400), os.O_RDWR, ""),
        (Seen("", 0, 0, 0o100600), os.O_RDONLY, "cannot read"),
        (Seen("", 0, 0, 0o100711), os.O_RDONLY, ""),
        (Seen("", 0, 0, 0o100600), os.O_PATH, ""),
        (Seen("", 0, 0, 0o040700), os.O_RDONLY, ""),
    ],
)
def test_a_file_that_the_container_cannot_open(seen: Seen, flags: int, said: str) -> None:
    images = Images("/file", remap=None, flags=flags)
    allow(images, lambda *_: seen)  # who may become root may have opened anything
    if said:
        refuse(images, lambda *_: seen, said, USER)
    else:
        allow(images, lambda *_: seen, USER)


@pytest.mark.parametrize("name", ["/run/s", "/var/run/s", "/self/s", "/around/s", "/proc/self/fd/5/s"])
def test_a_socket_may_lie_behind_a_symlink_but_not_in_what_criu_has_open(name: str) -> None:
    images = Images("/x", remap=None)
    images.mounts.append(mount(mnt_id=8, mountpoint="/proc", fstype=PROC))
    images.messages("files")[:] = [
        Part(id=2, type=SOCKET, usk=Part(name=os.fsencode(f"{name}\0"), name_dir="", mnt_id=-1))
    ]
    links = {
        ("/", "var/run"): "../run",
        ("/", "self"): "/way/../proc/self/fd/17/../..",
        ("/", "way"): "x",
        ("/", "around"): "around",
    }
    if name in ("/run/s", "/var/run/s"):
        allow(images, Links(links))
    else:
        refuse(images, Links(links), "too many symlinks" if "around" in name else "leads to what CRIU has open")


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
            places.check_placed(Rebuilder(), spec, tmp_path)  # type: ignore[arg-type]
    else:
        places.check_placed(Rebuilder(), spec, tmp_path)  # type: ignore[arg-type]


def test_a_source_may_be_a_symlink_itself(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, place: Path) -> None:
    (tmp_path / "program").symlink_to(place)
    found_in(monkeypatch, Images("/init", "/init", "/init", remap=None))
    mounts = (oci.Mount("/init", "bind", str(tmp_path / "program"), ("bind",)),)
    spec = oci.Bundle(root=oci.Root(str(tmp_path / "rootfs")), mounts=mounts)
    places.check_placed(Rebuilder(), spec, tmp_path)  # type: ignore[arg-type]


def test_of_what_is_mounted_from_elsewhere_nothing_is_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found_in(monkeypatch, Images("/data/plain/file", "/data", "/data"))
    with pytest.raises(IntegrityError, match="behind a symlink"):
        places.check_placed(Rebuilder(), oci.Bundle(root=oci.Root("/nowhere")), tmp_path)  # type: ignore[arg-type]


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
        places.check_packed(Rebuilder(link), imported(place), (place,), "hint")  # type: ignore[arg-type]
    places.check_packed(Rebuilder(), imported(place), (place,), "hint")  # type: ignore[arg-type]


def test_without_layers_nothing_is_known(monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    found_in(monkeypatch, Images("/srv/sub/file"))
    with pytest.raises(UnsupportedError, match="cannot be looked into here"):
        places.check_packed(Rebuilder(), imported(place), (), "hint")  # type: ignore[arg-type]


def test_what_podman_would_remove(monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    found_in(monkeypatch, Images("/srv/sub/file"))
    gone = Rebuilder(Entry(Kind.ROOTFS, FileType.WHITEOUT, "a/passwd"))
    with pytest.raises(IntegrityError, match="behind a symlink of the image"):
        places.check_packed(gone, imported(place), (place,), "hint")  # type: ignore[arg-type]
