"""Checkpoints whose images have a field, or a value of one, that no container has: see `cases`.

They are of the table of fields (ocickpt/gate/fields), and of the rules that it names.
"""

from __future__ import annotations

import base64
import gzip
import io
import stat
import tarfile
from collections.abc import Iterator
from typing import Any

from tests.hostile.case import USER, VOLUME, Case
from tests.hostile.changing import (
    Change,
    Json,
    Members,
    both,
    file,
    image,
    in_all,
    in_image,
    in_memory,
    info,
    load,
    mount_at,
    named,
    node,
    put,
    regular,
    save,
    thread,
    tmpfs,
    tree,
    unknown_field,
)

NOBODY = {"uid": 0, "euid": 0, "signum": 0, "pid_type": 0, "pid": 0}
OPTIONS = {
    "so_sndbuf": 212992, "so_rcvbuf": 212992, "so_snd_tmo_sec": 0, "so_snd_tmo_usec": 0, "so_rcv_tmo_sec": 0,
    "so_rcv_tmo_usec": 0,
}  # fmt: skip
UDP = {
    "ino": 1, "family": 2, "type": 2, "proto": 17, "state": 7, "src_port": 0, "dst_port": 0, "flags": 2, "backlog": 0,
    "src_addr": ["0.0.0.0"], "dst_addr": ["0.0.0.0"], "ns_id": "net_ns_id",
}  # fmt: skip
TERMINAL = {
    "id": 5, "type": "PTY", "locked": False, "exclusive": False, "packet_mode": False, "sid": 1, "pgrp": 1,
    "rdev": 34816,
}  # fmt: skip
TERMIOS = {
    "c_iflag": 0, "c_oflag": 0, "c_cflag": 0, "c_lflag": 0, "c_line": 0, "c_ispeed": 0, "c_ospeed": 0, "c_cc": [0] * 19,
}  # fmt: skip
OBJECT = {"key": 1, "uid": 0, "gid": 0, "cuid": 0, "cgid": 0, "mode": 0o600, "id": 0}
NOT_FILLED = "no writable one is mounted"
"""Restored instead of started, a volume that is only read cannot be filled, which comes first."""
READ_ONLY_BITS = stat.S_IFREG | 0o644


def field_cases() -> Iterator[tuple[str, Case]]:
    """Every one of them, by its name."""
    yield from _processes()
    yield from _memory()
    yield from _files()
    yield from _deleted()
    yield from _sockets()
    yield from _mounts()
    yield from _cgroups()
    yield from _archives()
    for name in ("pstree", "files", "mm-1", "pagemap-1", "seccomp", "fs-1"):
        yield f"a field of {name} that nobody knows", Case(unknown_field(f"checkpoint/{name}.img"), "know")


def _processes() -> Iterator[tuple[str, Case]]:
    yield "a nice value below zero", Case(thread(sched_nice=-20), "nice value -20")
    yield "a nice value below zero, of a child", Case(in_last("core-", _thread(sched_nice=-1)), "nice value -1")
    yield "a nice value that is none", Case(thread(sched_nice=-1000), "thread_core.sched_nice -1000")
    yield "a real-time priority under the usual policy", Case(thread(sched_prio=50), "real-time priority 50")
    yield "the policy SCHED_FIFO with a flag", Case(thread(sched_policy=1 | 1 << 30), "real-time policy 1")
    for position, name in ((12, "MSGQUEUE"), (13, "NICE"), (14, "RTPRIO")):
        yield f"a limit that nobody asked for, {name}", Case(limit(position, 1 << 40), f"RLIMIT_{name}")
    yield "more limits than there are", Case(in_image("core-1", more_limits), "rlimits.rlimits 17 times")
    yield (
        "three words of capabilities",
        Case(in_image("core-1", lambda core: _creds(core)["cap_bnd"].append(0)), "cap_bnd 3 times"),
    )
    yield (
        "one word of capabilities",
        Case(in_image("core-1", lambda core: _creds(core)["cap_eff"].pop()), "cap_eff 1 times"),
    )
    yield (
        "data for AppArmor",
        Case(in_image("core-1", lambda core: _creds(core).update(apparmor_data=coded(b"x"))), "apparmor_data"),
    )
    ids = {"vm_id": 1, "files_id": 1, "fs_id": 1, "sighand_id": 1, "mnt_ns_id": 1}
    yield "namespaces in a second place", Case(in_image("core-1", put(ids=ids)), "has ids")
    signal = {"signals": [{"siginfo": coded(bytes(8))}]}
    yield "a signal that is cut short", Case(thread(signals_p=signal), "signals_p.signals.siginfo")
    yield "a signal that does not exist", Case(thread(pdeath_sig=99), "pdeath_sig 99")
    yield "a clock that wakes the machine", Case(in_image("core-1", timer(8)), "takes CAP_WAKE_ALARM")
    yield "another clock that wakes the machine", Case(in_image("core-1", timer(9)), "takes CAP_WAKE_ALARM")
    yield "an inventory of old images", Case(in_image("inventory", put(img_version=1)), "img_version 1")
    yield "descriptors of old images", Case(in_image("inventory", put(fdinfo_per_id=False)), "fdinfo_per_id False")
    yield "uprobes", Case(in_image("inventory", put(allow_uprobes=True)), "allow_uprobes True")
    yield (
        "a plugin of CRIU's",
        Case(in_image("inventory", put(plugins_entry={"plugins": ["cuda_plugin"]})), "plugins_entry.plugins 1 times"),
    )


