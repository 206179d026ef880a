"""What no restore can bring back is refused while the container runs; whatever else can come back does.

Two tables: a row is a container. What is `REFUSED` runs on, as it was; what `COMES_BACK` shows on the other host what
it showed before.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.conftest import Host, Move, Start
from tests.e2e.test_errors import refused

PROGRAMS = Path(__file__).parent / "programs"
OPEN = (PROGRAMS / "open_things.py").read_text()
PYTHON = "localhost/python"
DEEP = 'import os; name = 200 * "d"; os.chdir("/root"); [(os.mkdir(name), os.chdir(name)) for _ in range(25)]'
UNFILTERED = ("--security-opt", "seccomp=unconfined")
ROOT, NAMESPACE = "/srv/a-root", "before"


def opens(*what: str, options: tuple[str, ...] = ()) -> tuple[str, ...]:
    """A container that has `what` open (`open_things.py`)."""
    return (*options, PYTHON, "python3", "-c", OPEN, *what)


@dataclass(frozen=True)
class Case:
    """A container: how it is made, what is done on both hosts before and after, and in it."""

    name: str
    run: tuple[str, ...]
    before: str = ""
    inside: str = ""
    after: str = ""
    meanwhile: str = ""
    """What is done on the host once it runs."""
    code: int = 6
    sentence: str = ""
    hint: str = ""
    asking: bool = False
    """Whether the restore asks for something of the host."""
    see: str = ""
    """What shows in it whether all came back."""


def sleeper(*options: str) -> tuple[str, ...]:
    return (*options, PYTHON, "sleep", "1000")


REFUSED = (
    Case(
        "a volume under an overlay",
        ("--volume", "data:/data:O", "localhost/busybox"),
        sentence="has overlay or image volumes, which no checkpoint holds: /data",
    ),
    Case(
        "a directory under an overlay",
        ("--volume", "/srv/share:/data:O", "localhost/busybox"),
        sentence="has overlay or image volumes, which no checkpoint holds: /data",
    ),
    Case(
        "a directory as root",
        ("--rootfs", ROOT, "/counter.sh"),
        before=f"mkdir -p {ROOT}; c=$(podman create localhost/busybox); podman export $c | tar -x -C {ROOT}",
        after=f"rm -rf {ROOT}",
        sentence=rf"no image but the directory {ROOT} of this host as its root \(--rootfs\)",
    ),
    Case(
        "a network namespace of the host",
        ("--network", f"ns:/run/netns/{NAMESPACE}", "localhost/busybox"),
        before=f"ip netns add {NAMESPACE}",
        after=f"ip netns del {NAMESPACE}",
        sentence=f"in the network namespace /run/netns/{NAMESPACE} of this host",
    ),
    Case("a traced process", opens("traced"), sentence=r"process \d+ \(python3\) is traced by process \d+ \(python3\)"),
    Case("io_uring", opens("io_uring", options=UNFILTERED), sentence=r"process \d+ \(python3\) uses io_uring"),
    Case(
        "a deleted file of a volume that it only reads",
        ("--volume", "data:/data:ro", "localhost/busybox", "sh", "-c", "exec 7</data/f; sleep 1000"),
        before="podman run --rm -v data:/data localhost/busybox touch /data/f",
        meanwhile="podman exec web test -e /proc/1/fd/7 && podman run --rm -v data:/data localhost/busybox rm /data/f",
        sentence=r"process \d+ \(sleep\) has /data/f open, which is deleted, on a volume that it only reads",
    ),
    Case(
        "holes in /dev/shm",
        sleeper(),
        inside="truncate -s 8G /dev/shm/holes",
        sentence="files in /dev/shm that are 8589934592 bytes long with their holes",
    ),
    Case(
        "a path that is too long",
        sleeper(),
        inside=f"python3 -c '{DEEP}'",
        code=11,
        sentence="could not be captured: root/d+… has a path of more than 40.. bytes",
    ),
    Case(
        "a time that is too late",
        sleeper(),
        inside="touch --date 2400-01-01 /root/later",
        code=11,
        sentence="root/later is of a year after 2262, by its time",
    ),
    Case(
        "a deleted file that is too large",
        opens("deleted", "70000000"),
        sentence="a deleted file of more than 64 MiB, which no restore would take: the process has to close it first",
    ),
    Case(
        "a deleted file with another name",
        opens("linked"),
        code=12,
        sentence="has /root/linked open, which is deleted and has another name still",
        hint="has to close it",
    ),
    Case(
        "a watch on overlay",
        opens("inotify", "/root"),
        code=12,
        sentence="watches a file or directory",
        hint="irmap-scan-path /DIRECTORY",
    ),
)


def test_what_is_refused_runs_on(hosts: tuple[Host, Host], start: Start, ref: str) -> None:
    a, _ = hosts

    def play(case: Case) -> None:
        _start(a, start, case)
        was = a.inspect("web")["State"]
        refused(a.ocickpt("checkpoint", "web", ref, check=False), case.code, case.sentence, case.hint)
        now = a.inspect("web")["State"]
        assert (now["Status"], now["Pid"]) == ("running", was["Pid"])
        # It is not frozen either.
        cgroup = f"/sys/fs/cgroup$(sed -n s/^0:://p /proc/{was['Pid']}/cgroup)"
        assert "frozen 0" in a.sh(f"cat {cgroup}/cgroup.events")

    assert _troubles(hosts, REFUSED, play) == {}


COMES_BACK = (
    Case("an init that is a symlink", ("--init", "localhost/busybox"), asking=True, see="readlink /proc/1/exe"),
    Case(
        "a directory by a symlink",
        ("--volume", "/srv/link:/data", "localhost/busybox"),
        asking=True,
        before="mkdir -p /srv/real; echo there >/srv/real/file; ln -sfn real /srv/link",
        after="rm -rf /srv/real /srv/link",
        see="cat /data/file",
    ),
    Case(
        "a file by a symlink of a symlink",
        ("--volume", "/srv/link:/file:ro", "localhost/busybox"),
        asking=True,
        before="echo there >/srv/real; ln -sfn /srv/real /srv/other; ln -sfn other /srv/link",
        after="rm -f /srv/real /srv/other /srv/link",
        see="cat /file",
    ),
    Case(
        "symlinks longer than names",
        sleeper("--volume", "data:/data"),
        inside="n=$(printf 'x%.0s' $(seq 300)); for d in /root /data /dev/shm /tmp; do ln -s $n $d/link; done",
        see="readlink /root/link /data/link /dev/shm/link /tmp/link",
    ),
    Case(
        "a path that is just not too long",
        sleeper(),
        inside="cd /root; n=$(printf 'd%.0s' $(seq 254)); for i in $(seq 15); do mkdir $n; cd $n; done; echo x >f",
        see="find /root -type f -name f | wc -c",
    ),
    Case(
        "odd names, fifos, sockets, holes",
        sleeper("--volume", "data:/data", "--tmpfs", "/tmp"),
        inside=(
            "for d in /root /data /dev/shm /tmp; do cd $d; mkfifo fifo; touch $(printf '\\377\\376');"
            " python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"gone\")';"
            " truncate -s 1M holes; setfattr -n user.x -v 1 holes; done; truncate -s 1T /root/holes /data/holes"
        ),
        see="for d in /root /data /dev/shm /tmp; do ls -lAb --time-style=+ $d | grep -v -e gone -e total; done",
    ),
    Case(
        "a deleted file of sixty megabytes",
        opens("deleted", "60000000"),
        see="wc -c </proc/1/fd/3; md5sum </proc/1/fd/3",
    ),
)


def test_what_comes_back(hosts: tuple[Host, Host], start: Start, move: Move) -> None:
    a, b = hosts

    def play(case: Case) -> None:
        _start(a, start, case)
        before = a.execute("web", "sh", "-c", case.see)
        move("web", asking=case.asking)
        assert b.execute("web", "sh", "-c", case.see) == before
        assert before

    assert _troubles(hosts, COMES_BACK, play) == {}


CHANGES = """
    chmod 600 /etc/passwd; chown 33 /usr/bin/perl; touch --date 2001-01-01 /etc/group
    mv /usr/share/perl5 /moved; echo new >/moved/new; rm -r /moved/[A-F]*; mv /etc/shells /etc/shells2
