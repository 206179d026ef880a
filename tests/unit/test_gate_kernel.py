"""What the kernel says of a process, held against a specification: real ones, which are more than they should be."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ocickpt import oci
from ocickpt.engine import freezer, mountinfo, threads
from ocickpt.engine.container import Running
from ocickpt.errors import IntegrityError
from ocickpt.gate import reach
from ocickpt.gate.expected import Expected
from ocickpt.gate.kernel import descriptors, mounts, tasks
from ocickpt.trust.capabilities import capability_names

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces"),
    pytest.mark.xdist_group("podman"),  # which mounts what these would have to know
]

SETS = ("bounding", "permitted", "effective", "inheritable", "ambient")
OWN = ("mount", "pid", "network", "ipc", "uts")
ALL = list(capability_names((1 << 41) - 1))
DEVICE = next((each for each in ("/dev/kmsg", "/dev/fuse", "/dev/net/tun") if Path(each).exists()), "/dev/kmsg")
# What runs in place of a container: it gets namespaces, becomes another program in them, does something, and waits.
BEGIN = "import ctypes, os, socket, sys, time; libc = ctypes.CDLL(None)"
FLAGS = {"mount": 0x20000, "network": 0x40000000, "ipc": 0x8000000, "uts": 0x4000000}
# Of mounts one over another nothing could be said here.
PRIVATE = """
libc.mount(b'none', b'/', None, 1 << 18 | 1 << 14, None)
points = [line.split()[4] for line in open('/proc/self/mountinfo')]
[libc.umount2(each.encode(), 2) for each in points if points.count(each) > 1]
"""
NEW_PIDS = "libc.unshare(0x20000000); pid = os.fork(); pid and (os.waitpid(pid, 0), os._exit(0))"


def namespaces(*but: str) -> str:
    """The code that gives a process all of them `but` those."""
    flags = sum(flag for kind, flag in FLAGS.items() if kind not in but)
    return f"libc.unshare({flags})" + ("" if "mount" in but else PRIVATE) + ("" if "pid" in but else f"\n{NEW_PIDS}")


def spec(**process: Any) -> oci.Bundle:
    """Of a container that has all that whoever runs this has, on the mounts that are here."""
    held = dict.fromkeys(SETS, ALL)
    linux = process.pop("linux", {})
    mounts_too = process.pop("mounts", [])
    given = {"user": {"uid": 0, "gid": 0}, "capabilities": held} | process
    points = [each.point for each in mountinfo.mounts()]
    binds = [bind(each, each) for each in points if each != "/" and points.count(each) == 1] + mounts_too
    told = {"namespaces": [{"type": kind} for kind in OWN]} | linux
    return oci.read_bundle({"root": {"path": "/"}, "mounts": binds, "process": given, "linux": told}, "spec")


def bind(destination: str | Path, source: str | Path) -> dict[str, Any]:
    return {"destination": str(destination), "source": str(source), "type": "bind", "options": ["bind"]}


def but(*names: str) -> dict[str, tuple[str, ...]]:
    """Every capability but those."""
    left = tuple(each for each in ALL if each not in names)
    return dict.fromkeys(SETS, left)


@pytest.fixture
def run() -> Iterator[Callable[..., Running]]:
    """A process with namespaces of its own that has done something first, and waits."""
    with contextlib.ExitStack() as stack:

        def started(first: str = "", before: str = "", into: str = namespaces()) -> Running:
            then = f"{BEGIN}\n{first}\nprint(flush=True); time.sleep(60)"
            last = f"os.execv(sys.executable, [sys.executable, '-c', {then!r}])"
            code = "\n".join((BEGIN, before, into, last))
            process = stack.enter_context(subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE))
            stack.callback(process.kill)
            assert process.stdout
            assert process.stdout.readline() == b"\n"
            tree = freezer.tree(process.pid)
            for pid in tree:
                stack.callback(subprocess.run, ["kill", "-KILL", str(pid)], check=False, capture_output=True)
            return Running("x" * 64, "web", "runc", Path("/"), tree[-1], os.getpid())

        yield started


def look(container: Running, told: oci.Bundle, filters: dict[int, int] | None = None) -> None:
    tree, expected = freezer.tree(container.pid), Expected.of(told)
    tasks.check(container, tree, told, expected, filters or {})
    for pid in tasks.mount_namespaces(tree):
        mounts.check(pid, told, container.bundle, expected)
    descriptors.check(container, tree, expected)


def refused(container: Running, told: oci.Bundle, *, because: str) -> None:
    with pytest.raises(IntegrityError, match=because):
        look(container, told)


def test_a_process_that_is_what_it_should_be(run: Callable[..., Running]) -> None:
    held = "socket.socket(), open('/etc/passwd'), open('/dev/null'), os.pipe(), os.memfd_create('x')"
    mapped = "mmap.mmap(-1, 4096), mmap.mmap(os.open('/dev/zero', os.O_RDWR), 4096, access=mmap.ACCESS_COPY)"
    look(run(f"import mmap; held = {held}, {mapped}"), spec())


@pytest.mark.parametrize("kind", ["network", "ipc", "uts", "mount"])
def test_a_namespace_of_the_host(run: Callable[..., Running], kind: str) -> None:
    refused(run(into=namespaces(kind)), spec(), because=f"is in the {kind} namespace of this host")


def test_the_hosts_pids(run: Callable[..., Running]) -> None:
    refused(run(into=namespaces("pid")), spec(), because="is in the pid namespace of this host")


def test_a_namespace_that_nobody_gave_it(run: Callable[..., Running]) -> None:
    refused(run("libc.unshare(0x10000000)"), spec(), because="is in a user namespace that its container has not")
    shared = spec(linux={"namespaces": [{"type": kind} for kind in OWN if kind != "uts"]})
    refused(run(), shared, because="is in a uts namespace that its container has not")


def test_another_network_than_the_one_it_was_given(run: Callable[..., Running]) -> None:
    container, other = run(), run()

    def given(pid: int) -> oci.Bundle:
        path = f"/proc/{pid}/ns/net"
        return spec(linux={"namespaces": [{"type": k, **({"path": path} if k == "network" else {})} for k in OWN]})

    look(container, given(container.pid))
    refused(container, given(other.pid), because="another network namespace than the one its container was given")


@pytest.mark.parametrize(
    ("told", "because"),
    [
        ({"capabilities": but("CHOWN")}, "capabilities that its container cannot have: CHOWN"),
        ({"noNewPrivileges": True}, "does without the container's no_new_privs"),
        ({"linux": {"seccomp": {"defaultAction": "SCMP_ACT_ERRNO"}}}, "without the container's seccomp filter"),
    ],
)
def test_more_than_its_container_may(run: Callable[..., Running], told: dict[str, Any], because: str) -> None:
    refused(run(), spec(**told), because=because)


# A thread of the same process that does something else than its first.
THREAD = """
import threading
def other():
    {what}
    time.sleep(60)
