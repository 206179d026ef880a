"""What is found out before a restore, with a host and a podman that are made up."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from ocickpt import oci
from ocickpt.asked import Asked
from ocickpt.description import Criu, Description, Runtime
from ocickpt.engine import host, podman
from ocickpt.engine.host import Host
from ocickpt.engine.podman import storage
from ocickpt.engine.podman.config import Config, Network
from ocickpt.engine.podman.imported import Imported
from ocickpt.errors import (
    ExistsError,
    IncompatibleError,
    NotFoundError,
    OcickptError,
    PrerequisiteError,
    UnsupportedError,
    UsageError,
)
from ocickpt.model import Silent
from ocickpt.restoration import preflight, restore
from ocickpt.restoration.options import RestoreOptions
from ocickpt.store import Access
from tests.unit.test_description import FULL

HERE = Host(
    arch="amd64",
    kernel="6.18.5",
    cgroup="v2",
    cpu_features=("avx2", "hypervisor", "sse4_2"),
    page_size=4096,
    criu="4.2.1",
    lsm="none",
    euid=0,
    distribution="debian 13",
)
IMPORTED = Imported(
    config=Config(
        id="c" * 64,
        name="web",
        rootfs_image_id="d" * 64,
        rootfs_image_name="registry.example.com/web:1",
        runtime="crun",
    ),
    spec=oci.Saved(),
    volumes={},
    secrets=(),
    host_paths=(),
    asked=(),
    health_interval="",
)


def of(**changes: Any) -> Description:
    """A checkpoint of another host."""
    return replace(FULL, host=replace(FULL.host, **changes))


def security(images_lsm: str) -> Description:
    return replace(FULL, security=replace(FULL.security, images_lsm=images_lsm))


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(host, "program", lambda name: {"runc": "/usr/bin/runc", "crun": "/usr/bin/crun"}[name])


@pytest.mark.parametrize(
    ("description", "here"),
    [
        (FULL, HERE),
        (of(kernel="9.0", cgroup="v1", distribution="other 1"), HERE),
        (of(cpu_features=("sse4_2", "mmx_of_nobody", "constant_tsc")), HERE),
        (replace(FULL, criu=Criu("4.2.9")), HERE),
        (replace(FULL, criu=Criu("4.1")), HERE),
        (replace(FULL, criu=Criu("")), HERE),
        (FULL, dataclasses.replace(HERE, criu="4.10")),
        (FULL, dataclasses.replace(HERE, cpu_features=("avx2", "avx512f", "sse4_2"))),
        (security("selinux"), dataclasses.replace(HERE, lsm="selinux")),
        (security("selinux"), HERE),
        (security("none"), dataclasses.replace(HERE, lsm="apparmor")),
    ],
)
def test_a_host_that_will_do(description: Description, here: Host) -> None:
    assert [each for each in preflight.check_host(description, here) if "by which CRIU" not in each] == []


@pytest.mark.parametrize(
    ("description", "word"),
    [
        (of(arch=""), "on what kind of machine"),
        (of(cpu_features=()), "on what CPU"),
        (replace(FULL, criu=Criu("")), "by which CRIU"),
    ],
)
def test_what_is_not_known_is_said_and_not_believed(description: Description, word: str) -> None:
    (note,) = preflight.check_host(description, HERE)
    assert note == f"it is not known {word} the checkpoint was made: it may not run here"


@pytest.mark.parametrize(
    ("description", "here", "kind", "reason"),
    [
        (FULL, dataclasses.replace(HERE, criu=""), PrerequisiteError, "criu is not installed"),
        (of(arch="arm64"), HERE, IncompatibleError, "of a arm64 machine, this one is amd64"),
        (of(page_size=65536), HERE, IncompatibleError, "pages of 65536 bytes"),
        (of(cpu_features=("avx512f", "amx_tile")), HERE, IncompatibleError, "amx_tile, avx512f"),
        (replace(FULL, criu=Criu("4.3")), HERE, IncompatibleError, "CRIU 4.3, this host has 4.2.1"),
        (FULL, dataclasses.replace(HERE, criu="3.17.1"), IncompatibleError, "this host has 3.17.1"),
        (replace(FULL, runtime=Runtime("/tmp/x", "1")), HERE, UnsupportedError, "only runc and crun"),
        (replace(FULL, runtime=Runtime("", "")), HERE, UnsupportedError, "only runc and crun"),
        (security("selinux"), dataclasses.replace(HERE, lsm="apparmor"), IncompatibleError, "runs apparmor"),
        (security("apparmor"), dataclasses.replace(HERE, lsm="selinux"), IncompatibleError, "runs selinux"),
    ],
)
def test_a_host_that_will_not(description: Description, here: Host, kind: type[OcickptError], reason: str) -> None:
    with pytest.raises(kind, match=reason):
        preflight.check_host(description, here)


def test_a_runtime_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "program", lambda name: "/usr/bin/runc" if name == "runc" else "")
    preflight.check_host(replace(FULL, runtime=Runtime("runc", "1.1")), HERE)
    with pytest.raises(PrerequisiteError, match="crun, which is not here"):
        preflight.check_host(FULL, HERE)


def test_whoever_is_not_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(PrerequisiteError) as raised:
        restore.restore("web:1", RestoreOptions(), Access(), Silent(), lambda: None)
    assert raised.value.hint == "run ocickpt as root"


class Notes(Silent):
    """Keeps what is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