"""
SEEN = """
    stat --format '%a %u %s %Y %n' /etc/passwd /usr/bin/perl /etc/group; md5sum /etc/passwd /usr/bin/perl /etc/shells2
    ls -d /usr/share/perl5 /etc/shells 2>&1; cd /moved; find . | sort | md5sum; find . -type f | sort | xargs md5sum
"""
METACOPY = """
    cp /etc/containers/storage.conf /tmp/metacopy.conf
    printf '[storage.options.overlay]\\nmountopt = "nodev,metacopy=on"\\n' >>/tmp/metacopy.conf
    export CONTAINERS_STORAGE_CONF=/tmp/metacopy.conf
"""


@pytest.mark.parametrize("asked_by", ["us", "podman"])
def test_content_that_is_in_another_layer(
    hosts: tuple[Host, Host], runtime: str, move: Move, ref: str, asked_by: str
) -> None:
    """metacopy=on, Fedora's default, which brings redirect_dir=on along: files and directories of the image that were
    changed have their content in the image's layers, some of it under other names."""
    a, b = hosts
    publishes = f"--annotation io.ocickpt.push={ref}" if asked_by == "podman" else ""
    a.sh(f"{METACOPY} podman --runtime {runtime} run --detach --name web {publishes} {PYTHON} sleep 1000")
    a.execute("web", "sh", "-c", CHANGES)
    upper = a.inspect("web")["GraphDriver"]["Data"]["UpperDir"]
    marks = a.out("getfattr", "--absolute-names", "-Rhdm", "trusted.overlay", upper)
    assert "metacopy" in marks and "redirect" in marks
    before = a.execute("web", "sh", "-c", SEEN)
    if asked_by == "podman":
        a.run("podman", "container", "checkpoint", "web")
        a.run("podman", "rm", "web")
        b.ocickpt("restore", ref)
    else:
        move("web")
    assert b.execute("web", "sh", "-c", SEEN) == before
    a.run("rm", "/tmp/metacopy.conf")