def _memory() -> Iterator[tuple[str, Case]]:
    yield "memory over other memory", Case(second_mapping(start="0x400000"), "where it has other memory")
    yield "memory that ends before it begins", Case(second_mapping(end="0x1000"), "no range of pages")
    yield "memory that begins inside a page", Case(second_mapping(start="0x401001"), "no range of pages")
    for name, bit in (("is mapped already", 30), ("CRIU closes", 28), ("is only read meanwhile", 29)):
        yield f"memory that {name}", Case(second_mapping(status=1 | 1 << 6 | 1 << bit), "vmas.status")
    yield "memory of no kind", Case(second_mapping(status=1), "of the unknown kind 0x1")
    yield "memory of two kinds", Case(second_mapping(status=1 | 1 << 6 | 1 << 9), "of the unknown kind")
    yield "memory of a packet socket", Case(second_mapping(status=1 | 1 << 11), "takes CAP_NET_RAW")
    yield "memory of a plugin", Case(second_mapping(status=1 | 1 << 27), "vmas.status")
    yield "a descriptor of CRIU's as memory", Case(second_mapping(fd=5), "vmas.fd 5")
    yield "a file that is made to be mapped", Case(second_mapping(fdflags=0o102), "vmas.fdflags")
    yield "a file that is emptied to be mapped", Case(second_mapping(fdflags=0o1002), "vmas.fdflags")
    yield "memory that is protected in a new way", Case(second_mapping(prot=1 << 9), "vmas.prot")