threading.Thread(target=other, daemon=True).start(); time.sleep(0.2)
"""
NO_NEW_PRIVS, USER_34, USER_33 = (
    "libc.prctl(38, 1, 0, 0, 0)",
    *(f"libc.syscall(117, {uid}, {uid}, {uid})" for uid in (34, 33)),
)


def test_threads_count_as_processes_do(run: Callable[..., Running]) -> None:
    """The first has no_new_privs, another has not; or is somebody else."""
    told = spec(noNewPrivileges=True)
    look(run(f"{NO_NEW_PRIVS}\n{THREAD.format(what='pass')}"), told)
    refused(
        run(f"{THREAD.format(what='pass')}{NO_NEW_PRIVS}"), told, because="does without the container's no_new_privs"
    )
    nobody = spec(noNewPrivileges=True, user={"uid": 33, "gid": 0}, capabilities=dict.fromkeys(("bounding",), ALL))
    refused(
        run(f"{NO_NEW_PRIVS}\n{THREAD.format(what=USER_34)}{USER_33}"),
        nobody,
        because="is user 34, which user 33 cannot",
    )


SMALL = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))"


@pytest.mark.parametrize(
    ("first", "because"),
    [
        ("", "may have .* of NOFILE, its container 100"),
        (f"{SMALL}; os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))", "has the real-time policy 1"),
    ],
)
def test_who_goes_before_others(run: Callable[..., Running], first: str, because: str) -> None:
    told = spec(
        capabilities=but("SYS_NICE", "SYS_RESOURCE"), rlimits=[{"type": "RLIMIT_NOFILE", "hard": 100, "soft": 9}]
    )
    expected = Expected.of(told)
    here = reach.Here.of(expected)

    def found(container: Running) -> str:  # what it may else is not asked here
        policy = next(threads.threads(container.pid)).policy()
        return tasks._process(container.pid, None, expected, here) or reach.scheduling(policy, 0, 0, expected, here)

    assert found(run(SMALL)) == ""
    assert re.search(because, found(run(first)))


def test_a_mount_that_nobody_asked_for(run: Callable[..., Running], tmp_path: Path) -> None:
    """Who may mount could have made it by itself; nobody else."""
    told, free = spec(capabilities=but("SYS_ADMIN")), spec()
    mounts.check(run().pid, told, Path("/"), Expected.of(told))
    container = run(f"libc.mount(b'x', {os.fsencode(tmp_path)!r}, b'tmpfs', 0, None)")
    mounts.check(container.pid, free, Path("/"), Expected.of(free))
    with pytest.raises(IntegrityError, match=f"has a mount at '{tmp_path}' that is none of its"):
        mounts.check(container.pid, told, Path("/"), Expected.of(told))


def test_a_mount_that_is_another(run: Callable[..., Running], tmp_path: Path) -> None:
    """What is bound there is another directory; and one is missing."""
    source, place = tmp_path / "source", tmp_path / "place"
    source.mkdir()
    place.mkdir()
    told = spec(capabilities=but("SYS_ADMIN"), mounts=[bind(place, source)])
    right = run(f"libc.mount({os.fsencode(source)!r}, {os.fsencode(place)!r}, None, 4096, None)")
    mounts.check(right.pid, told, Path("/"), Expected.of(told))
    for wrong in (run(f"libc.mount({os.fsencode(tmp_path)!r}, {os.fsencode(place)!r}, None, 4096, None)"), run()):
        with pytest.raises(IntegrityError, match="lacks its bind mount"):
            mounts.check(wrong.pid, told, Path("/"), Expected.of(told))


@pytest.mark.parametrize("options", ["size=1m", "size=64k,nr_inodes=1k", "size=0,nr_inodes=20", "nr_inodes=20"])
def test_a_filesystem_in_memory_that_holds_more(run: Callable[..., Running], tmp_path: Path, options: str) -> None:
    """Than 64 KiB in 20 files."""
    asked = ["size=65000", "nr_inodes=20"]
    mount = {"destination": str(tmp_path), "source": "tmpfs", "type": "tmpfs", "options": asked}
    told = spec(capabilities=but("SYS_ADMIN"), mounts=[mount])
    for given, because in ((",".join(asked), ""), (options, f"at '{tmp_path}' instead of (65000|20)$")):
        container = run(f"libc.mount(b'x', {os.fsencode(tmp_path)!r}, b'tmpfs', 0, {given.encode()!r})")
        with pytest.raises(IntegrityError, match=because) if because else contextlib.nullcontext():
            mounts.check(container.pid, told, Path("/"), Expected.of(told))


def test_a_mount_around_the_one_that_was_asked_for(run: Callable[..., Running], tmp_path: Path) -> None:
    """What is seen at the point is right, and beside it lies all of its parent."""
    source, place = tmp_path / "all" / "source", tmp_path / "place"
    source.mkdir(parents=True)
    (place / "source").mkdir(parents=True)
    told = spec(capabilities=but("SYS_ADMIN"), mounts=[bind(place / "source", source)])
    container = run(f"libc.mount({os.fsencode(source.parent)!r}, {os.fsencode(place)!r}, None, 4096, None)")
    with pytest.raises(IntegrityError, match="lacks its bind mount"):
        mounts.check(container.pid, told, Path("/"), Expected.of(told))


def test_a_mount_that_is_covered(run: Callable[..., Running], tmp_path: Path) -> None:
    """Nobody sees it but who has it open already."""
    source, place = tmp_path / "source", tmp_path / "place"
    for each in (source, place):
        each.write_bytes(b"")
    told = spec(capabilities=but("SYS_ADMIN"), linux={"maskedPaths": [str(place)]})
    hide = f"libc.mount(b'/dev/null', {os.fsencode(place)!r}, None, 4096, None)"
    mounts.check(run(hide).pid, told, Path("/"), Expected.of(told))
    container = run(f"libc.mount({os.fsencode(source)!r}, {os.fsencode(place)!r}, None, 4096, None); {hide}")
    with pytest.raises(IntegrityError, match=f"has a mount at '{place}' that is none of its"):
        mounts.check(container.pid, told, Path("/"), Expected.of(told))


def test_what_is_mounted_below_a_directory_that_comes_whole(run: Callable[..., Running], tmp_path: Path) -> None:
    """That of the host, or CRIU's copy of a tmpfs; not another directory."""
    source, place, inner = tmp_path / "source", tmp_path / "place", tmp_path / "place" / "in"
    (source / "in").mkdir(parents=True)
    place.mkdir()
    whole = bind(place, source) | {"options": ["rbind"]}
    told = spec(capabilities=but("SYS_ADMIN"), mounts=[whole])
    first = f"libc.mount({os.fsencode(source)!r}, {os.fsencode(place)!r}, None, 4096, None)"
    copy = run(f"{first}; libc.mount(b'x', {os.fsencode(inner)!r}, b'tmpfs', 0, None)")
    mounts.check(copy.pid, told, Path("/"), Expected.of(told))
    other = run(f"{first}; libc.mount({os.fsencode(tmp_path)!r}, {os.fsencode(inner)!r}, None, 4096, None)")
    with pytest.raises(IntegrityError, match="that is none of its"):
        mounts.check(other.pid, told, Path("/"), Expected.of(told))


