"""What neither podman nor CRIU brings back comes back with us, or is said at both ends."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Host, Start
from tests.e2e.reports import REPORTS

PROGRAM = (Path(__file__).parent / "programs" / "comes_back.py").read_text()
STILL_HELD = """
import fcntl
for path, lock in (("/tmp/whole", fcntl.flock), ("/tmp/record", fcntl.lockf)):
    try:
        lock(open(path, "r+"), fcntl.LOCK_EX | fcntl.LOCK_NB)
        print(path, "is free")
    except OSError:
        print(path, "is held")
"""
HELD = "/tmp/whole is held\n/tmp/record is held"
EDIT = (
    "echo '10.9.9.9 mine' >>/etc/hosts; echo 'nameserver 10.9.9.8 # ours' >>/etc/resolv.conf; echo box >/etc/hostname"
)
ATTRIBUTES = {"process": [0, 2 << 13 | 6, 777777], "thread": [1, 3 << 13, 5], "core": 7}


def state(host: Host, container: str) -> dict[str, Any]:
    """What the process sees from now on."""

    def read() -> dict[str, Any]:
        found: dict[str, Any] = json.loads(host.wait("podman", "exec", container, "cat", "/state"))
        return found

    before = read()
    end = time.monotonic() + 20
    while (now := read())["tick"] < before["tick"] + 3:
        assert time.monotonic() < end, f"it stands still: {now}"
    return now


def attributes(host: Host, container: str) -> None:
    assert state(host, container).items() >= ATTRIBUTES.items()


def renamed_socket(host: Host, container: str) -> None:
    assert state(host, container)["tmp"] == [".attach"]


def held_locks(host: Host, container: str) -> None:
    state(host, container)
    assert host.execute(container, "python3", "-c", STILL_HELD) == HELD


def connected(host: Host, container: str) -> None:
    assert state(host, container)["heard"] == "x"


def edited(host: Host, container: str) -> None:
    hosts = host.execute(container, "cat", "/etc/hosts")
    assert "10.9.9.9 mine" in hosts.splitlines()
    if address := host.address(container):
        assert [line.split()[0] for line in hosts.splitlines() if line.split()[2:] == [container]] == [address]
    assert host.execute(container, "cat", "/etc/resolv.conf").endswith("nameserver 10.9.9.8 # ours")
    assert host.execute(container, "cat", "/etc/hostname") == "box"


def seen_open(host: Host, container: str) -> None:
    assert "mine" in state(host, container)["hosts"]


def annotated(host: Host, container: str) -> None:
    assert host.inspect(container)["Config"]["Annotations"]["my.app"] == "of ours"


def in_memory(host: Host, container: str) -> None:
    mounted = host.execute(container, "sh", "-c", "grep ' /held ' /proc/mounts; cat /held/file").splitlines()
    assert mounted[0].startswith("tmpfs /held tmpfs")
    assert "size=4096k" in mounted[0]
    assert mounted[1:] == ["kept"]


def each_of(*seen: Callable[[Host, str], None]) -> Callable[[Host, str], None]:
    def look(host: Host, container: str) -> None:
        for each in seen:
            each(host, container)

    return look


@dataclass(frozen=True)
class Case:
    """A container, what is done in it, and what has to be seen from inside then, before and after."""

    seen: Callable[[Host, str], None]
    has: str = ""
    """Arguments of the program."""
    run: tuple[str, ...] = ()
    """Options of `podman run`."""
    inside: str = ""
    checkpoint: tuple[str, ...] = ()
    restore: tuple[str, ...] = ()
    volume: tuple[str, ...] = ()
    """Options of `podman volume create`, of a volume called `held`."""
    name: str = "it"
    """What it is called after the restore."""
    moves: int = 1


CASES = {
    "locks and a connection": Case(
        each_of(held_locks, connected), "locks connection", checkpoint=("--file-locks", "--tcp-established")
    ),
    "threads, a socket and podman's files, there and back": Case(
        each_of(attributes, renamed_socket, edited), "attributes socket", inside=EDIT, moves=2
    ),
    "the same, lazily, open and as a copy": Case(
        each_of(attributes, renamed_socket, edited, seen_open),
        "attributes socket hosts",
        inside=EDIT,
        restore=("--lazy", "--name", "other"),
        name="other",
    ),
    "a note and a volume in memory": Case(
        each_of(annotated, in_memory),
        run=("--annotation", "my.app=of ours", "--volume", "held:/held"),
        inside="echo kept >/held/file",
        volume=("--opt=type=tmpfs", "--opt=device=tmpfs", "--opt=o=size=4m,mode=1770"),
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_it_comes_back(hosts: tuple[Host, Host], start: Start, ref: str, case: Case) -> None:
    if case.volume:
        hosts[0].run("podman", "volume", "create", *case.volume, "held")
    start("it", *case.run, "localhost/python", "python3", "-c", PROGRAM, *case.has.split())
    here, there, name = *hosts, "it"
    state(here, name)
    if case.inside:
        here.execute(name, "sh", "-c", case.inside)
    case.seen(here, name)
    for _ in range(case.moves):
        here.ocickpt("checkpoint", "--quiet", *case.checkpoint, name, ref)
        there.ocickpt("restore", "--quiet", *case.restore, ref)
        name = case.name
        case.seen(there, name)
        here.clean()
        here, there = there, here


def test_an_undone_checkpoint_has_its_locks_and_connections(hosts: tuple[Host, Host], start: Start) -> None:
    """The store is full when the container has been dumped: it is restored in its place."""
    a, _ = hosts
    start("it", "localhost/python", "python3", "-c", PROGRAM, "attributes", "connection", "locks")
    held_locks(a, "it")
    a.sh("mkdir /tmp/full && mount -t tmpfs -o size=256k,mode=700 none /tmp/full")
    try:
        options = ("--file-locks", "--tcp-established", "it", "oci:/tmp/full:1")
        assert a.ocickpt("checkpoint", *options, check=False).returncode == 11
    finally:
        a.sh("umount /tmp/full && rmdir /tmp/full")
    held_locks(a, "it")
    connected(a, "it")
    attributes(a, "it")


def test_an_undone_checkpoint_has_what_was_on_its_way(hosts: tuple[Host, Host], start: Start) -> None:
    """Megabytes that a connection within the container has not taken yet: no packet gets a reset meanwhile."""
    a, _ = hosts
    report = next(each for each in REPORTS if each.source == "criu#2446")
    start("it", *report.run)
    a.execute("it", "sh", "-ec", report.inside)
    a.sh("mkdir /tmp/full && mount -t tmpfs -o size=256k,mode=700 none /tmp/full")
    try:
        assert a.ocickpt("checkpoint", *report.checkpoint, "it", "oci:/tmp/full:1", check=False).returncode == 11
    finally:
        a.sh("umount /tmp/full && rmdir /tmp/full")
    a.execute("it", "sh", "-ec", report.seen)


def test_what_something_acts_on_is_asked_for(hosts: tuple[Host, Host], start: Start, ref: str) -> None:
    a, b = hosts
    start("it", "--annotation", f"io.ocickpt.push={ref}x", "localhost/busybox", "/counter.sh")
    a.ocickpt("checkpoint", "--quiet", "it", ref)
    option = f"annotation=io.ocickpt.push={ref}x"
    assert option in a.ocickpt("inspect", ref).stdout
    told = b.ocickpt("restore", ref).stderr
    assert (
        f"without the annotation io.ocickpt.push, by which its later checkpoints are published; --allow {option}"
        in told
    )
    assert "io.ocickpt.push" not in b.inspect("it")["Config"]["Annotations"]
    b.clean()
    b.ocickpt("restore", "--allow", option, ref)
    assert b.inspect("it")["Config"]["Annotations"]["io.ocickpt.push"] == f"{ref}x"


LOST = (
    "the volume held is /srv/held of its host, and what is in it is not in the checkpoint",
    "process 1 has the personality 0x20000, which cannot be given back: it comes back without",
)


def test_what_is_not_saved_is_said_at_both_ends(hosts: tuple[Host, Host], start: Start, ref: str) -> None:
    """A volume of the host is asked for, and left as it is."""
    a, b = hosts
    for host in hosts:
        host.sh(f"mkdir -p /srv/held && echo {host.name} >/srv/held/file")
    try:
        a.run("podman", "volume", "create", "--opt=type=none", "--opt=device=/srv/held", "--opt=o=bind", "held")
        start("it", "--volume", "held:/held", "localhost/python", "python3", "-c", PROGRAM, "personality")
        state(a, "it")
        made, shown = a.ocickpt("checkpoint", "it", ref).stderr, a.ocickpt("inspect", ref).stdout
        given = b.refused("restore", ref)
        assert given == ["--allow", "volume-opt=held:type=none,device=/srv/held,o=bind"]
        assert b.out("podman", "volume", "ls", "--quiet") == ""
        restored = b.ocickpt("restore", *given, ref).stderr
        for told in LOST:
            assert all(told in said for said in (made, shown, restored)), told
        assert b.execute("it", "cat", "/held/file") == "b"
        b.execute("it", "sh", "-c", "echo more >>/held/file")
        assert b.sh("cat /srv/held/file") == "b\nmore"
    finally:
        for host in hosts:
            host.clean()
            host.sh("rm -r /srv/held")


ENDS = """
import os, time
os.write(1, b"begun\\n")
last = time.time()
while (now := time.time()) < last + 2:
    last = now
