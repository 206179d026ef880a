"""Checkpoints that CRIU restores as they say, on a host without CAP_SYS_RESOURCE even: see `cases`.

Whatever looks at its images has something to say of them, and so has the kernel: see `kernel`.
"""

from __future__ import annotations

import io
import stat
import tarfile
from collections.abc import Callable, Iterator
from typing import Any

from tests.hostile.case import ASKING, USER, VOLUME, Case
from tests.hostile.changing import (
    Change,
    Json,
    Members,
    both,
    file,
    in_image,
    info,
    load,
    mount_at,
    mounted,
    named,
    node,
    not_mounted,
    put,
    raw,
    save,
    tree,
)
from tests.hostile.field_cases import OPTIONS, brought, in_last, limit, opened, second_mapping

FIREWALL = {
    "ino": 1, "protocol": 12, "state": 7, "flags": 2, "portid": 77, "groups": [1], "dst_portid": 0, "dst_group": 0,
    "ns_id": "net_ns_id",
}  # fmt: skip
SYS_ADMIN = 21
HELD = ("cap_prm", "cap_eff", "cap_bnd")
DIRECTORY, PROGRAM, NODE = stat.S_IFDIR | 0o755, stat.S_IFREG | 0o755, stat.S_IFCHR | 0o666
CRIUS_PROC = "/proc/self/fd/121"
"""The host's, which CRIU has open while it opens files (CR_PROC_FD_OFF in criu/include/servicefd.h)."""
CRIUS = f"{CRIUS_PROC}/1/root"
NO_PLACE = (1 << 64) - 1
"""A file's, which CRIU then leaves alone (criu/files-reg.c)."""
MAGIC = "which is whatever CRIU has open there"


def kernel_cases() -> Iterator[tuple[str, Case]]:
    """Every one of them, by its name."""
    yield from _credentials()
    yield from _scheduling()
    yield from _mounts()
    yield from _files()


def _credentials() -> Iterator[tuple[str, Case]]:
    held = "has capabilities that its container cannot have: SYS_ADMIN"
    yield "the capability SYS_ADMIN", Case(in_image("core-1", granted(*HELD)), held)
    yield "the capability SYS_ADMIN, to come", Case(in_image("core-1", granted("cap_bnd")), held)
    yield "the capability SYS_ADMIN, inheritable", Case(in_image("core-1", granted("cap_inh", "cap_bnd")), held)
    yield "the capability SYS_ADMIN, ambient", Case(in_image("core-1", granted(*HELD, "cap_inh", "cap_amb")), held)
    yield "the capability SYS_ADMIN, of a child", Case(in_last("core-", granted(*HELD)), held)
    yield "the capability SYS_ADMIN, of a thread", Case(in_last("core-", granted(*HELD)), held, container=ASKING)
    root = in_last("core-", who(uid=0, euid=0, suid=0, fsuid=0))
    yield "root under no_new_privs, of a child", Case(root, "is user 0", container=USER)
    free = in_last("core-", who(no_new_privs=0))
    yield "without no_new_privs, of a child", Case(free, "no_new_privs", container=USER)
    yield "a group id under no_new_privs", Case(in_last("core-", who(sgid=0)), "is in group 0", container=USER)


def _scheduling() -> Iterator[tuple[str, Case]]:
    for name, policy, container in (("child", 1, USER), ("thread", 2, ASKING)):
        change = in_last("core-", runs(sched_policy=policy, sched_prio=1))
        yield f"a real-time policy of a {name}", Case(change, f"real-time policy {policy}", container=container)
    nice = in_last("core-", runs(sched_nice=-5))
    yield "a nice value of a thread", Case(nice, "nice value -5", container=ASKING)
    yield "more open files than its user may have", Case(limit(7, 257), "RLIMIT_NOFILE", container=USER)


def _mounts() -> Iterator[tuple[str, Case]]:
    place, name = brought((info("x", tarfile.DIRTYPE, mode=0o755), b"")), brought((info("x"), b""))
    none = "no mount at '/x'"
    for like in ("/proc", "/sys", "/sys/fs/cgroup", "/dev/mqueue", "/dev/shm"):
        yield f"another {like}, at a place of its own", Case(both(place, mounted("/x", like)), none)
    yield "its root filesystem at a place of its own", Case(both(place, mounted("/x", "/")), "another of its mounts")
    keys = both(name, mounted("/x", "/proc", root="/keys"))
    yield "/proc/keys at a place of its own", Case(keys, none)
    empty = raw("tmpfs-dev-9999.tar.gz.img", tree())
    yield "files in memory at a place of its own", Case(both(place, empty, mounted("/x", "/dev", root_dev=9999)), none)
    again = both(place, mounted("/x", "/data", flags=0, sb_flags=0))
    yield "its volume once more, to be written", Case(again, none, container=VOLUME)
    yield "/etc/hosts at a place of its own", Case(both(name, mounted("/x", "/etc/hosts")), none)
    another = "is not the directory or file that the container has there"
    yield "the host's /dev/shm for a volume", Case(mount_at("/data", ext_key="/dev/shm"), another, container=VOLUME)
    yield "another file of the host for /etc/hosts", Case(mount_at("/etc/hosts", ext_key="/etc/hostname"), another)
    for path in ("/dev/mqueue", "/dev/shm", "/etc/hosts", "/sys/fs/cgroup"):
        yield f"without {path}", Case(not_mounted(path), f"lacks the mount at '{path}'")
    yield "a second mount namespace", Case(second_mounts, "another mount namespace")