def test_a_filesystem_of_the_hosts_network(run: Callable[..., Running], tmp_path: Path) -> None:
    """sysfs shows the network that it was mounted in."""
    told = spec(
        capabilities=but("SYS_ADMIN"), mounts=[{"destination": str(tmp_path), "source": "sysfs", "type": "sysfs"}]
    )
    own = run(f"libc.mount(b'sysfs', {os.fsencode(tmp_path)!r}, b'sysfs', 0, None)")
    mounts.check(own.pid, told, Path("/"), Expected.of(told))
    hosts = run(f"libc.mount(b'/sys', {os.fsencode(tmp_path)!r}, None, 4096, None)")
    with pytest.raises(IntegrityError, match="lacks its sysfs mount"):
        mounts.check(hosts.pid, told, Path("/"), Expected.of(told))


def test_names_with_what_ends_a_line_elsewhere(run: Callable[..., Running], tmp_path: Path) -> None:
    place = tmp_path / "a\x0b\x1c\u2028b c"
    place.mkdir()
    container = run(f"libc.mount(b'x', {os.fsencode(place)!r}, b'tmpfs', 0, None)")
    assert str(place) in [mount.point for mount in mountinfo.mounts(container.pid)]


def test_a_file_that_only_another_container_sees(run: Callable[..., Running], tmp_path: Path) -> None:
    other = run(
        f"libc.mount(b'x', {os.fsencode(tmp_path)!r}, b'tmpfs', 0, None); open('{tmp_path}/secret', 'w').close()"
    )
    told = spec(capabilities=but("SYS_ADMIN"))
    keep = "os.set_inheritable(held, True)"
    container = run(before=f"held = os.open('/proc/{other.pid}/root{tmp_path}/secret', os.O_RDONLY); {keep}")
    with pytest.raises(IntegrityError, match="secret' of this host open"):
        descriptors.check(container, freezer.tree(container.pid), Expected.of(told))