class Podman:
    """A podman with these containers, volumes, secrets and images; an image of a registry comes when it is pulled.

    `stored` is the image that it has in its own storage, below `graph`.
    """

    def __init__(self, graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.graph = graph
        self.containers: set[str] = set()
        self.stored = ""
        self.asked: list[str] = []
        self.volumes: set[str] = set()
        self.secrets: set[str] = set()
        self.networks: set[str] = set()
        self.images = {IMPORTED.image_id}
        self.pulls: dict[str, str] = {}
        self.pulled: list[str] = []
        monkeypatch.setattr(podman, "volume_exists", self.volumes.__contains__)
        monkeypatch.setattr(podman, "secret_exists", self.secrets.__contains__)
        monkeypatch.setattr(podman, "network_exists", self.networks.__contains__)
        monkeypatch.setattr(podman, "image", self._image)
        monkeypatch.setattr(podman, "pull", self._pull)

    @property
    def roots(self) -> podman.Roots:
        """Where its storage is, with what is in it by now."""
        listed = [
            {"id": each} if len(each) == 64 else {"id": "9" * 64, "names": ["more", each]}
            for each in sorted(self.containers)
        ]
        for name, content in (
            ("overlay-images/images.json", [{"id": self.stored}]),
            ("overlay-containers/containers.json", listed[1:]),
            ("overlay-containers/volatile-containers.json", listed[:1]),
        ):
            (self.graph / name).parent.mkdir(exist_ok=True)
            (self.graph / name).write_text(json.dumps(content))
        return podman.Roots(self.graph, self.graph / "volumes", (self.graph / "none", self.graph))

    def _image(self, name: str) -> podman.Image | None:
        self.asked.append(name)
        return podman.Image(name, "", (), ()) if name in self.images else None

    def _pull(self, name: str) -> bool:
        self.pulled.append(name)
        if name not in self.pulls:
            return False
        self.images.add(self.pulls[name])
        return True


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Podman:
    (tmp_path / "graph").mkdir()
    return Podman(tmp_path / "graph", monkeypatch)


def check(
    there: Podman, name: str | None = None, *, ignore_volumes: bool = False, allow: tuple[str, ...] = (), **changes: Any
) -> list[str]:
    watch = Notes()
    imported = dataclasses.replace(IMPORTED, **changes)
    preflight.check_container(imported, name, there.roots, ignore_volumes=ignore_volumes, allow=allow, progress=watch)
    return watch.notes


def test_nothing_in_the_way(there: Podman) -> None:
    assert check(there) == []
    assert check(there, "copy") == []
    assert there.pulled == []


@pytest.mark.parametrize("taken", [IMPORTED.name, IMPORTED.id])
def test_a_name_or_id_that_is_taken(there: Podman, taken: str) -> None:
    there.containers.add(taken)
    with pytest.raises(ExistsError, match=f"there is a container '{taken}'"):
        check(there)
    check(there, "copy")
    there.containers.add("copy")
    with pytest.raises(ExistsError, match="there is a container 'copy'"):
        check(there, "copy")


def test_volumes(there: Podman) -> None:
    volumes = {"data": "/v/data/_data", "more": "/v/more/_data"}
    check(there, volumes=volumes)
    with pytest.raises(UsageError, match="has the volume 'data'") as raised:
        check(there, "copy", volumes=volumes)
    assert "--ignore-volumes" in raised.value.hint
    check(there, "copy", volumes=volumes, ignore_volumes=True)
    there.volumes.add("more")
    with pytest.raises(ExistsError, match="there is a volume 'more'"):
        check(there, volumes=volumes)
    # What lies there is somebody's, and which it is the checkpoint says.
    with pytest.raises(PrerequisiteError, match="--allow volume=more  "):
        check(there, volumes=volumes, ignore_volumes=True)
    check(there, volumes=volumes, ignore_volumes=True, allow=("volume=more",))


@pytest.mark.parametrize(("limit", "good"), [(None, True), (0, True), (-1, True), (1 << 20, False), (1 << 30, True)])
def test_volumes_in_memory(monkeypatch: pytest.MonkeyPatch, limit: int | None, good: bool) -> None:
    """What is written into them is no container's, so whoever made the checkpoint must not choose how much."""
    monkeypatch.setattr("ocickpt.engine.host.free_memory", lambda: 100 << 20)
    if good:
        preflight.check_memory(50 << 20, limit)
    else:
        with pytest.raises(IncompatibleError, match="take 50 MiB, of which the container may have 1"):
            preflight.check_memory(50 << 20, limit)
    with pytest.raises(IncompatibleError):
        preflight.check_memory((100 << 20) + 1, limit)


def test_a_volume_that_comes_while_the_image_is_pulled(there: Podman, monkeypatch: pytest.MonkeyPatch) -> None:
    there.images.clear()
    monkeypatch.setattr(preflight, "_pull_image", lambda *_: there.volumes.add("data"))
    with pytest.raises(ExistsError, match="there is a volume 'data'"):
        check(there, volumes={"data": "/v/data/_data"})


def test_networks(there: Podman) -> None:
    inside = replace(IMPORTED.config, new_networks={"podman": Network(), "inner": Network()})
    with pytest.raises(NotFoundError, match="in podman's network 'inner', which is not on this host") as raised:
        check(there, config=inside)
    assert "podman network create" in raised.value.hint
    there.networks.add("inner")
    assert check(there, config=inside) == []


def test_secrets(there: Podman) -> None:
    with pytest.raises(NotFoundError, match="podman secret 'password'") as raised:
        check(there, secrets=("password",))
    assert "podman secret create" in raised.value.hint
    there.secrets.add("password")
    assert check(there, secrets=("password",)) == []


def test_paths_of_the_host(there: Podman, tmp_path: Path) -> None:
    gone = str(tmp_path / "gone")
    with pytest.raises(IncompatibleError, match=gone):
        check(there, host_paths=(str(tmp_path), gone))
    assert not Path(gone).exists()
    assert check(there, host_paths=(str(tmp_path),)) == []


def test_what_it_gets_is_the_users_to_give(there: Podman) -> None:
    asked = (Asked("namespace", "pid", "the pid namespace"), Asked("device", "/dev/a b", "/dev/a b"))
    with pytest.raises(PrerequisiteError) as raised:
        check(there, asked=asked)
    lines = [shlex.split(line) for line in raised.value.message.splitlines()[1:]]
    assert [line[:2] for line in lines] == [["--allow", "namespace=pid"], ["--allow", "device=/dev/a b"]]
    with pytest.raises(PrerequisiteError) as raised:
        check(there, asked=asked, allow=("namespace=pid",))
    assert "namespace=pid" not in raised.value.message
    assert check(there, asked=asked, allow=("namespace=pid", "device=/dev/a b")) == [
        "the container gets what others do not: the pid namespace, /dev/a b"
    ]


def test_an_image_that_is_not_here(there: Podman) -> None:
    there.images.clear()
    with pytest.raises(NotFoundError, match="is not on this host") as raised:
        check(there)
    assert "podman pull" in raised.value.hint
    there.pulls[IMPORTED.image_name] = "e" * 64
    with pytest.raises(IncompatibleError, match="is another image by now"):
        check(there)
    there.pulls[IMPORTED.image_name] = IMPORTED.image_id
    assert check(there) == []
    assert there.pulled == [IMPORTED.image_name] * 3


def test_an_image_in_storage_is_not_asked_for(there: Podman) -> None:
    check(there)
    assert there.asked == [IMPORTED.image_id]
    there.stored = IMPORTED.image_id
    check(there)
    assert there.asked == [IMPORTED.image_id]


def test_storage_that_cannot_be_read_is_left_to_podman(there: Podman) -> None:
    roots = there.roots
    (there.graph / "overlay-images/images.json").write_text("{")
    (there.graph / "overlay-containers/containers.json").unlink()
    assert not storage.has_image(IMPORTED.image_id, roots.images)
    assert storage.taken((IMPORTED.name,), roots.graph) == []


def test_an_image_of_another_host_alone_is_not_asked_for(there: Podman) -> None:
    there.images.clear()
    with pytest.raises(NotFoundError, match="localhost/web:1"):
        check(there, config=replace(IMPORTED.config, rootfs_image_name="localhost/web:1"))
    assert there.pulled == []


def test_an_image_is_pulled_last(there: Podman) -> None:
    """Nothing is fetched for a container that cannot be."""
    there.images.clear()
    there.volumes.add("data")
    with pytest.raises(ExistsError):
        check(there, volumes={"data": "/v/data/_data"})
    assert there.pulled == []
