"""What neither podman nor CRIU saves of a container: taken, held to bounds, given back to processes of this machine."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace as replaced
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from msgspec.structs import replace

from ocickpt import oci
from ocickpt.artifact.extras import Extras, File, Lost, Process, Socket, Thread, read
from ocickpt.description import USUAL_OPTIONS
from ocickpt.engine import attributes, mountinfo, sockets, threads
from ocickpt.engine.container import Container, Running
from ocickpt.engine.podman import config as libpod
from ocickpt.engine.podman import etc
from ocickpt.engine.podman.volumes import VolumeOptions
from ocickpt.errors import IntegrityError, UnsupportedError
from ocickpt.gate import confinement
from ocickpt.gate import extras as gate
from ocickpt.save import extras as take
from tests.unit.test_imported_config import load

ID = "5" * 64


@pytest.fixture
def process() -> Iterator[int]:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as child:
        yield child.pid
        child.kill()


def running(monkeypatch: pytest.MonkeyPatch, pid: int, **spec: Any) -> Running:
    found = oci.read_bundle(spec, "bundle's config.json")
    monkeypatch.setattr(confinement, "specification", lambda _: found)
    return Running(ID, "copy", "crun", Path("/v/overlay-containers", ID, "userdata"), pid, 1)


def container(started: str) -> Container:
    return cast("Container", SimpleNamespace(id=ID, name="web", started=started, restored_at="", servers=()))


def number(pid: int) -> int:
    return next(iter(threads.threads(pid))).ids[0]


def test_it_comes_back_as_it_was_written() -> None:
    found = Extras(
        (Lost("socket", "/a\n"),),
        (Thread(1, "a", 2, 7, 0),),
        (Process(1, 7),),
        (File("/etc/hosts", b"\xff\n"),),
        (Socket("/run/a", "/run/b"),),
    )
    assert Extras.from_bytes(found.to_bytes()) == found
    assert str(found.lost[0]).isprintable()


@pytest.mark.parametrize(
    "value",
    [
        {"threads": [{"id": 0}]},
        {"threads": [{"id": 1, "cpus": "-1"}]},
        {"threads": [{"id": 1, "cpus": "f" * ((1 << 14) + 1)}]},
        {"threads": [{"id": 1}, {"id": 1}]},
        {"threads": [{"id": each} for each in range(1, (1 << 16) + 2)]},
        {"processes": [{"id": 1, "coreFilter": 1}, {"id": 1, "coreFilter": 2}]},
        {"files": [{"path": "/etc/hosts", "content": ""}, {"path": "/etc/hosts", "content": ""}]},
        {"lost": [{"kind": "socket", "of": "\ud800x"}]},
        {"threads": [{"id": 1, "ioClass": 4}]},
        {"threads": [{"id": 1, "ioClass": 2, "ioLevel": 8}]},
        {"threads": [{"id": 1, "timerSlack": -1}]},
        {"processes": [{"id": 1, "coreFilter": 1 << 9}]},
        {"files": [{"path": "/etc/passwd", "content": ""}]},
        {"files": [{"path": "/etc/hosts", "content": "?"}]},
        {"sockets": [{"bound": "a", "path": "/b"}]},
        {"sockets": [{"bound": "/a", "path": "/b"}, {"bound": "/a", "path": "/c"}]},
        {"volumes": [{"name": "data", "type": "tmpfs"}, {"name": "data", "type": "tmpfs"}]},
        {"lost": [{"kind": "rootkit", "of": "1"}]},
        [],
    ],
    ids=lambda value: str(value)[:60],
)
def test_what_nobody_writes_is_refused(value: object) -> None:
    with pytest.raises(IntegrityError):
        Extras.from_bytes(json.dumps(value).encode())


def test_a_thread_gets_what_it_had(process: int, monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = min(attributes.all_cpus(None))
    saved = Extras(
        threads=(Thread(number(process), f"{1 << cpu | 1 << 60000:x}", 3, 0, 777),), processes=(Process(process, 1),)
    )
    assert gate.give_back(running(monkeypatch, process), saved, frozenset()) == []
    assert attributes.cpus(process) == {cpu}
    assert attributes.io_priority(process) == attributes.IoPriority(3, 0)
    assert attributes.timer_slack(process) == 777
    assert attributes.core_filter(process) == 1
    assert attributes.personality(process, process) == 0


def test_processors_that_are_not_here_are_told(process: int, monkeypatch: pytest.MonkeyPatch) -> None:
    before = attributes.cpus(process)
    saved = Extras(threads=(Thread(number(process), f"{3 << 60000:x}"), Thread(1 << 30, "1")))
    (told,) = gate.give_back(running(monkeypatch, process), saved, frozenset())
    assert told == "threads were bound to processors that are not here (60000, 60001): they run on any"
    assert attributes.cpus(process) == before


def test_real_time_is_not_for_everybody(process: int, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = Extras(threads=(Thread(number(process), "", 1, 0, 777),))
    (told,) = gate.give_back(running(monkeypatch, process), saved, frozenset())
    assert told == "threads had real-time I/O, which their container may not have: 1 come back without"
    assert attributes.io_priority(process) is None
    assert attributes.timer_slack(process) == 777


def taken(monkeypatch: pytest.MonkeyPatch, directory: Path, pid: int, conmon: int = 0, **spec: Any) -> Extras:
    """What is taken of a container of that process."""
    running(monkeypatch, pid, **spec)
    subject = SimpleNamespace(
        id=ID,
        name="web",
        pid=pid,
        conmon=conmon,
        volumes=(),
        bundle=directory / "0/1/2/3",
        started="",
        restored_at="",
        servers=(),
    )
    take.take(cast("Container", subject), directory)
    return read(directory)


def test_real_time_that_no_restore_gives_is_lost(process: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    attributes.set_io_priority(process, attributes.IoPriority(attributes.REAL_TIME, 3))
    found = taken(monkeypatch, tmp_path, process)
    assert (found.lost, found.threads) == ((Lost("io", str(process), "real-time"),), ())
    capable = {"capabilities": {"bounding": ["CAP_SYS_NICE"]}}
    found = taken(monkeypatch, tmp_path, process, process=capable)
    assert (found.lost, found.threads) == ((), (Thread(process, "", 1, 3),))


def test_processors_that_its_host_keeps_it_from_are_not_its_own(
    process: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cpu = min(attributes.cpus(process))
    monkeypatch.setattr(attributes, "all_cpus", lambda _: frozenset(range(cpu + 2)))
    attributes.bind(process, {cpu})
    assert taken(monkeypatch, tmp_path, process).threads == (Thread(process, f"{1 << cpu:x}"),)
    assert taken(monkeypatch, tmp_path, process, conmon=process).threads == ()
    assert taken(monkeypatch, tmp_path, process, conmon=1 << 22).threads != ()


def test_what_no_reader_takes_is_not_written(process: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(attributes, "personality", lambda *_: 8)
    monkeypatch.setattr("ocickpt.engine.freezer.tree", lambda _: [process])
    thread = next(iter(threads.threads(process)))
    many = [replaced(thread, ids=(each,)) for each in range(1, 301)]
    monkeypatch.setattr(threads, "threads", lambda _: many)
    assert len(taken(monkeypatch, tmp_path, process).lost) == 101
    assert str(read(tmp_path).lost[-1]) == "the same is so of 200 more"
    attributes.bind(process, {min(attributes.cpus(process))})
    monkeypatch.setattr(attributes, "all_cpus", lambda _: frozenset(range(1 << 8)))
    monkeypatch.setattr("ocickpt.artifact.extras.LIMIT", 3000)
    with pytest.raises(UnsupportedError, match="more of what CRIU leaves out"):
        taken(monkeypatch, tmp_path, process)


def test_no_process_keeps_its_container_from_being_saved(
    process: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """However long its timers may be late, however many sockets it renames: what is too much is cut, and that said."""
    attributes.set_timer_slack(process, (1 << 64) - 1)
    names = [(f"/run/{each}", f"/run/new{each}") for each in range(5000)]

    class Renaming:
        def __init__(self, *_: object) -> None: ...

        def renamed(self) -> tuple[list[tuple[str, str]], list[str]]:
            return names, [f"/run/lost{each}" for each in range(5000)]

    monkeypatch.setattr(sockets, "Bound", Renaming)
    found = taken(monkeypatch, tmp_path, process)
    assert [each.timer_slack for each in found.threads] == [(1 << 63) - 1]
    assert len(found.sockets) == 4096
    assert found.lost[-1] == Lost("more", str(5000 + 5000 - 4096 - 100))


def test_a_process_that_ends_meanwhile_gets_nothing(process: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ocickpt.engine.freezer.tree", lambda _: [1 << 22, process])
    saved = Extras(threads=(Thread(number(process), "", 0, 0, 777),))
    assert gate.give_back(running(monkeypatch, process), saved, frozenset()) == []
    assert attributes.timer_slack(process) == 777


def test_what_is_long_takes_little_memory() -> None:
    code = (
        "import resource\n"
        "from ocickpt.artifact.extras import LIMIT, Extras\n"
        "from ocickpt.errors import IntegrityError\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "data = b'{\"threads\":[' + b'{\"id\":1},' * ((LIMIT - 30) // 9) + b'{\"id\":1}]}'\n"
        "try: Extras.from_bytes(data)\nexcept IntegrityError as error: print(error)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    said, grown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert "length <= 65536" in said
    assert int(grown) < 100 << 10


def test_lists_of_processors() -> None:
    assert attributes._numbers("0-2,5\n") == {0, 1, 2, 5}
    assert attributes._numbers("\n") == frozenset()


MADE = b"127.0.0.1\tlocalhost\n10.88.0.1\thost.containers.internal host.docker.internal\n10.88.0.9\tffff copy\n"
SAVED = b"127.0.0.1 localhost\n10.88.0.2\t5555 web\n10.1.1.1 host.containers.internal\n10.9.9.9 mine web\n# of ours\n"


def test_an_etc_hosts_has_the_addresses_it_has_now() -> None:
    found = etc.merged(SAVED, MADE, {"5555", "web"}, {"ffff", "localhost"})
    assert found == (
        b"127.0.0.1 localhost\n10.88.0.9\tffff copy\n10.88.0.1\thost.containers.internal host.docker.internal\n"
        b"10.9.9.9 mine web\n# of ours\n"
    )


def specified(directory: Path) -> oci.Bundle:
    userdata = directory / "overlay-containers" / ID / "userdata"
    userdata.mkdir(parents=True, exist_ok=True)
    mounts = [
        {"destination": f"/etc/{name}", "type": "bind", "source": str(userdata / name)}
        for name in ("hosts", "resolv.conf", "hostname")
    ]
    mounts += [{"destination": "/etc/passwd", "type": "bind", "source": str(userdata / "passwd")}]
    return oci.read_bundle({"mounts": mounts}, "x")


def test_files_of_the_host_are_none_of_podmans(tmp_path: Path) -> None:
    spec = specified(tmp_path)
    assert set(etc.sources(spec, ID)) == set(etc.FILES)
    assert etc.sources(spec, "6" * 64) == {}
    assert (
        etc.sources(oci.read_bundle({"mounts": [{"destination": "/etc/hosts", "source": "/etc/hosts"}]}, "x"), ID) == {}
    )


def test_only_what_was_changed_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, subject = specified(tmp_path), container("2100-01-01T00:00:00.123456789Z")
    texts = {"/etc/hosts": b"127.0.0.1 localhost\n10.5.5.5 host\n", "/etc/resolv.conf": b"nameserver 10.5.5.1\n"}
    monkeypatch.setattr(etc, "_text", lambda path: texts.get(path, b""))
    places = etc.sources(spec, ID)
    for path, place in places.items():
        place.write_bytes(texts.get(path, b"web\n"))
    assert set(etc.changed(spec, subject)) == {"/etc/hostname"}
    places["/etc/hosts"].write_bytes(texts["/etc/hosts"] + b"10.9.9.9 mine\n")
    places["/etc/resolv.conf"].write_bytes(b"nameserver 10.5.5.2\n")
    assert set(etc.changed(spec, subject)) == set(etc.FILES)
    places["/etc/resolv.conf"].unlink()
    places["/etc/resolv.conf"].symlink_to("/etc/passwd")
    with pytest.raises(OSError, match="symbolic"):
        etc.changed(spec, subject)


def test_what_podman_writes_of_a_network_and_was_told_is_no_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, subject = specified(tmp_path), container("2100-01-01T00:00:00Z")
    monkeypatch.setattr(etc, "_text", lambda _: b"")
    subject.servers = ("10.89.0.1",)  # type: ignore[misc]
    places = etc.sources(spec, ID)
    places["/etc/resolv.conf"].write_bytes(b"search dns.podman\nnameserver 10.89.0.1\nnameserver 9.9.9.9\n")
    places["/etc/hosts"].write_bytes(b"10.1.1.1 db cache\n10.2.2.2 gate\n")
    places["/etc/hostname"].unlink(missing_ok=True)
    config = libpod.Config(dns_server=["9.9.9.9"], hosts_add=["db;cache:10.1.1.1", "gate:host-gateway"])
    assert etc.changed(spec, subject, etc.given(config)) == {}
    assert set(etc.changed(spec, subject)) == {"/etc/hosts", "/etc/resolv.conf"}


@pytest.mark.parametrize("how", ["root", "mount"])
def test_what_the_container_cannot_write_is_left_alone(
    how: str, process: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounts = [
        {"destination": "/etc/hosts", "type": "bind", "source": f"{tmp_path}/overlay-containers/{ID}/userdata/hosts"}
    ]
    place = Path(mounts[0]["source"])
    place.parent.mkdir(parents=True)
    place.write_bytes(b"10.9.9.9 mine\n")
    given: dict[str, Any] = {"mounts": mounts} | ({"root": {"readonly": True}} if how == "root" else {})
    given["mounts"][0]["options"] = ["rbind", "rw" if how == "root" else "ro"]
    assert etc.changed(oci.read_bundle(given, "x"), container("2100-01-01T00:00:00Z")) == {}
    saved = Extras(files=(File("/etc/hosts", b"10.9.9.9 other\n"),))
    told = gate.give_back(running(monkeypatch, process, **given), saved, frozenset())
    assert told == ["its changes to /etc/hosts are not given back: the container cannot write it"]
    assert place.read_bytes() == b"10.9.9.9 mine\n"


def test_a_file_that_is_too_long_is_lost_and_not_cut(
    process: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    userdata = tmp_path / "overlay-containers" / ID / "userdata"
    userdata.mkdir(parents=True)
    mounts = [{"destination": "/etc/hosts", "type": "bind", "source": f"{userdata}/hosts"}]
    for length, whole in ((etc.LIMIT, True), (etc.LIMIT + 1, False)):
        (userdata / "hosts").write_bytes(b"10.9.9.9 mine\n".ljust(length, b"#"))
        found = taken(monkeypatch, tmp_path, process, mounts=mounts)
        assert [len(each.content) for each in found.files] == ([length] if whole else [])
        assert found.lost == (() if whole else (Lost("file", "/etc/hosts", str(etc.LIMIT)),))


def test_a_long_etc_hosts_takes_no_time() -> None:
    saved = b"1 w\n#\n" * 150000
    begun = time.process_time()
    found = etc.merged(saved + b"10.9.9.9 mine\n", MADE, {"w"}, {"ffff"})
    assert found.startswith(b"10.88.0.9\tffff copy\n#\n")
    assert found.endswith(b"#\n10.9.9.9 mine\n")
    assert time.process_time() - begun < 5


def test_a_file_put_back_is_taken_again(tmp_path: Path) -> None:
    spec = specified(tmp_path)
    place = etc.sources(spec, ID)["/etc/resolv.conf"]
    place.write_bytes(b"nameserver 8.8.8.8\n")
    etc.put_back("/etc/resolv.conf", b"# none\n", place, (), ())
    assert place.read_bytes() == b"# none\n"
    subject = container("2100-01-01T00:00:00Z")
    if etc._MARK in os.listxattr(place):  # not every filesystem takes it
        assert etc.changed(spec, subject)["/etc/resolv.conf"] == b"# none\n"


def bound() -> sockets.Bound:
    return sockets.Bound(os.getpid(), [os.getpid()])


def anywhere(_: mountinfo.Mount) -> bool:
    return True


def test_a_socket_gets_the_name_it_had_last(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as first, socket.socket(socket.AF_UNIX) as other:
        first.bind(str(tmp_path / "first"))
        other.bind(str(tmp_path / "ke\npt"))
        assert bound().renamed() == ([], [])
        (tmp_path / "first").rename(tmp_path / "last")
        pair = str(tmp_path / "first"), str(tmp_path / "last")
        assert bound().renamed() == ([pair], [])
        (tmp_path / "ke\npt").rename(tmp_path / "moved")
        assert bound().renamed() == ([pair, (f"{tmp_path}/ke\npt", f"{tmp_path}/moved")], [])
        (tmp_path / "last").rename(tmp_path / "first")
        bound().rename(*pair, anywhere)
        assert (tmp_path / "last").is_socket()


def test_a_socket_that_nobody_has_any_more_is_none_of_the_containers(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as kept:
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(str(tmp_path / "stale"))
        kept.bind(str(tmp_path / "gone"))
        (tmp_path / "gone").unlink()
        assert bound().renamed() == ([], [])
        with pytest.raises(OSError, match="no socket of the container"):
            bound().rename(f"{tmp_path}/stale", f"{tmp_path}/b", anywhere)
        (tmp_path / "stale").rename(tmp_path / "gone")  # as one of the host that has the name it was bound to
        with pytest.raises(OSError, match="no socket of the container"):
            bound().rename(f"{tmp_path}/gone", f"{tmp_path}/b", anywhere)


def test_two_sockets_of_one_name_are_told_apart_by_nobody(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as first, socket.socket(socket.AF_UNIX) as second:
        first.bind(str(tmp_path / "a"))
        (tmp_path / "a").rename(tmp_path / "b")
        second.bind(str(tmp_path / "a"))
        assert bound().renamed() == ([], [str(tmp_path / "a")])


def test_nothing_else_is_renamed(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with socket.socket(socket.AF_UNIX) as own:
        own.bind(str(tmp_path / "a"))
        for old, new in (("file", "b"), ("a", "file"), ("a", "../b"), ("a", ""), ("none", "b")):
            with pytest.raises(OSError):
                bound().rename(f"{tmp_path}/{old}", f"{tmp_path}/{new}", anywhere)
        with pytest.raises(OSError, match="not the container's own"):
            bound().rename(f"{tmp_path}/a", f"{tmp_path}/b", lambda _: False)
        assert sorted(each.name for each in tmp_path.iterdir() if not each.is_dir()) == ["a", "file"]


@pytest.mark.parametrize(
    ("mounts", "root", "own"),
    [
        ([], "/x", False),
        ([{"destination": "/run", "type": "tmpfs"}], "/", True),
        ([{"destination": "/run", "type": "bind", "source": "/run/postgresql"}], "/postgresql", False),
        ([{"destination": "/run", "type": "bind", "source": "/v/volumes/data/_data"}], "/v/volumes/data/_data", True),
        ([{"destination": "/run", "type": "bind", "source": "/v/volumes/data/_data"}], "/srv", False),
        ([{"destination": "/run", "type": "bind", "source": "/v/volumes/host/_data"}], "/v/volumes/host/_data", False),
        ([{"destination": "/run", "type": "bind", "source": "/srv/data/_data"}], "/srv/data/_data", False),
        ([{"destination": "/run", "type": "bind", "source": "/srv/volumes/x/_data"}], "/srv/volumes/x/_data", False),
        (
            [{"destination": "/run", "type": "bind", "source": f"/v/overlay-containers/{ID}/userdata/shm"}],
            "/",
            True,
        ),
    ],
    ids=str,
)
def test_no_socket_is_renamed_in_what_is_the_hosts(
    process: int, monkeypatch: pytest.MonkeyPatch, mounts: list[Any], root: str, own: bool
) -> None:
    mount = mountinfo.Mount(1, 1, root, "/run", (), "ext4")

    class Asked:
        def __init__(self, *_: object) -> None: ...

        def rename(self, _bound: str, _path: str, may: Callable[[mountinfo.Mount], bool]) -> None:
            assert may(mount) == own
            assert may(mount._replace(point="/"))

    monkeypatch.setattr(sockets, "Bound", Asked)
    saved = Extras(sockets=(Socket("/run/a", "/run/b"),), volumes=(VolumeOptions("host", "none", "/srv", "bind"),))
    assert gate.give_back(running(monkeypatch, process, mounts=mounts), saved, frozenset()) == []


@pytest.mark.parametrize(
    ("name", "kind", "own"), [("data", "tmpfs", True), ("data", "ext4", False), ("host", "tmpfs", False)]
)
def test_a_socket_in_a_volume_in_memory(
    process: int, monkeypatch: pytest.MonkeyPatch, name: str, kind: str, own: bool
) -> None:
    mount, told = mountinfo.Mount(1, 1, "/", "/run", (), kind), list[bool]()

    class Asked:
        def __init__(self, *_: object) -> None: ...

        def rename(self, _bound: str, _path: str, may: Callable[[mountinfo.Mount], bool]) -> None:
            told.append(may(mount))

    monkeypatch.setattr(sockets, "Bound", Asked)
    volumes = (VolumeOptions("host", "none", "/srv", "bind"), VolumeOptions("data", "tmpfs"))
    mounts = [{"destination": "/run", "type": "bind", "source": f"/v/volumes/{name}/_data"}]
    saved = Extras(sockets=(Socket("/run/a", "/run/b"),), volumes=volumes)
    gate.give_back(running(monkeypatch, process, mounts=mounts), saved, frozenset())
    assert told == [own]


def test_what_cannot_be_given_back_is_told(process: int, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = Extras((Lost("personality", "7", "0x8"),), sockets=(Socket("/nowhere/a", "/nowhere/b"),))
    told = gate.give_back(running(monkeypatch, process), saved, frozenset())
    assert told == [
        "process 7 has the personality 0x8, which cannot be given back: it comes back without",
        "the name '/nowhere/b' of a unix socket cannot be given back: No such file or directory",
    ]


@pytest.mark.parametrize(
    ("made", "option"),
    [
        ({"type": "tmpfs", "device": "tmpfs", "o": "size=4m,mode=1770,nodev"}, ""),
        ({"o": "uid=1000,gid=1000"}, ""),
        ({"type": "tmpfs", "o": "dev,suid"}, "volume-opt=held:type=tmpfs,o=dev,suid"),
        ({"type": "tmpfs", "device": "a b"}, "volume-opt=held:type=tmpfs,device=a b"),
        ({"o": "x"}, "volume-opt=held:o=x"),
        (
            {"type": "none", "device": "/srv/held", "o": "bind"},
            "volume-opt=held:type=none,device=/srv/held,o=bind",
        ),
        ({"device": "/dev/vda"}, "volume-opt=held:device=/dev/vda"),
    ],
    ids=str,
)
def test_a_volume_of_the_host_is_asked_for(made: dict[str, str], option: str) -> None:
    asked = VolumeOptions("held", **made).asked()
    assert (asked.option if asked else "") == option


@pytest.mark.parametrize("word", ["bind", "rbind", "move", "remount"])
@pytest.mark.parametrize("kind", ["tmpfs", "ramfs"])
def test_a_type_does_not_make_a_directory_memory(kind: str, word: str) -> None:
    """mount(8) binds what is there, whatever type it is told."""
    made = VolumeOptions("held", kind, "/srv/held", f"size=4m,{word}")
    assert made.is_of_host
    assert made.asked()
    assert not made.is_memory
    assert VolumeOptions("held", kind, "/srv/held", "size=4m").is_memory


@pytest.mark.parametrize("key", ["type", "device", "o"])
def test_what_mount_would_take_for_an_option_is_no_volume(key: str) -> None:
    with pytest.raises(IntegrityError):
        VolumeOptions("held", **{key: "--bind"}).asked()


@pytest.mark.parametrize("key", ["type", "device"])
def test_what_could_be_another_volume_is_not_asked_for(key: str) -> None:
    with pytest.raises(IntegrityError, match="comma"):
        VolumeOptions("held", **{key: "none,o=bind"}).asked()


def test_a_container_has_the_volumes_that_are_made() -> None:
    found = load().making((VolumeOptions("vol1", "none", "/srv/x", "bind"),))
    assert "volume-opt=vol1:type=none,device=/srv/x,o=bind" in [each.option for each in found.asked]
    with pytest.raises(IntegrityError):
        load().making((VolumeOptions("other", "tmpfs"),))


def test_the_flags_of_a_dump_are_those_of_its_restore() -> None:
    assert USUAL_OPTIONS.replayed == ()
    made = replace(USUAL_OPTIONS, file_locks=True, tcp_established=True)
    assert made.replayed == ("--tcp-established", "--file-locks")