def _files() -> Iterator[tuple[str, Case]]:
    yield "a file that is made", Case(regular(flags=0o102), "reg.flags")
    yield "a file that is emptied", Case(regular(flags=0o1001), "reg.flags")
    yield "a file that must not be there", Case(regular(flags=0o300), "reg.flags")
    yield "a name that ends early", Case(regular(name="/bin/busybox\0/x"), "reg.name")
    magic = "which is whatever CRIU has open there"
    for path in ("self/fd/5/etc/shadow", "1/root/etc/shadow", "thread-self/cwd/x", "self/task/1/exe", "1/map_files/4"):
        yield f"a file at /proc/{path}", Case(regular(name=f"/proc/{path}"), magic)
    yield "a unix socket in what CRIU has open", Case(local("/proc/self/fd/5/run/owned.sock"), magic)
    yield "a unix socket in the directory of another process", Case(local("owned.sock", "/proc/1/cwd"), magic)
    yield "a file behind a symlink", Case(behind(opened("/way/shadow")), "lies behind a symlink")
    yield "a file that is a symlink", Case(behind(opened("/way")), "which is a symlink")
    yield (
        "a directory behind a symlink",
        Case(behind(opened("/way/a/b", mode=stat.S_IFDIR | 0o755)), "lies behind a symlink"),
    )
    yield "a unix socket behind a symlink", Case(behind(local("/way/owned.sock")), "leads to what CRIU has open")
    watch = {"id": 990, "i_ino": 2, "mask": 2, "ignored_mask": 0, "wd": 1, "s_dev": 1}
    handle = {"bytes": 8, "type": 1, "handle": [0] * 16}
    for path in ("/proc/1/root/etc", "/../etc"):
        found = watch | {"f_handle": handle | {"path": path}}
        yield f"a watch at {path}", Case(file("INOTIFY", "ify", flags=0, wd=[found]), "watches")
    elsewhere = watch | {"f_handle": handle, "s_dev": 4242}
    yield "a watch of another filesystem", Case(file("INOTIFY", "ify", flags=0, wd=[elsewhere]), "has not")
    yield "a file under two ids", Case(in_all("files", lambda found: _first(found).update(id=77)), "with the ids")
    yield "two files under one id", Case(in_all("files", lambda found: found.append(found[0])), "under one id")
    yield "a file that is described as a pipe", Case(in_all("files", as_pipe), "is described as pipe")
    yield "a file of no kind", Case(in_all("files", lambda found: _first(found).pop("mode")), "what kind of file")
    signals = NOBODY | {"signum": 9, "pid_type": 1, "pid": 1}
    yield "signals sent as root", Case(regular(fown=signals), "sends signals as user 0", container=USER)
    yield "a signal of a file that does not exist", Case(regular(fown=signals | {"signum": 99}), "fown.signum 99")
    yield "root's program open to be written", Case(regular(flags=1), "open to be written", container=USER)
    yield "root's file that nobody else may read", Case(secret, "cannot read", container=USER)
    yield "a descriptor with flags", Case(in_image("fdinfo-2", put(flags=4)), "flags 4")
    target = {"id": 990, "tfd": 0, "events": 1 << 29, "data": 0}
    yield "epoll that keeps the machine awake", Case(file("EVENTPOLL", "epfd", flags=2, tfd=[target]), "BLOCK_SUSPEND")
    alarm = {"clockid": 9, "ticks": 0, "settime_flags": 0, "vsec": 1, "vnsec": 0, "isec": 0, "insec": 0}
    yield "a timer that wakes the machine", Case(file("TIMERFD", "tfd", flags=2, **alarm), "takes CAP_WAKE_ALARM")
    memory = {"name": "x", "gid": 33, "size": 0, "shmid": 1, "seals": 0, "inode_id": 1, "mode": 0o100777}
    yield (
        "root's file in memory",
        Case(image("memfd", "MEMFD_INODE", memory | {"uid": 0}), "the file in memory 'x'", container=USER),
    )
    yield (
        "a file in memory with new seals",
        Case(image("memfd", "MEMFD_INODE", memory | {"uid": 0, "seals": 1 << 10}), "seals 1024"),
    )
    yield "a terminal of the host", Case(image("tty-info", "TTY_INFO", TERMINAL | {"type": "VT"}), "of the host")
    yield (
        "a terminal with a driver of its own",
        Case(image("tty-info", "TTY_INFO", TERMINAL | {"termios": TERMIOS | {"c_line": 3}}), "termios.c_line 3"),
    )
    yield (
        "the last terminal of very many",
        Case(image("tty-info", "TTY_INFO", TERMINAL | {"pty": {"index": 1 << 20}}), "pty.index 1048576"),
    )


def _deleted() -> Iterator[tuple[str, Case]]:
    yield (
        "a file of the container's that CRIU removes",
        Case(remap("LINKED", "/etc/group"), "would remove '/etc/group'"),
    )
    yield (
        "a deleted file on a volume that is only read",
        Case(
            remap("GHOST", "/data/owned", "/data"), "a mount that is only read", on_start=NOT_FILLED, container=VOLUME
        ),
    )
    yield (
        "a name removed from a volume that is only read",
        Case(
            remap("LINKED", "/data/link_remap.7", "/data"),
            "a mount that is only read",
            on_start=NOT_FILLED,
            container=VOLUME,
        ),
    )
    yield (
        "root's program among deleted files",
        Case(ghost(mode=0o104755), "a program that runs as user 0", container=USER),
    )
    yield "a deleted file of an unknown kind", Case(ghost(mode=0o140777), "a file of the unknown kind")
    yield "a target of what is no symlink", Case(ghost(symlnk_target="/etc"), "a file that is not a symlink")
    yield "content behind the end of a deleted file", Case(pieces((0, 8), (8, 8)), "where its file has none")
    yield "content over content of a deleted file", Case(pieces((4, 4), (0, 4)), "where its file has none")