def test_a_terminal_of_the_host(run: Callable[..., Running]) -> None:
    told, keep = spec(capabilities=but("SYS_ADMIN")), "os.set_inheritable(held, True)"
    container = run(before=f"other, held = os.openpty(); {keep}")
    with pytest.raises(IntegrityError, match=r"has the terminal '/dev/pts/.*' of this host open"):
        descriptors.check(container, freezer.tree(container.pid), Expected.of(told))


@pytest.mark.parametrize(
    ("before", "because"),
    [
        ("held = open('/etc/passwd')", "'/etc/passwd' of this host open"),
        ("held = os.open('/', os.O_PATH)", "'/' of this host open"),
        ("held = open('/proc/self/ns/net')", "holds the network namespace of this host open"),
        ("held = socket.socket()", "has a socket in another network"),
        ("held = socket.socket(socket.AF_UNIX)", "has a socket in another network"),
        (f"held = os.open('{DEVICE}', os.O_RDONLY)", f"has the device '{DEVICE}' open"),
    ],
)
def test_what_it_has_open_of_the_host(run: Callable[..., Running], before: str, because: str) -> None:
    told, kept = (
        spec(capabilities=but("SYS_ADMIN", "NET_RAW")),
        "os.set_inheritable(getattr(held, 'fileno', int)() or held, True)",
    )
    container = run(before=f"{before}; {kept}")
    with pytest.raises(IntegrityError, match=because):
        descriptors.check(container, freezer.tree(container.pid), Expected.of(told))


