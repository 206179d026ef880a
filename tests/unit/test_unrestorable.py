"""What no restore can bring back: asked of podman's records and of /proc, one row after the other."""

from __future__ import annotations

import errno
import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from ocickpt.engine import criu, freezer, mountinfo
from ocickpt.engine.mountinfo import Mount
from ocickpt.engine.podman import database
from ocickpt.errors import UnsupportedError
from ocickpt.save import unrestorable
from tests.unit.test_podman_database import ID, bundle

WHOLE: dict[str, Any] = {"rootfsImageName": "localhost/web:latest", "createNetNS": True}


@contextmanager
def refused(sentence: str) -> Iterator[None]:
    with pytest.raises(UnsupportedError, match=sentence) as error:
        yield
    assert "'web'" in error.value.message


def checked(graph: Path, config: dict[str, Any] | None = None, spec: dict[str, Any] | None = None) -> None:
    """Ask all of a container with these changes to its configuration and its specification."""
    made = bundle(graph, WHOLE | (config or {}))
    path = made / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | (spec or {})))
    found = database.read(made)
    unrestorable.check_recorded(found.container, found.config, processes=False)


def test_an_ordinary_container(tmp_path: Path) -> None:
    checked(tmp_path, {"namedVolumes": []}, {"mounts": []})