os.write(1, b"done\\n")
os._exit(7)
"""
"""Ends as soon as it is let go: it sees that it stood still for long."""


@pytest.mark.parametrize("command", [("ocickpt", "checkpoint", "-R"), ("podman", "container", "checkpoint", "-R")])
def test_who_sleeps_while_it_is_dumped_sleeps_on(
    hosts: tuple[Host, Host], start: Start, ref: str, command: tuple[str, ...]
) -> None:
    """CRIU has the call fail, and the end of busybox's sleep is the container's."""
    a, _ = hosts
    ours = command[0] == "ocickpt"
    start("it", *([] if ours else ["--annotation", f"io.ocickpt.push={ref}"]), "localhost/busybox", "sleep", "1000")
    a.wait("podman", "exec", "it", "grep", "-q", "nanosleep", "/proc/1/wchan")
    a.run(*command, "it", *([ref] if ours else []))
    time.sleep(0.5)
    assert a.inspect("it")["State"]["Status"] == "running"


@pytest.mark.parametrize(("removed", "options"), [(False, ()), (False, ("--lazy",)), (True, ())])
def test_who_ends_at_once_has_not_failed(
    hosts: tuple[Host, Host], start: Start, ref: str, options: tuple[str, ...], removed: bool
) -> None:
    """It ends with its first instruction."""
    a, b = hosts
    own = ["--rm"] if removed else []
    start("it", *own, "localhost/python", "python3", "-c", ENDS)
    a.wait("sh", "-c", "podman logs it | grep begun")
    a.ocickpt("checkpoint", "--quiet", "it", ref)
    time.sleep(2)
    assert b.ocickpt("restore", "--quiet", *options, ref).returncode == 0
    if removed:
        b.wait("sh", "-c", "! podman container exists it")
    else:
        assert b.out("podman", "wait", "it") == "7"
        assert b.out("podman", "logs", "it") == "begun\ndone"