def _sockets() -> Iterator[tuple[str, Case]]:
    def udp(said: str, options: Json | None = None, **more: Any) -> Case:
        return Case(file("INETSK", "isk", **UDP, opts=OPTIONS | (options or {}), **more), said)

    yield "a socket whose packets come first", udp("so_priority 7, which takes CAP_NET_ADMIN", {"so_priority": 7})
    yield "a socket with much memory to send", udp("so_sndbuf 2147483647", {"so_sndbuf": (1 << 31) - 1})
    yield "a socket with much memory to receive", udp("so_rcvbuf 1073741824", {"so_rcvbuf": 1 << 30})
    yield "a socket with a long filter", udp("so_filter 5000 times", {"so_filter": [0] * 5000})
    yield "a socket whose packets are made by hand", udp("takes CAP_NET_RAW", ip_opts={"raw": {"hdrincl": True}})
    yield "a socket at a device with a long name", udp("so_bound_dev", {"so_bound_dev": "x" * 16})
    several = UDP | {"src_addr": [0, 0]}
    yield (
        "a socket with two addresses",
        Case(file("INETSK", "isk", **several, opts=OPTIONS), "addresses are not of its family"),
    )
    owner = {"mode": 0o140777, "uid": 0, "gid": 0}
    yield (
        "root's unix socket",
        Case(local("/tmp/s", file_perms=owner), "gives user 0, group 0 the unix socket", container=USER),
    )
    packet = {"id_for": 1, "length": 0, "extra": ""}
    yield (
        "credentials in a socket's queue",
        Case(image("sk-queues", "SK_QUEUES", packet | {"scm": [{"type": 2}]}), "scm.type 2"),
    )
    rights = [{"type": 1, "rights": [1] * 254}]
    yield "very many files in a socket's queue", Case(image("sk-queues", "SK_QUEUES", packet | {"scm": rights}), "254")
    yield "a queue that is cut short", Case(image("sk-queues", "SK_QUEUES", packet | {"length": 100}), "cut short")
    pipe = {"pipe_id": 1, "bytes": 0, "extra": ""}
    yield (
        "a pipe of a gibibyte",
        Case(image("pipes-data", "PIPES_DATA", pipe | {"size": 1 << 30}), "takes CAP_SYS_RESOURCE"),
    )
    yield "a pipe that is cut short", Case(image("pipes-data", "PIPES_DATA", pipe | {"bytes": 9}), "cut short")
    stream = {
        "inq_len": 0, "inq_seq": 0, "outq_len": 0, "outq_seq": 0, "opt_mask": 0, "snd_wscale": 0, "mss_clamp": 1,
        "extra": {"inq": coded(b"more"), "outq": ""},
    }  # fmt: skip
    yield "more of a connection than it says", Case(image("tcp-stream-1", "TCP_STREAM", stream), "has more in it")
    scale = stream | {"snd_wscale": 15, "extra": {"inq": "", "outq": ""}}
    yield "a connection with an endless window", Case(image("tcp-stream-1", "TCP_STREAM", scale), "snd_wscale 15")
    message = [{"mtype": 1, "msize": 9000}, coded(bytes(9000))]
    queue = {"desc": OBJECT, "qbytes": 0, "qnum": 1, "extra": message}
    yield "a message longer than CRIU's memory for it", Case(image("ipcns-msg-11", "IPCNS_MSG", queue), "msize 9000")
    semaphores = {"desc": OBJECT, "nsems": 3, "extra": [1, 2, 3]}
    yield (
        "semaphores that are cut short",
        Case(both(image("ipcns-sem-11", "IPCNS_SEM", semaphores), cut("ipcns-sem-11", 4)), "cut short"),
    )
    yield (
        "settings of semaphores that are cut short",
        Case(in_image("ipcns-var", lambda entry: entry["sem_ctls"].pop()), "sem_ctls 3 times"),
    )


def _mounts() -> Iterator[tuple[str, Case]]:
    yield "/proc with an option that nobody knows", Case(mount_at("/proc", options="evil=1"), "the option 'evil=1'")
    yield "/sys with an option", Case(mount_at("/sys", options="evil"), "the option 'evil'")
    yield "/dev larger than it may be", Case(mount_at("/dev", options="size=1g,mode=755"), "has size=1g")
    yield "/dev of any size", Case(mount_at("/dev", options="mode=755"), "has size=,")
    yield "options in quotes", Case(mount_at("/dev", options='size=65536k,mode="7,55'), "cannot be told apart")
    label = 'size=65536k,context="system_u:object_r:etc_t:s0"'
    yield "/dev with another label", Case(mount_at("/dev", options=label), "has the label")
    yield "a mount shared with the host", Case(mount_at("/dev", shared_id=5), "shares what is mounted below it")
    yield "a mount that follows the host", Case(mount_at("/sys", master_id=5), "shares what is mounted below it")
    yield "a root filesystem shared with the host", Case(mount_at("/", shared_id=5), "shares what is mounted below it")
    yield "a mount that was shared inside", Case(mount_at("/dev", internal_sharing=True), "something of its host")
    yield "a volume shared with the host", Case(mount_at("/data", shared_id=7), "shares what", container=VOLUME)