def _files() -> Iterator[tuple[str, Case]]:
    yield "a file of the host", Case(opened(f"{CRIUS}/etc/passwd"), MAGIC)
    yield "a directory of the host", Case(opened(f"{CRIUS}/etc", mode=DIRECTORY), MAGIC)
    # Larger than what is mapped, which is its own program.
    large = opened(f"{CRIUS}/usr/bin/podman", mode=PROGRAM)
    yield "a file of the host in memory", Case(both(large, second_mapping(shmid=990)), MAGIC)
    program = both(opened(f"{CRIUS}/usr/bin/env", mode=PROGRAM), in_image("mm-1", put(exe_file_id=990)))
    yield "a program of the host", Case(program, MAGIC)
    root = opened(CRIUS, mode=DIRECTORY)
    yield "a working directory of the host", Case(both(root, in_image("fs-1", put(cwd_id=990))), MAGIC)
    yield "the host's root", Case(both(root, in_image("fs-1", put(root_id=990))), MAGIC)
    held = opened(f"{CRIUS_PROC}/1/ns/net", mode=stat.S_IFREG | 0o444, pos=NO_PLACE)
    yield "the host's network held open, by its name", Case(held, MAGIC)
    yield "a file of a process of the host", Case(opened(f"{CRIUS_PROC}/1/status", mode=stat.S_IFREG | 0o444), MAGIC)
    messages = node("./kmsg", tarfile.CHRTYPE, 1, 11)
    made = both(in_memory("/dev", messages), opened("/dev/kmsg", mode=NODE, place="/dev"))
    yield "a device among files in memory, open", Case(made, "character device 1:11")
    made = both(brought((node("kmsg", tarfile.CHRTYPE, 1, 11), b"")), opened("/kmsg", mode=NODE))
    yield "a device in the root filesystem, open", Case(made, "opens a device at '/kmsg'")
    listens = file("NETLINKSK", "nlsk", **FIREWALL, opts=OPTIONS)
    yield "a netlink socket in a group of the firewall's", Case(listens, "takes CAP_NET_ADMIN")


def who(**values: Any) -> Callable[[Json], None]:
    """Set credentials of a thread."""
    return lambda core: core["thread_core"]["creds"].update(values)


def runs(**values: Any) -> Callable[[Json], None]:
    """Set what a thread has else."""
    return lambda core: core["thread_core"].update(values)


def granted(*sets: str) -> Callable[[Json], None]:
    """CAP_SYS_ADMIN in these sets of a thread."""

    def changed(core: Json) -> None:
        for name in sets:
            core["thread_core"]["creds"][name][0] |= 1 << SYS_ADMIN

    return changed


def in_memory(place: str, *entries: tarfile.TarInfo) -> Change:
    """More in the filesystem in memory that is mounted there."""

    def changed(members: Members) -> None:
        found = load(members, named(members, "mountpoints-"))["entries"]
        device = next(each["root_dev"] for each in found if each["mountpoint"] == place)
        name, out = f"checkpoint/tmpfs-dev-{device}.tar.gz.img", io.BytesIO()
        with (
            tarfile.open(fileobj=io.BytesIO(members[name])) as old,
            tarfile.open(fileobj=out, mode="w:gz", format=tarfile.GNU_FORMAT) as new,
        ):
            for member in old:
                new.addfile(member, old.extractfile(member) if member.isreg() else None)
            for member in entries:
                new.addfile(member)
        members[name] = out.getvalue()

    return changed


def second_mounts(members: Members) -> None:
    """The second process has the mounts of the first in a namespace of its own."""
    mounts = load(members, named(members, "mountpoints-"))
    for each in mounts["entries"]:
        each["mnt_id"] += 1000
        each["parent_mnt_id"] += 1000
    save(members, "checkpoint/mountpoints-77.img", mounts)
    name = max(name for name in members if name.startswith("checkpoint/ids-"))
    found = load(members, name)
    found["entries"][0]["mnt_ns_id"] = 77
    save(members, name, found)