def test_other_storage_drivers(hosts: tuple[Host, Host], ref: str) -> None:
    a, _ = hosts
    conf = '[storage]\ndriver = "vfs"\ngraphroot = "/var/lib/vfs"\nrunroot = "/run/vfs"\n'
    with_vfs = ("env", "CONTAINERS_STORAGE_CONF=/tmp/vfs.conf")
    a.run("sh", "-c", "cat >/tmp/vfs.conf", stdin=conf)
    try:
        a.sh("podman save --quiet localhost/busybox | CONTAINERS_STORAGE_CONF=/tmp/vfs.conf podman load --quiet")
        a.run(*with_vfs, "podman", "run", "--detach", "--name", "web", "localhost/busybox")
        refused(a.run(*with_vfs, "ocickpt", "checkpoint", "web", ref, check=False), 6, "by the storage driver 'vfs'")
        assert a.out(*with_vfs, "podman", "ps", "--format", "{{.Names}}") == "web"
    finally:
        a.run(*with_vfs, "podman", "rm", "--all", "--force", "--time", "0")
        a.run("rm", "-rf", "/var/lib/vfs", "/run/vfs", "/tmp/vfs.conf")


@pytest.mark.parametrize("runtime", ["crun"], indirect=True)
def test_a_directory_of_a_volume(hosts: tuple[Host, Host], start: Start, ref: str) -> None:
    """runc starts no such container."""
    a, _ = hosts
    a.run("podman", "run", "--rm", "--volume", "data:/data", "localhost/busybox", "mkdir", "/data/sub")
    start("web", "--mount", "type=volume,source=data,destination=/x,subpath=/sub", "localhost/busybox")
    refused(a.ocickpt("checkpoint", "web", ref, check=False), 6, r"mounts only the directory /sub of the volume data")
    assert a.inspect("web")["State"]["Status"] == "running"


@pytest.mark.parametrize("runtime", ["crun"], indirect=True)
def test_a_network_that_is_not_there(hosts: tuple[Host, Host], start: Start, ref: str) -> None:
    a, b = hosts
    a.run("podman", "network", "create", "inner")
    try:
        start("web", "--network", "inner", "localhost/busybox")
        a.ocickpt("checkpoint", "web", ref)
        refused(
            b.ocickpt("restore", ref, check=False), 3, "in podman's network 'inner', which is not", "network create"
        )
        assert b.out("podman", "ps", "--all", "--quiet") == ""
    finally:
        a.clean()
        a.run("podman", "network", "rm", "--force", "inner")


def _start(a: Host, start: Start, case: Case) -> None:
    """Start the container of a case on host a, and do in it what is to be done."""
    start("web", *case.run)
    if case.inside:
        a.execute("web", "sh", "-c", case.inside)
    if OPEN in case.run:
        a.wait("sh", "-c", "podman logs web | grep -q open")
    if case.meanwhile:
        a.wait("sh", "-c", case.meanwhile)


def _troubles(hosts: tuple[Host, Host], cases: tuple[Case, ...], play: Callable[[Case], None]) -> dict[str, str]:
    """What is wrong with which case. All are played on the same hosts, which takes half the time."""
    found = {}
    for case in cases:
        try:
            for host in hosts:
                host.sh(case.before)
            play(case)
        except AssertionError as error:
            found[case.name] = str(error)
        finally:
            for host in hosts:
                host.clean()
                host.sh(case.after)
    return found
