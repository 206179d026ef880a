"""The rules of the gate that need no images: mappings, cgroups, options of mounts, what a specification lets reach."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ocickpt import oci
from ocickpt.engine import host
from ocickpt.errors import IntegrityError, UnsupportedError
from ocickpt.gate import cgroups, contents, files, mappings, mounts, reach, tasks
from ocickpt.gate.expected import Expected, Mount

PLAIN = Expected.of(oci.Bundle(root=oci.Root("/")))


class Part(SimpleNamespace):
    """A message of the images."""

    def HasField(self, name: str) -> bool:  # noqa: N802 - as protobuf has it
        return name in vars(self)


def expected(*, uid: int = 0, held: tuple[str, ...] = (), kept: bool = False, **linux: Any) -> Expected:
    sets = oci.Capabilities(bounding=("CAP_CHOWN", "CAP_SETUID", *held), permitted=held)
    process = oci.Process(user=oci.User(uid, uid), capabilities=sets, no_new_privileges=kept)
    return Expected.of(oci.Bundle(root=oci.Root("/"), process=process, linux=oci.BundleLinux(**linux)))


def test_what_can_be_reached() -> None:
    free, kept = expected(uid=33), expected(uid=33, kept=True)
    assert free.may("CHOWN") and free.is_user(0) and free.is_in(0)
    assert not kept.may("CHOWN") and not kept.is_user(0) and not kept.is_in(0)
    assert kept.is_user(33) and kept.is_in(33)
    setuid = expected(uid=33, kept=True, held=("CAP_SETUID",))
    assert setuid.is_user(0) and not setuid.is_in(0)


@pytest.mark.parametrize(("port", "refused"), [(0, False), (80, True), (1024, False)])
def test_ports_of_the_host(monkeypatch: pytest.MonkeyPatch, port: int, refused: bool) -> None:
    monkeypatch.setattr(host, "first_free_port", lambda: 1024)
    assert expected().may_bind(port) != refused
    assert expected(held=("CAP_NET_BIND_SERVICE",)).may_bind(port)
    assert expected(namespaces=(oci.Namespace(type="network"),)).may_bind(port)


def vma(start: int, end: int, status: int = 0x41) -> Part:
    return Part(start=start << 12, end=end << 12, status=status)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ([vma(1, 2), vma(2, 3), vma(9, 10)], ""),
        ([vma(1, 3), vma(2, 3)], "where it has other memory"),
        ([vma(5, 6), vma(1, 2)], "where it has other memory"),
        ([vma(1, 1)], "no range of pages"),
        ([vma(1, 9), vma(2, 3, 1 << 16)], ""),
        ([vma(1, 2, 1)], "unknown kind"),
        ([vma(1, 2, 1 | 1 << 6 | 1 << 8)], "unknown kind"),
        ([vma(1, 2, 1 | 1 << 11)], "packet socket"),
        ([vma(1, 2, 1 | 1 << 9 | 1 << 3), vma(2, 3, 1 | 1 << 9 | 1 << 12), vma(1 << 51, (1 << 51) + 1, 1 << 2)], ""),
    ],
)
def test_mappings(found: list[Part], said: str) -> None:
    images: Any = SimpleNamespace(numbered=lambda _: {1: [Part(vmas=found)]})
    if said:
        with pytest.raises(IntegrityError, match=said):
            mappings.check_mappings(images, PLAIN)
    else:
        mappings.check_mappings(images, PLAIN)


def test_mappings_of_others() -> None:
    images: Any = SimpleNamespace(numbered=lambda _: {1: [Part(vmas=[vma(1, 2, 1 | 1 << 17)])]})
    with pytest.raises(UnsupportedError, match="cannot restore by itself"):
        mappings.check_mappings(images, PLAIN)


PERMS = {"mode": 0o100644, "uid": 0, "gid": 0}


def cgroup(name: str = "cpu.shares", value: str = "2", **perms: int) -> list[Any]:
    each = Part(name=name, value=value, perms=Part(**{**PERMS, **perms}))
    directory = Part(dir_name="/x", properties=[each], dir_perms=Part(**PERMS), children=[])
    return [Part(sets=[], controllers=[Part(dirs=[directory])])]


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (cgroup(), ""),
        (cgroup("notify_on_release"), ""),
        (cgroup("release_agent", "/bin/sh"), "no property"),
        (cgroup("devices.list", "c 1:3 rwm\nc 136:* rwm\nc 10:200 rwm\nb *:* m\nc *:* m"), ""),
        (cgroup("devices.list", "a *:* rwm"), "more than its container's"),
        (cgroup("devices.list", "b 8:0 r"), "more than its container's"),
        (cgroup("devices.list", "c 10:* rw"), "more than its container's"),
        (cgroup("devices.list", "everything"), "which is none"),
        (cgroup("net_prio.ifpriomap", "lo 0\neth10 0"), ""),
        (cgroup("net_prio.ifpriomap", "lo 1"), "net_prio"),
        (cgroup("net_cls.classid", "0"), ""),
        (cgroup("net_cls.classid", "1048577"), "net_cls"),
        (cgroup(mode=0o100622), "mode 622"),
        (cgroup(mode=0o104644), "mode 4644"),
        (cgroup(uid=1), "gives user 1"),
        (cgroup(gid=1), "gives user 0"),
    ],
)
def test_cgroups(found: list[Any], said: str) -> None:
    if said:
        with pytest.raises(IntegrityError, match=said):
            cgroups.check_values(found, PLAIN)
    else:
        cgroups.check_values(found, PLAIN)


PROC, SYSFS, TMPFS, DEVPTS, CGROUP, CGROUP2 = 1, 2, 5, 6, 12, 23
LABEL = "system_u:object_r:container_file_t:s0:c1,c2"


@pytest.mark.parametrize(
    ("kind", "options", "asked", "said"),
    [
        (PROC, "", (), ""),
        (PROC, "hidepid=invisible", ("hidepid=2",), ""),
        (PROC, "", ("hidepid=2",), "lacks hidepid"),
        (PROC, "hidepid=off", ("hidepid=2",), "lacks hidepid"),
        (PROC, "size=1k", (), "the option 'size=1k'"),
        (SYSFS, "seclabel", (), ""),
        (TMPFS, "size=64k,mode=755", ("size=65536",), ""),
        (TMPFS, "size=65k", ("size=64k",), "has size=65k"),
        (TMPFS, "size=50%", ("size=64k",), "has size=50%"),
        (TMPFS, "size=9g", (), ""),
        (TMPFS, "", ("nr_inodes=5",), "has nr_inodes="),
        (TMPFS, "usrquota", (), "the option 'usrquota'"),
        (TMPFS, f'size=1k,context="{LABEL}"', (), ""),
        (TMPFS, 'context="system_u:object_r:etc_t:s0:c1,c2"', (), "has the label"),
        (TMPFS, 'mode="7', (), "cannot be told apart"),
        (TMPFS, "mode=7,,", (), "cannot be told apart"),
        (DEVPTS, "gid=5,mode=620,ptmxmode=666,newinstance", (), ""),
        (DEVPTS, "subset=pid", (), "the option"),
        (CGROUP2, "nsdelegate,memory_recursiveprot", (), ""),
        (CGROUP, "xattr,name=systemd", (), ""),
        (CGROUP, "cpuacct,cpu", (), ""),
        (CGROUP, "release_agent=/bin/sh", (), "a cgroup hierarchy that this host has not"),
        (CGROUP, "none,name=evil", (), "a cgroup hierarchy that this host has not"),
        (CGROUP, "release_agent=/lib/agent,name=systemd", (), ""),
    ],
)
def test_options_of_mounts(
    monkeypatch: pytest.MonkeyPatch, kind: int, options: str, asked: tuple[str, ...], said: str
) -> None:
    monkeypatch.setattr(host, "v1_hierarchies", lambda: ("cpu,cpuacct", "name=systemd"))
    mount = Part(fstype=kind, options=options)
    words = {name: value for name, _, value in (each.partition("=") for each in asked)}
    wanted = Mount("tmpfs", 0, recursive=False, options=words, shares=False)
    if said:
        with pytest.raises(IntegrityError, match=said):
            mounts._check_options("it", mount, wanted, expected(mount_label=LABEL))
    else:
        mounts._check_options("it", mount, wanted, expected(mount_label=LABEL))


def thread(**values: int) -> Part:
    return Part(**{"sched_policy": 0, "sched_prio": 0, "sched_nice": 0, **values})


def scheduling(found: Part, of: Expected) -> str:
    return tasks._scheduling(found, of, reach.Here.of(of))


def test_nice_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.getpriority", lambda *_: 5)
    assert not scheduling(thread(sched_nice=0), PLAIN)
    assert "CAP_SYS_NICE" in scheduling(thread(sched_nice=-1), PLAIN)
    assert not scheduling(thread(sched_nice=-20), expected(held=("CAP_SYS_NICE",)))
    process = oci.Process(rlimits=(oci.Rlimit(type="RLIMIT_NICE", hard=25, soft=25),))
    limited = Expected.of(oci.Bundle(root=oci.Root("/"), process=process))
    assert not scheduling(thread(sched_nice=-5), limited)
    assert scheduling(thread(sched_nice=-6), limited)
    monkeypatch.setattr("os.getpriority", lambda *_: -3)  # whoever restores is served first himself
    assert not scheduling(thread(sched_nice=-3), PLAIN)


@pytest.mark.parametrize(
    ("path", "magic"),
    [
        ("/proc/self/fd/5/x", True),
        ("/proc/1/root", True),
        ("/proc/1/task/7/cwd/x", True),
        ("/proc/1//exe", True),
        ("/proc/./thread-self/root/x", True),
        ("/proc/12/ns/mnt", True),
        ("/proc/1/fd", False),
        ("/proc/1/status", False),
        ("/proc/sys/fs/x", False),
        ("/procs/1/root", False),
        ("/srv/1/root/x", True),
    ],
)
def test_links_of_proc(path: str, magic: bool) -> None:
    found = [Part(fstype=PROC, mountpoint=place, root="/") for place in ("/proc", "/srv")]
    assert files.is_magic(path, found) == magic
    below = [Part(fstype=PROC, mountpoint="/x", root="/1")]
    assert files.is_magic("/x/root/etc", below) and not files.is_magic("/x/status", below)


def test_limits_that_nobody_has_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda _: (0, 7))
    assert reach.unnamed("NICE") == 7
    assert reach.unnamed("MSGQUEUE") == 819200
    assert reach.unnamed("NPROC") == (1 << 64) - 1
    monkeypatch.setattr("resource.getrlimit", lambda _: (0, -1))
    assert reach.unnamed("RTPRIO") == (1 << 64) - 1


def read(reader: Any, data: bytes, *found: Part) -> list[Any]:
    waiting = list(found)
    made = contents.Reader("x", data, 0, lambda _name, _data: waiting.pop(0))
    got = list(reader(made))
    made.end()
    return got


HEAD = b"\2\0\0\0ab"


def test_content_between_messages() -> None:
    one, two = Part(bytes=3), Part(bytes=0)
    assert read(contents.pipes, HEAD + b"xyz" + HEAD, one, two) == [one, two]
    with pytest.raises(IntegrityError, match="cut short"):
        read(contents.pipes, HEAD + b"xy", one)
    with pytest.raises(IntegrityError, match="cut short"):
        read(contents.pipes, b"\xff\xff\xff\xff", one)
    with pytest.raises(IntegrityError, match="more in it than it says"):
        read(contents.tcp, HEAD + b"abcd", Part(inq_len=1, outq_len=2))
    assert len(read(contents.semaphores, HEAD + bytes(8), Part(nsems=3))) == 1
    assert len(read(contents.shared_memory, HEAD + bytes(8), Part(in_pagemaps=False, size=5))) == 1
    assert len(read(contents.shared_memory, HEAD, Part(in_pagemaps=True, size=5))) == 1
    message = [Part(qnum=1), Part(msize=3)]
    assert read(contents.queues_of_messages, HEAD + HEAD + bytes(8), *message) == message


def test_pieces_of_a_deleted_file_ascend() -> None:
    whole = Part(chunks=True, size=10)
    pieces = HEAD + HEAD + bytes(2) + HEAD + bytes(3)
    assert len(read(contents.check_ghost, pieces, whole, Part(off=0, len=2), Part(off=7, len=3))) == 3
    for second in (Part(off=1, len=3), Part(off=8, len=3)):
        with pytest.raises(IntegrityError, match="where its file has none"):
            read(contents.check_ghost, pieces, whole, Part(off=0, len=2), second)
    assert len(read(contents.check_ghost, HEAD + b"any content", Part(chunks=False))) == 1


def test_the_first_free_port(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(host, "_FIRST_FREE_PORT", tmp_path / "missing")
    assert host.first_free_port() == 1024
    (tmp_path / "missing").write_text("80\n")
    assert host.first_free_port() == 80