def _cgroups() -> Iterator[tuple[str, Case]]:
    for name, value in (("release_agent", "/bin/owned"), ("cgroup.kill", "1"), ("memory.max", "max")):
        yield f"a cgroup's {name}", Case(cgroup(name, value), f"sets {name!r} of a cgroup")
    for rule in ("a *:* rwm", "b 8:0 rw", "c 1:* rwm"):
        yield f"the device rule {rule}", Case(cgroup("devices.list", rule), "which is more than its container's")
    yield "a device rule that is none", Case(cgroup("devices.list", "c 1:3 rwm\nx"), "the device rule 'x'")
    everybody, other = {"mode": 0o100666, "uid": 0, "gid": 0}, {"mode": 0o100644, "uid": 1000, "gid": 0}
    yield "a cgroup for everybody", Case(cgroup("cpu.shares", "2", everybody), "with the mode 666")
    yield "a cgroup of another user", Case(cgroup("cpu.shares", "2", other), "gives user 1000")
    yield "a cgroup's directory for everybody", Case(cgroup("tasks", "", directory=everybody), "with the mode 666")
    yield "a class of the host's traffic", Case(cgroup("net_cls.classid", "65537"), "net_cls.classid")
    yield "a priority of the host's traffic", Case(cgroup("net_prio.ifpriomap", "lo 0\neth0 5"), "net_prio.ifpriomap")


def _archives() -> Iterator[tuple[str, Case]]:
    link = info("./way", tarfile.SYMTYPE, linkname="/etc")
    yield "an absolute name among files in memory", Case(tmpfs(info("/etc/owned")), "leads outside")
    yield "files in memory behind a symlink", Case(tmpfs(link, info("./way/owned")), "in no directory of its own")
    yield "a file in memory twice", Case(tmpfs(link, info("./way")), "'way' twice")
    outside = info("./x", tarfile.LNKTYPE, linkname="./../../etc/shadow")
    yield "a link out of files in memory", Case(tmpfs(outside), "leads outside")
    yield "a link to nothing", Case(tmpfs(info("./x", tarfile.LNKTYPE, linkname="./shadow")), "which it has not")
    yield "files in memory without a root", Case(tmpfs(info("./x"), root=False), "in no directory of its own")
    pax = tmpfs(info("./x", pax_headers={"path": "./../owned"}), form=tarfile.PAX_FORMAT)
    yield "files in memory in another format", Case(pax, "no archive of CRIU's tar")
    yield "files in memory of a kind of GNU's", Case(tmpfs(info("./x", b"M")), "of the type b'M'")
    second = tree(node("./mem", tarfile.CHRTYPE, 1, 1))
    yield "a second archive behind the first", Case(archive(tree() + second), "behind its end")
    hidden = gzip.compress(gzip.decompress(tree()) + gzip.decompress(second))
    yield "members behind the end of files in memory", Case(archive(hidden), "behind the end of its members")
    yield "files in memory that are cut short", Case(archive(tree()[:-20]), "cut short")


def coded(data: bytes) -> str:
    """As pycriu has bytes."""
    return base64.b64encode(data).decode()


def _creds(core: Json) -> Json:
    found: Json = core["thread_core"]["creds"]
    return found


def _thread(**values: Any) -> Any:
    return lambda core: core["thread_core"].update(values)


def in_last(prefix: str, change: Any) -> Change:
    """Change the first message of the last such image: that of a child."""

    def changed(members: Members) -> None:
        name = max(name for name in members if name.startswith(f"checkpoint/{prefix}"))
        found = load(members, name)
        change(found["entries"][0])
        save(members, name, found)

    return changed


def limit(position: int, value: int) -> Change:
    return in_image(
        "core-1", lambda core: core["tc"]["rlimits"]["rlimits"][position].update({"cur": value, "max": value})
    )


def more_limits(core: Json) -> None:
    core["tc"]["rlimits"]["rlimits"].append({"cur": 0, "max": 0})