def cgroups(*options: str, capabilities: tuple[str, ...] = (), own: bool = True) -> dict[str, Any]:
    """The specification of a container with these mount options of its cgroups."""
    kinds = ("pid", "ipc", "mount", "network", *(("cgroup",) if own else ()))
    mount = {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": list(options)}
    return {
        "mounts": [mount],
        "process": {"capabilities": {"bounding": list(capabilities)}},
        "linux": {"namespaces": [{"type": each} for each in kinds]},
    }


def test_cgroups_that_it_may_write_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ignored: list[str] = []
    monkeypatch.setattr(criu, "ignores_cgroups", ignored.__contains__)
    plain: dict[str, Any] = {"namedVolumes": []}
    checked(tmp_path / "a", plain, cgroups("rw"))
    ignored.append("crun")
    with refused("may write to its cgroups, which a restore cannot give it: /etc/criu/crun.conf has CRIU leave"):
        checked(tmp_path / "b", plain, cgroups("rw"))
    checked(tmp_path / "c", plain, cgroups("nosuid", "ro"))
    checked(tmp_path / "d", plain, cgroups("rw", own=False))
    checked(tmp_path / "e", plain, cgroups("rw", capabilities=("CAP_SYS_ADMIN",)))


OVERLAID = {"destination": "/x", "type": "overlay", "source": "overlay", "options": ["lowerdir=/a"]}
JOINED = [{"type": each} for each in ("pid", "ipc", "mount")] + [{"type": "network", "path": "/run/netns/blue"}]


@pytest.mark.parametrize(
    ("config", "spec", "sentence"),
    [
        ({"pod": "p"}, {}, "part of a pod"),
        ({"netNsCtr": "cd" * 32}, {}, "shares namespaces with another container"),
        ({"rootfs": "/srv/root"}, {}, "no image but the directory /srv/root of this host"),
        ({"runtime": "/usr/bin/kata"}, {}, "runs under 'kata'; only"),
        ({"cgroupsMode": "disabled"}, {}, "no cgroup of its own"),
        ({"overlayVolumes": [{"dest": "/y"}]}, {}, "overlay or image volumes, which no checkpoint holds: /y"),
        ({"namedVolumes": []}, {"mounts": [OVERLAID]}, "overlay or image volumes, which no checkpoint holds: /x"),
        (
            {"namedVolumes": [{"volumeName": "data", "dest": "/data", "SubPath": "/sub"}]},
            {},
            "only the directory /sub of the volume data",
        ),
        (
            {"networkMode": "ns:/run/netns/blue", "createNetNS": False},
            {"linux": {"namespaces": JOINED}},
            "in the network namespace /run/netns/blue of this host",
        ),
        ({"createNetNS": False}, {"linux": {"namespaces": JOINED}}, "in the network namespace /run/netns/blue"),
        # No row of its own: what a restore would say.
        ({"networkMode": "slirp4netns"}, {}, "no restore would take container 'web': .*'slirp4netns'"),
        (
            {"namedVolumes": []},
            {"mounts": [{"destination": "/n", "type": "nfs"}]},
            "no restore would take container 'web': .* of the type 'nfs'",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_refused(tmp_path: Path, config: dict[str, Any], spec: dict[str, Any], sentence: str) -> None:
    with refused(sentence):
        checked(tmp_path, config, spec)


def test_another_storage_driver(tmp_path: Path) -> None:
    with refused("storage driver 'overlay'; checkpoints of overlay alone"):  # as if it had no upper directory
        checked(tmp_path, spec={"root": {"path": "/elsewhere"}})


@pytest.fixture
def seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> database.Recorded:
    """A container whose one process is this one."""
    monkeypatch.setattr(freezer, "tree", lambda _: [os.getpid()])
    monkeypatch.setattr(freezer, "tracer", lambda _: 0)
    made = bundle(tmp_path, WHOLE | {"namedVolumes": []})
    path = made / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"mounts": []}))
    return database.read(made)


def ask(found: database.Recorded) -> None:
    unrestorable.check_recorded(found.container, found.config, processes=True)


def test_processes_that_are_traced(seen: database.Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    ask(seen)
    monkeypatch.setattr(freezer, "tracer", lambda _: 1)
    with refused(rf"process {os.getpid()} \(.+\) is traced by process 1 \(.+\)"):
        ask(seen)


def test_deleted_files_where_nothing_can_be_written(
    seen: database.Recorded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (tmp_path / "gone").open("w") as file:
        mount = mountinfo.id_of(file.fileno())
        (tmp_path / "gone").unlink()
        ask(seen)
        read_only = Mount(mount, 0, "/", "/", ("ro", "relatime"), "ext4")
        monkeypatch.setattr(mountinfo, "mounts", lambda _: iter([read_only]))
        with refused(r"has /.+ open, which is deleted"):
            ask(seen)


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ESRCH, errno.EINVAL, errno.EIO])
def test_who_ends_while_its_deleted_files_are_looked_at(
    seen: database.Recorded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def ended(_: object) -> Iterator[Mount]:
        raise OSError(number, os.strerror(number))

    with (tmp_path / "gone").open("w"):
        (tmp_path / "gone").unlink()
        monkeypatch.setattr(mountinfo, "mounts", ended)
        with pytest.raises(OSError, match="/output") if number == errno.EIO else nullcontext():
            ask(seen)


def test_a_volume_that_nobody_could_allow(tmp_path: Path) -> None:
    made = bundle(tmp_path, WHOLE)
    with closing(sqlite3.connect(tmp_path / "db.sql")) as records:
        options = {"volumeOptions": {"type": "none", "device": "/srv/a,b", "o": "bind"}}
        records.execute("INSERT INTO VolumeConfig VALUES ('data', ?)", (json.dumps(options),))
        records.commit()
    spec = json.loads((made / "config.json").read_text())
    for mount in spec["mounts"]:
        mount |= {"type": "bind", "source": f"{tmp_path}/volumes/data/_data"}
    (made / "config.json").write_text(json.dumps(spec))
    found = database.read(made)
    with refused("no restore would take container 'web': the volume data has .* a comma"):
        unrestorable.check_recorded(found.container, found.config, processes=False)


def test_io_uring(seen: database.Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "readlink", lambda _: "anon_inode:[io_uring]")
    with refused("uses io_uring"):
        ask(seen)


def test_a_process_that_ends_meanwhile(seen: database.Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(freezer, "tree", lambda _: [2**22 + 1])
    ask(seen)


def test_holes_in_shared_memory(seen: database.Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    shm = seen.container.shm
    shm.mkdir()
    monkeypatch.setattr(Path, "is_mount", lambda _: True)
    (shm / "small").write_bytes(b"x")
    ask(seen)
    with (shm / "large").open("wb") as file:
        file.truncate(1 << 42)
    size = os.statvfs(shm).f_blocks * os.statvfs(shm).f_frsize
    with refused(f"{(1 << 42) + 1} bytes long with their holes, more than the {size} bytes it has"):
        ask(seen)


def test_a_file_in_shared_memory_that_is_removed_just_now(
    seen: database.Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    shm, usual = seen.container.shm, os.stat
    shm.mkdir()
    monkeypatch.setattr(Path, "is_mount", lambda _: True)
    (shm / "gone").write_bytes(b"x")

    def unlinked(path: Any, **more: Any) -> os.stat_result:
        found = usual(path, **more)
        return os.stat_result((*found[:3], 0, *found[4:])) if path == "gone" else found

    monkeypatch.setattr(os, "stat", unlinked)
    ask(seen)


def test_where_podman_keeps_its_records_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In BoltDB, as podman 4 did: what the specification says is known all the same."""
    made = bundle(tmp_path, WHOLE)
    found = database.read(made)
    (tmp_path / "db.sql").unlink()
    path = made / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"mounts": [OVERLAID]}))
    monkeypatch.setattr(freezer, "tree", lambda _: [])
    with refused("overlay or image volumes"):
        unrestorable.check(found.container)
    assert found.container.id == ID