def mapping(path: Path, *places: tuple[str, str]) -> str:
    """The code that maps a file as it is found below each of these places, and closes it; a later one lies lower."""
    maps = (
        f"held += [mmap.mmap(os.open({place + str(path)!r}, os.O_RDWR), 1, access=mmap.ACCESS_{access})]"
        for place, access in places
    )
    return "\n".join(("import mmap; held = []", *maps, "os.closerange(3, 99)"))


@pytest.mark.parametrize("access", ["READ", "WRITE", "COPY"])
def test_what_it_has_mapped_of_the_host(run: Callable[..., Running], tmp_path: Path, access: str) -> None:
    """The same file is its own on a mount of its own."""
    path, told = tmp_path / "file", spec(capabilities=but("SYS_ADMIN"))
    path.write_bytes(b"x")
    own, hosts = ("", access), (f"/proc/{os.getpid()}/root", access)
    container = run(mapping(path, own))
    descriptors.check(container, freezer.tree(container.pid), Expected.of(told))
    for places in ([hosts], [own, hosts], [hosts, ("", "COPY")] if access != "COPY" else [hosts]):
        container = run(mapping(path, *places))
        with pytest.raises(IntegrityError, match=f"has '{path}' of this host open"):
            descriptors.check(container, freezer.tree(container.pid), Expected.of(told))


@pytest.mark.parametrize("option", ["socket.SO_MARK, 7", "socket.SO_PRIORITY, 7", "32, 1 << 29"])
def test_a_socket_whose_packets_are_special(run: Callable[..., Running], option: str) -> None:
    container = run(f"held = socket.socket(); held.setsockopt(1, {option})")
    tree = freezer.tree(container.pid)
    descriptors.check(container, tree, Expected.of(spec(capabilities=but("NET_RAW"))))
    with pytest.raises(IntegrityError, match="which takes CAP_NET_ADMIN"):
        descriptors.check(container, tree, Expected.of(spec(capabilities=but("NET_RAW", "NET_ADMIN"))))


def test_packet_sockets(run: Callable[..., Running]) -> None:
    container = run("held = socket.socket(17, 3, 0)")
    tree = freezer.tree(container.pid)
    descriptors.check(container, tree, Expected.of(spec()))
    told = spec(capabilities=but("NET_RAW"))
    with pytest.raises(IntegrityError, match="takes CAP_NET_RAW"):
        descriptors.check(container, tree, Expected.of(told))


def test_netlink_sockets_that_listen(run: Callable[..., Running]) -> None:
    """Everybody may to the routes, nobody who has not CAP_NET_ADMIN to the firewall."""
    told = spec(capabilities=but("NET_ADMIN"))
    for protocol, groups, said in ((0, 1, ""), (12, 0, ""), (12, 1, "takes CAP_NET_ADMIN")):
        container = run(f"held = socket.socket(16, 3, {protocol}); held.bind((0, {groups}))")
        with pytest.raises(IntegrityError, match=said) if said else contextlib.nullcontext():
            descriptors.check(container, freezer.tree(container.pid), Expected.of(told))


def test_a_thread_as_the_kernel_has_it() -> None:
    first = next(threads.threads(os.getpid()))
    assert (first.id, first.process) == (os.getpid(), os.getpid())
    assert first.credentials.uids == {os.geteuid()}
    assert threads.limits(os.getpid()).keys() >= {"NOFILE", "NPROC", "RTTIME", "CORE"}
    assert len(threads.limits(os.getpid())) == 16
    assert first.namespaces()["mount"] == Path("/proc/self/ns/mnt").stat().st_ino


def test_a_process_that_ends_meanwhile() -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    time.sleep(0.01)
    with pytest.raises(OSError, match=str(ended.pid)):
        list(threads.threads(ended.pid))
    assert freezer.tree(ended.pid) == []