def timer(clock: int) -> Any:
    entry = {"it_id": 0, "clock_id": clock, "si_signo": 14, "it_sigev_notify": 1, "sival_ptr": 0, "overrun": 0}
    times = dict.fromkeys(("isec", "insec", "vsec", "vnsec"), 0)
    return lambda core: core["tc"]["timers"].update(posix=[entry | times])


def second_mapping(**values: Any) -> Change:
    """Change the second mapping of the first process, which is busybox's own from 0x401000 on."""
    numbers = {key: int(value, 16) if isinstance(value, str) else value for key, value in values.items()}
    return in_image("mm-1", lambda memory: memory["vmas"][1].update(numbers))


def local(name: str, directory: str = "", **more: Any) -> Change:
    """One more unix socket, bound at a path (which pycriu has quoted-printable)."""
    values = {
        "ino": 1, "type": 1, "state": 10, "flags": 2, "uflags": 0, "backlog": 0, "peer": 0, "opts": OPTIONS,
        "name": f"{name}=00", "ns_id": "net_ns_id",
    }  # fmt: skip
    return file("UNIXSK", "usk", **values, **({"name_dir": directory} if directory else {}), **more)


def _mount_at(members: Members, place: str) -> int:
    found = load(members, named(members, "mountpoints-"))["entries"]
    return next(int(each["mnt_id"]) for each in found if each["mountpoint"] == place)


def opened(name: str, mode: int = READ_ONLY_BITS, place: str = "/", pos: int = 0) -> Change:
    """One more file of the root filesystem that is open to be read."""
    return lambda members: file("REG", "reg", flags=0, pos=pos, name=name, mnt_id=_mount_at(members, place), mode=mode)(
        members
    )


def brought(*members_of_it: tuple[tarfile.TarInfo, bytes]) -> Change:
    def changed(members: Members) -> None:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as tar:
            for member, data in members_of_it:
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
        members["rootfs-diff.tar"] = out.getvalue()

    return changed


def behind(change: Change) -> Change:
    """With a symlink /way in the root filesystem, to a descriptor that CRIU has while it opens files."""
    return both(brought((info("way", tarfile.SYMTYPE, linkname="/proc/self/fd/5"), b"")), change)


def secret(members: Members) -> None:
    both(brought((info("secret", mode=0o600), b"x")), opened("/secret", stat.S_IFREG | 0o600))(members)


def _first(found: list[Json]) -> Json:
    entry: Json = next(each["reg"] for each in found if each["type"] == "REG")
    return entry


def as_pipe(found: list[Json]) -> None:
    entry = next(each for each in found if each["type"] == "REG")
    entry.pop("reg")
    entry["pipe"] = {"id": entry["id"], "pipe_id": 1, "flags": 0, "fown": NOBODY}


def remap(kind: str, name: str, place: str = "/") -> Change:
    """One more file that is open and deleted, which CRIU makes or removes."""

    def changed(members: Members) -> None:
        opened(name, place=place)(members)
        entry = {"orig_id": 990, "remap_id": 5 if kind == "GHOST" else 990, "remap_type": kind}
        image("remap-fpath", "REMAP_FPATH", entry)(members)
        if kind == "GHOST":
            ghost()(members)

    return changed


def ghost(**values: Any) -> Change:
    entry = {"uid": 0, "gid": 0, "mode": READ_ONLY_BITS, "extra": ""}
    return image("ghost-file-5", "GHOST_FILE", entry | values)


def pieces(*found: tuple[int, int]) -> Change:
    """A deleted file of 12 bytes with these pieces of content: (offset, length)."""
    head = {"uid": 0, "gid": 0, "mode": READ_ONLY_BITS, "chunks": True, "size": 12}
    chunks = [{"off": offset, "len": length, "extra": coded(bytes(length))} for offset, length in found]
    return image("ghost-file-5", "GHOST_FILE", head, *chunks)


def cut(name: str, less: int) -> Change:
    def changed(members: Members) -> None:
        members[f"checkpoint/{name}.img"] = members[f"checkpoint/{name}.img"][:-less]

    return changed


def cgroup(name: str, value: str, perms: Json | None = None, directory: Json | None = None) -> Change:
    """A cgroup's property, of a directory below the container's."""
    entry: Json = {"name": name, "value": value, **({"perms": perms} if perms else {})}
    found: Json = {"dir_name": "x", "properties": [entry], **({"dir_perms": directory} if directory else {})}
    return in_image("cgroup", lambda image: image["controllers"][0].update(dirs=[found]))


def archive(data: bytes) -> Change:
    return lambda members: members.update({in_memory(members): data})
