"""Checkpoints from somebody who wants more than a container: how each is made of a good one, and what is said to it.

A case changes the members of an archive that podman wrote. It needs pycriu, and runs in a host of the lab.
"""

from __future__ import annotations

import base64
import io
import json
import struct
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

Members = dict[str, bytes]
Json = dict[str, Any]
Change = Callable[[Members], None]

MARK = "/srv/share/owned"
"""What a case would make on the host if it could."""
HOOKS = {
    each: [{"path": "/bin/touch", "args": ["touch", MARK]}]
    for each in ("prestart", "createRuntime", "poststart", "poststop")
}
PLAIN, USER, VOLUME = "plain", "user", "volume"
OPTIONS = {
    PLAIN: (),
    VOLUME: ("--volume", "held:/data:ro"),
    USER: ("--user", "33:33", "--security-opt", "no-new-privileges"),
}
"""How the good containers are made."""
FIRST = "checkpoint/core-1.img"
ALLOW = struct.pack("<HBBI", 0x06, 0, 0, 0x7FFF0000)
"""A seccomp filter that allows everything."""


@dataclass(frozen=True)
class Case:
    """One crafted checkpoint."""

    change: Change
    said: str = ""
    """A part of the sentence that refuses it; empty for what is made harmless instead."""
    on_start: str | None = None
    """What is said where the new container's own specification is what counts, if it is something else."""
    container: str = PLAIN


def load(members: Members, name: str) -> Json:
    from pycriu import images

    found: Json = images.load(io.BytesIO(members[name]))
    return found


def save(members: Members, name: str, image: Json) -> None:
    from pycriu import images

    out = io.BytesIO()
    images.dump(image, out)
    members[name] = out.getvalue()


def named(members: Members, prefix: str) -> str:
    """The first image whose name begins like that."""
    return next(name for name in sorted(members) if name.startswith(f"checkpoint/{prefix}"))


def in_image(prefix: str, change: Callable[[Json], None]) -> Change:
    """Change the first message of the first such image."""

    def changed(members: Members) -> None:
        name = named(members, prefix)
        image = load(members, name)
        change(image["entries"][0])
        save(members, name, image)

    return changed


def in_all(prefix: str, change: Callable[[list[Json]], None]) -> Change:
    """Change the messages of the first such image."""

    def changed(members: Members) -> None:
        name = named(members, prefix)
        image = load(members, name)
        change(image["entries"])
        save(members, name, image)

    return changed


def in_json(name: str, change: Callable[[Json], None]) -> Change:
    """Change ``config.dump`` or ``spec.dump``."""

    def changed(members: Members) -> None:
        value = json.loads(members[name])
        change(value)
        members[name] = json.dumps(value).encode()

    return changed


def both(*changes: Change) -> Change:
    """One after the other."""

    def changed(members: Members) -> None:
        for change in changes:
            change(members)

    return changed


def put(**values: Any) -> Callable[[Json], None]:
    """Set members of an object."""
    return lambda entry: entry.update(values)


def creds(**values: Any) -> Change:
    return in_image("core-1", lambda core: core["thread_core"]["creds"].update(values))


def thread(**values: Any) -> Change:
    return in_image("core-1", lambda core: core["thread_core"].update(values))


def process(**values: Any) -> Change:
    return in_image("core-1", lambda core: core["tc"].update(values))


def image(name: str, magic: str, *entries: Json) -> Change:
    """Add an image of these messages."""
    return lambda members: save(members, f"checkpoint/{name}.img", {"magic": magic, "entries": list(entries)})


def raw(name: str, data: bytes = b"x") -> Change:
    return lambda members: members.update({f"checkpoint/{name}": data})


def namespace_of_criu(field: str) -> Change:
    """CRIU's own namespace has the id of the container's: none is made, and the task stays in CRIU's."""

    def changed(members: Members) -> None:
        own = load(members, "checkpoint/ids-1.img")["entries"][0][field]
        in_image("inventory", lambda entry: entry["root_ids"].update({field: own}))(members)

    return changed


def without(prefix: str, field: str) -> Change:
    def remove(entry: Json) -> None:
        (entry.get("root_ids") or entry).pop(field)

    return in_image(prefix, remove)


def old_credentials(members: Members) -> None:
    core = load(members, FIRST)
    old = core["entries"][0]["thread_core"].pop("creds")
    for name in ("cap_inh", "cap_prm", "cap_eff", "cap_bnd"):
        old[name] = [0xFFFFFFFF, 0x1FF]
    save(members, FIRST, core)
    save(members, "checkpoint/creds-1.img", {"magic": "CREDS", "entries": [old]})


def second_network(members: Members) -> None:
    in_image("ids-", lambda entry: None)(members)
    others = [name for name in sorted(members) if name.startswith("checkpoint/ids-")]
    found = load(members, others[-1])
    found["entries"][0]["net_ns_id"] = 77
    save(members, others[-1], found)


def filtered(change: Callable[[bytes], bytes], position: int = 0) -> Change:
    """Change the code of a filter; every one of them when `position` is -1."""

    def changed(entry: Json) -> None:
        for number, each in enumerate(entry["seccomp_filters"]):
            if position in (-1, number):
                each["filter"] = base64.b64encode(change(base64.b64decode(each["filter"]))).decode()

    return in_image("seccomp", changed)


def more_permissive(change: Callable[[Json], None]) -> Change:
    """Filters compiled of a profile that allows more than the container's."""

    def changed(members: Members) -> None:
        from ocickpt.gate.profile import compiled

        profile = json.loads(members["spec.dump"])["linux"]["seccomp"]
        change(profile)
        code = next(compiled(profile))
        filtered(lambda _: code, -1)(members)

    return changed


def allowing(*names: str) -> Callable[[Json], None]:
    def changed(profile: Json) -> None:
        for rule in profile["syscalls"]:
            rule["names"] = [name for name in rule["names"] if name not in names]
        profile["syscalls"] = [rule for rule in profile["syscalls"] if rule["names"]]
        profile["syscalls"].append({"names": list(names), "action": "SCMP_ACT_ALLOW"})

    return changed


def mounts(change: Callable[[list[Json]], None]) -> Change:
    return in_all("mountpoints-", change)


def mount_at(path: str, **values: Any) -> Change:
    def changed(found: list[Json]) -> None:
        (entry,) = (each for each in found if each["mountpoint"] == path)
        entry.update(values)

    return mounts(changed)


def not_mounted(path: str) -> Change:
    def changed(found: list[Json]) -> None:
        found[:] = [each for each in found if each["mountpoint"] != path]

    return mounts(changed)


def without_field(path: str, field: str) -> Callable[[list[Json]], None]:
    def changed(found: list[Json]) -> None:
        next(each for each in found if each["mountpoint"] == path).pop(field)

    return changed


def writable(path: str) -> Change:
    def changed(found: list[Json]) -> None:
        (entry,) = (each for each in found if each["mountpoint"] == path)
        entry["flags"] &= ~1
        entry["sb_flags"] = 0

    return mounts(changed)


def mounted(path: str, like: str, **values: Any) -> Change:
    """One more mount, like another one."""

    def changed(found: list[Json]) -> None:
        entry = dict(next(each for each in found if each["mountpoint"] == like))
        root = next(each for each in found if each["mountpoint"] == "/")
        entry |= {"mountpoint": path, "mnt_id": 9999, "parent_mnt_id": root["mnt_id"]} | values
        found.insert(0, entry)

    return mounts(changed)


def of_another(path: str, other: str, *fields: str) -> Change:
    """A mount that is of the filesystem of another one."""

    def changed(found: list[Json]) -> None:
        by_path = {each["mountpoint"]: each for each in found}
        by_path[path].update({field: by_path[other][field] for field in fields})

    return mounts(changed)


def behind_a_symlink(where: str, kind: str) -> Change:
    """A deleted file below a symlink to a directory of the host, in the root filesystem or in memory."""

    def changed(members: Members) -> None:
        found = load(members, named(members, "mountpoints-"))["entries"]
        mount = next(each["mnt_id"] for each in found if each["mountpoint"] == where)
        name = f"{where.rstrip('/')}/way/owned"
        file("REG", "reg", flags=0, pos=0, name=name, mnt_id=mount, mode=0o100644)(members)
        entry = {"orig_id": 990, "remap_id": 5 if kind == "GHOST" else 990, "remap_type": kind}
        image("remap-fpath", "REMAP_FPATH", entry)(members)
        if kind == "GHOST":
            image("ghost-file-5", "GHOST_FILE", {"uid": 0, "gid": 0, "mode": 0o100644, "extra": ""})(members)
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w" if where == "/" else "w:gz") as tar:
            link = tarfile.TarInfo("way" if where == "/" else "./way")
            link.type, link.linkname = tarfile.SYMTYPE, str(MARK.rpartition("/")[0])
            tar.addfile(link)
        members["rootfs-diff.tar" if where == "/" else named(members, "tmpfs-dev-")] = out.getvalue()

    return changed


def file(kind: str, field: str, **values: Any) -> Change:
    """One more entry of files.img, which descriptor 9 of the first process is."""
    owner = {"uid": 0, "euid": 0, "signum": 0, "pid_type": 0, "pid": 0}

    def changed(members: Members) -> None:
        own = load(members, "checkpoint/ids-1.img")["entries"][0]
        named_ids = {key: own[key] for key in ("net_ns_id", "mnt_ns_id")}
        filled = {
            key: named_ids.get(value, value) if isinstance(value, str) else value for key, value in values.items()
        }
        if field != "nsf":
            filled["fown"] = owner
        entry = {"type": kind, "id": 990, field: {"id": 990, **filled}}
        in_all("files", lambda found: found.append(entry))(members)
        in_all("fdinfo-2", lambda found: found.append({"id": 990, "flags": 0, "type": kind, "fd": 9}))(members)

    return changed


def regular(**values: Any) -> Change:
    def changed(found: list[Json]) -> None:
        next(each["reg"] for each in found if each["type"] == "REG").update(values)

    return in_all("files", changed)


def host_network(members: Members) -> None:
    root = load(members, "checkpoint/inventory.img")["entries"][0]["root_ids"]["net_ns_id"]
    file("NS", "nsf", ns_id=root, ns_cflag=0x40000000, flags=0)(members)


def tree(*entries: tuple[str, bytes, int, int]) -> bytes:
    """A tar of device nodes: (name, type, major, minor)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, kind, major, minor in entries:
            info = tarfile.TarInfo(name)
            info.type, info.devmajor, info.devminor, info.mode = kind, major, minor, 0o666
            tar.addfile(info)
    return out.getvalue()


def tmpfs(*entries: tuple[str, bytes, int, int]) -> Change:
    return lambda members: members.update({named(members, "tmpfs-dev-"): tree(*entries)})


def rootfs(members: Members) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        info = tarfile.TarInfo("disk")
        info.type, info.devmajor, info.devminor, info.mode = tarfile.BLKTYPE, 8, 0, 0o666
        tar.addfile(info)
    members["rootfs-diff.tar"] = out.getvalue()


def ghost(members: Members) -> None:
    image("ghost-file-1", "GHOST_FILE", {"uid": 0, "gid": 0, "mode": 0o060666, "rdev": 8 << 8, "extra": ""})(members)


def unknown_field(name: str) -> Change:
    """A field that no version of CRIU knows by now: number 1000, the varint 1."""

    def changed(members: Members) -> None:
        data = members[name]
        head = 4 if name.endswith("inventory.img") else 8
        size = int.from_bytes(data[head : head + 4], "little")
        more = bytes([0xC0, 0x3E, 0x01])
        message = data[head + 4 : head + 4 + size] + more
        members[name] = data[:head] + struct.pack("<I", len(message)) + message + data[head + 4 + size :]

    return changed


def padded(name: str, change: Callable[[Json], None]) -> Change:
    """So large that it is not in the boot pack."""

    def changed(value: Json) -> None:
        change(value)
        if "process" in value:
            value["process"].setdefault("env", []).append("PADDING=" + "x" * (600 << 10))
        else:
            value["labels"] = (value.get("labels") or {}) | {"padding": "x" * (600 << 10)}

    return in_json(name, changed)


def in_profile(change: Callable[[Json], None]) -> Change:
    return in_json("spec.dump", lambda spec: change(spec["linux"]["seccomp"]))


def capabilities(*names: str) -> Change:
    def changed(spec: Json) -> None:
        for held in spec["process"]["capabilities"].values():
            held.extend(names)

    return in_json("spec.dump", changed)


PROC = {"type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]}
CGROUP = {"type": "cgroup", "source": "cgroup", "destination": "/sys/fs/cgroup", "options": ["rw"]}
ALL = [0xFFFFFFFF, 0x1FF]
SOCKET = {
    "so_sndbuf": 212992, "so_rcvbuf": 212992, "so_snd_tmo_sec": 0, "so_snd_tmo_usec": 0, "so_rcv_tmo_sec": 0,
    "so_rcv_tmo_usec": 0,
}  # fmt: skip
PACKET = {
    "type": 3, "protocol": 0x300, "flags": 2, "ifindex": 0, "opts": SOCKET, "version": 0, "reserve": 0,
    "aux_data": False, "orig_dev": False, "vnet_hdr": False, "loss": False, "timestamp": 0, "copy_thresh": 0,
}  # fmt: skip
INTERNET = {
    "ino": 1, "family": 2, "type": 3, "proto": 1, "state": 7, "src_port": 0, "dst_port": 0, "flags": 2, "backlog": 0,
    "opts": SOCKET, "ns_id": "net_ns_id",
}  # fmt: skip
NETLINK = {
    "ino": 1, "protocol": 12, "state": 7, "flags": 2, "portid": 0, "groups": [1], "dst_portid": 0, "dst_group": 0,
    "opts": SOCKET, "ns_id": "net_ns_id",
}  # fmt: skip
LOCAL = {
    "ino": 1, "type": 1, "state": 1, "flags": 2, "uflags": 1, "backlog": 0, "peer": 0, "opts": SOCKET,
    "name": base64.b64encode(b"/run/dbus/system_bus_socket\0").decode(), "ns_id": "net_ns_id",
}  # fmt: skip


def _cases() -> Iterator[tuple[str, Case]]:
    # What podman and the runtime get to read is what was checked.
    yield "hooks in a specification that is too large for the boot pack", Case(padded("spec.dump", put(hooks=HOOKS)))
    yield (
        "an exit command in a configuration that is too large for the boot pack",
        Case(padded("config.dump", put(exitCommand=["/bin/touch", MARK]))),
    )
    yield "hooks in a large specification, as Go reads them", Case(padded("spec.dump", put(HOOKS=HOOKS)))

    # Namespaces.
    for field, kind in (("mnt", "mount"), ("net", "network"), ("ipc", "ipc"), ("uts", "uts"), ("pid", "pid")):
        yield (
            f"the host's {kind} namespace",
            Case(namespace_of_criu(f"{field}_ns_id"), f"would get the {kind} namespace of this host"),
        )
    yield "no id of CRIU's network", Case(without("inventory", "net_ns_id"), "which network namespace")
    yield "no id of a process's mounts", Case(without("ids-1", "mnt_ns_id"), "which mount namespace")
    yield "a user namespace", Case(in_image("ids-1", put(user_ns_id=99)), "user namespace")
    yield "another network for a second process", Case(second_network, "network namespace")

    # Who a process is.
    yield "credentials of the old format", Case(old_credentials, "creds-1.img is an image of an old format")
    yield "no credentials", Case(in_image("core-1", lambda core: core["thread_core"].pop("creds")), "no credentials")
    yield (
        "limits of the old format",
        Case(image("rlimit-1", "RLIMIT", {"cur": 1, "max": 1}), "rlimit-1.img is an image of an old format"),
    )
    yield "signal handlers of the old format", Case(raw("sigacts-1.img"), "sigacts-1.img is an image of an old format")
    yield "every capability", Case(creds(cap_prm=ALL, cap_eff=ALL, cap_bnd=ALL), "has capabilities that its container")
    yield "an ambient capability", Case(creds(cap_amb=[1 << 21, 0]), "SYS_ADMIN")
    yield "an inheritable capability", Case(creds(cap_inh=[1 << 16, 0]), "SYS_MODULE")
    yield (
        "securebits",
        Case(both(creds(secbits=1), capabilities_without("SETPCAP")), "securebits", on_start=""),
    )
    yield (
        "root under no_new_privs",
        Case(creds(uid=0, euid=0, suid=0, fsuid=0), "is user 0, which user 33 cannot become", container=USER),
    )
    yield "an effective uid under no_new_privs", Case(creds(euid=0), "is user 0", container=USER)
    yield "a group under no_new_privs", Case(creds(groups=[33, 42]), "is in group 42", container=USER)
    yield (
        "without no_new_privs",
        Case(creds(no_new_privs=0), "does without the container's no_new_privs", container=USER),
    )
    yield (
        "capabilities under no_new_privs",
        Case(
            creds(cap_prm=[1, 0], cap_eff=[1, 0]),
            "has capabilities that its container cannot have: CHOWN",
            container=USER,
        ),
    )
    yield "the real-time policy SCHED_FIFO", Case(thread(sched_policy=1, sched_prio=99), "real-time policy 1")
    yield "the real-time policy SCHED_RR", Case(thread(sched_policy=2, sched_prio=1), "real-time policy 2")
    yield "the policy SCHED_DEADLINE", Case(thread(sched_policy=6), "real-time policy 6")
    yield "more open files", Case(more_files, "RLIMIT_NOFILE")
    yield "not to be killed", Case(process(oom_score_adj=-1000), "oom_score_adj -1000")
    yield (
        "a thread of nobody",
        Case(lambda members: members.update({"checkpoint/core-77.img": members[FIRST]}), "image of thread 77"),
    )

    # Files outside.
    policy = {"name": "../../../../srv/share/owned", "blob": base64.b64encode(b"x").decode()}
    yield (
        "an AppArmor policy outside",
        Case(image("apparmor", "APPARMOR", {"namespaces": [{"name": "x", "policies": [policy]}]}), "AppArmor policies"),
    )
    yield (
        "an AppArmor policy",
        Case(
            image("apparmor", "APPARMOR", {"namespaces": [{"name": "x", "policies": [policy | {"name": "x"}]}]}),
            "AppArmor policies",
        ),
    )
    yield (
        "a descriptor of CRIU's",
        Case(
            raw("descriptors.json", json.dumps(["/dev/null", "pipe:[1]", "pipe:[2]", "pipe:[3]"]).encode()),
            "4 descriptors",
        ),
    )
    yield "many descriptors", Case(raw("descriptors.json", json.dumps(["x"] * 500).encode()), "500 descriptors")
    yield "descriptors that are none", Case(raw("descriptors.json", b'{"0": "x"}'), "not a list of names")
    yield (
        "a cgroup's property outside",
        Case(in_image("cgroup", cgroup_property("../../../../srv/share/owned")), "no property"),
    )
    yield "a cgroup outside", Case(in_image("cgroup", cgroup_path("/../../x")), "which is none")
    yield "a cgroup's directory outside", Case(in_image("cgroup", cgroup_property("cpu.max", "../x")), "which is none")
    yield "a file outside", Case(regular(name="/../../etc/shadow"), "which leads elsewhere")
    yield "a file on no mount", Case(regular(mnt_id=31337), "on no mount of its container")
    yield "a block device opened by its name", Case(regular(mode=0o060600), "opens the block device")
    yield "a file of a plugin", Case(regular(ext=True), "only a plugin")
    yield "the host's network held open", Case(host_network, "a namespace of the host")
    yield "a block device among files in memory", Case(tmpfs(("disk", tarfile.BLKTYPE, 8, 0)), "block device 8:0")
    yield "a memory device among files in memory", Case(tmpfs(("mem", tarfile.CHRTYPE, 1, 1)), "character device 1:1")
    yield "a way out of files in memory", Case(tmpfs(("../../owned", tarfile.CHRTYPE, 1, 3)), "leads outside")
    yield "a device among deleted files", Case(ghost, "block device 8:0")
    yield "a device in the root filesystem", Case(rootfs, "block device 8:0")

    # Filters.
    yield "a filter that allows everything", Case(filtered(lambda _: ALLOW, -1), "is not the container's: it allows")
    yield "a filter that allows everything, of one thread", Case(filtered(lambda _: ALLOW), "is not the container's")
    yield "a filter that lets one call pass", Case(more_permissive(allowing("bpf")), "it allows bpf")
    yield (
        "a filter that lets a call pass with any arguments",
        Case(more_permissive(allowing("personality")), "it allows personality"),
    )
    yield "a filter with something in front that allows", Case(filtered(lambda code: ALLOW + code, -1), "it allows")
    yield (
        "a filter with a way around it",
        Case(filtered(lambda code: struct.pack("<HBBI", 0x05, 0, 0, len(code) // 8) + code + ALLOW, -1), "it allows"),
    )
    yield (
        "a filter that does not end",
        Case(filtered(lambda _: struct.pack("<HBBI", 0x05, 0, 0, 7), -1), "does not come to an end"),
    )
    yield (
        "a filter that computes",
        Case(filtered(lambda code: struct.pack("<HBBI", 0x04, 0, 0, 1) + code, -1), "as no runtime's has"),
    )
    yield (
        "no filter",
        Case(
            in_image("core-1", lambda core: core["thread_core"].update(seccomp_mode="disabled")),
            "has no seccomp filter",
        ),
    )
    yield "no filter, as the old format says", Case(process(old_seccomp_mode="disabled"), "old format")
    yield "another filter, as the old format says", Case(process(old_seccomp_filter=0), "old format")
    yield "a filter that is not there", Case(thread(seccomp_filter=500), "that is not there")
    yield (
        "filters in a circle",
        Case(in_image("seccomp", lambda entry: entry["seccomp_filters"][0].update(prev=0)), "that is not there"),
    )
    yield (
        "a filter with a listener",
        Case(in_image("seccomp", lambda entry: entry["seccomp_filters"][0].update(flags=8)), "flags 0x8"),
    )

    # Mounts.
    yield "an open /proc/keys", Case(not_mounted("/proc/keys"), "leaves /proc/keys open")
    yield "a writable /proc/sys", Case(not_mounted("/proc/sys"), "leaves /proc/sys open")
    yield "an open /sys/firmware", Case(not_mounted("/sys/firmware"), "leaves /sys/firmware open")
    yield "/proc/irq without its flag", Case(writable("/proc/irq"), "is writable, and the container's is not")
    yield "/sys without its flag", Case(writable("/sys"), "it lacks ro")
    yield "/proc with set-uid programs", Case(mount_at("/proc", flags=0), "it lacks nosuid nodev noexec")
    yield (
        "a volume that may be written to",
        Case(writable("/data"), "'/data' may do more than the container's: it lacks ro", container=VOLUME),
    )
    yield (
        "another volume",
        Case(mount_at("/data", ext_key="/etc/hosts"), "is not the directory or file", container=VOLUME),
    )
    yield (
        "a mask that is none",
        Case(mount_at("/proc/keys", ext_key="", fstype=1, root="/keys", flags=0), "does not hide"),
    )
    yield "another /proc", Case(mounted("/x", "/proc"), "no mount at '/x'")
    yield "a file of /proc elsewhere", Case(mounted("/x", "/proc", root="/sysrq-trigger"), "no mount at '/x'")
    yield "files in memory over /etc", Case(mounted("/opt", "/dev", root_dev=9999), "no mount at '/opt'")
    yield "a mount outside", Case(mounted("/../../srv/share/owned", "/dev"), "is no path")
    yield (
        "a disk",
        Case(mounted("/x", "/dev", fstype=16, source="/dev/vda", fsname="ext4"), "mounts something of its host"),
    )
    yield "a plugin's mount", Case(mounted("/x", "/dev", with_plugin=True), "mounts something of its host")
    yield (
        "a cgroup hierarchy for the whole machine",
        Case(mount_at("/sys/fs/cgroup", fstype=12, options="none,name=evil"), "is not the cgroup"),
    )
    more = "do more than mount a filesystem"
    yield "a directory of the host by a superblock's flags", Case(mount_at("/dev", sb_flags=0x1000, source="/"), more)
    yield "a mount to be moved", Case(mount_at("/dev", sb_flags=0x2000, source="/"), more)
    yield "a mount to be changed", Case(mount_at("/dev", sb_flags=0x20), more)
    yield "a mount without a superblock's flags", Case(mounts(without_field("/dev", "sb_flags")), more)
    yield "a directory of the host by a mount's flags", Case(mount_at("/dev", flags=0x5000, source="/"), more)
    yield (
        "/proc over /proc",
        Case(mounted("/proc", "/proc", parent_mnt_id=4242), "mounts one thing over another"),
    )
    yield "a mask below /proc", Case(mount_at("/proc/keys", parent_mnt_id=4242), "lies below what is mounted there")
    yield (
        "the root filesystem at /dev",
        Case(of_another("/dev", "/", "root_dev"), "is one of another of its mounts"),
    )
    yield (
        "a volume at /dev",
        Case(of_another("/dev", "/data", "root_dev"), "another of its mounts", container=VOLUME),
    )
    yield (
        "another file at a read-only path",
        Case(mount_at("/proc/irq", root="/sysrq-trigger"), "is not what the kernel has there"),
    )
    yield "no root filesystem", Case(not_mounted("/"), "without a root filesystem")
    yield "mounts twice, for us and for CRIU", Case(raw("mountpoints-012.img"), "is no image of CRIU")
    yield "a deleted file behind a symlink", Case(behind_a_symlink("/", "GHOST"), "lies behind a symlink")
    yield "a removed name behind a symlink", Case(behind_a_symlink("/", "LINKED"), "lies behind a symlink")
    yield "a deleted file behind a symlink in memory", Case(behind_a_symlink("/dev", "GHOST"), "lies behind a symlink")
    yield "a mount less", Case(not_mounted("/data"), "lacks the mount at '/data'", container=VOLUME)

    # Sockets.
    yield "a packet socket", Case(file("PACKETSK", "psk", **PACKET), "takes CAP_NET_RAW")
    yield "a raw socket", Case(file("INETSK", "isk", **INTERNET), "takes CAP_NET_RAW")
    yield (
        "a socket that marks packets",
        Case(
            file("INETSK", "isk", **INTERNET | {"type": 2, "proto": 17, "opts": SOCKET | {"so_mark": 7}}),
            "marks packets",
        ),
    )
    yield (
        "a socket of another network",
        Case(file("INETSK", "isk", **INTERNET | {"type": 1, "proto": 6, "ns_id": 77}), "in a network of the host"),
    )
    yield "a socket of the host's bus", Case(file("UNIXSK", "usk", **LOCAL), "a process of the host")
    yield (
        "a netlink socket that listens to the firewall",
        Case(file("NETLINKSK", "nlsk", **NETLINK), "takes CAP_NET_ADMIN"),
    )
    yield "a network tunnel", Case(file("TUNF", "tunf", netdev="tun0"), "takes CAP_NET_ADMIN")

    # Networks.
    yield (
        "a network of CRIU's own",
        Case(in_image("netns-", lambda entry: entry.pop("ext_key")), "would make a network"),
    )
    yield "another network", Case(in_image("netns-", put(ext_key="host")), "would make a network")
    for name in ("iptables", "ip6tables", "nftables", "route", "rule", "ifaddr"):
        # They are left out where a checkpoint is made of an archive: a container without a network has some.
        yield f"an image {name}", Case(raw(f"{name}-10.img", b"*filter"))
    yield "connections to be tracked", Case(raw("netns-ct-10.img"), "connection tracking")
    yield "expected connections", Case(raw("netns-exp-10.img"), "connection tracking")
    yield (
        "network devices",
        Case(
            image("netdev-10", "NETDEV", {"type": "VETH", "ifindex": 2, "mtu": 1500, "flags": 1, "name": "x"}),
            "network devices",
        ),
    )

    # What nobody knows.
    yield "an interpreter for the kernel", Case(raw("binfmt-misc.img"), "register an interpreter")
    yield "BPF maps", Case(raw("bpfmap-file.img"), "BPF maps")
    yield "an image of an unknown kind", Case(raw("future-1.img"), "unknown kind")
    yield (
        "an image under another's name",
        Case(
            lambda members: members.update({"checkpoint/fs-1.img": members["checkpoint/ids-1.img"]}),
            "another kind than its name",
        ),
    )
    yield "a field that nobody knows", Case(unknown_field(FIRST), "does not know")
    yield "a field of the inventory that nobody knows", Case(unknown_field("checkpoint/inventory.img"), "does not know")

    # More than a container gets that asks for nothing; on start it has what its own command gave it.
    yield (
        "a secret",
        Case(in_json("config.dump", put(secrets=[{"name": "held", "Target": "/x"}])), "the secret held", on_start=""),
    )
    yield (
        "a secret in the environment",
        Case(in_json("config.dump", put(secret_env={"X": {"name": "held"}})), "the secret held", on_start=""),
    )
    yield "a capability", Case(capabilities("CAP_NET_ADMIN"), "the capability NET_ADMIN", on_start="lacks the")
    yield (
        "capabilities in other spelling",
        Case(capabilities("sys_admin"), "the capability SYS_ADMIN", on_start="lacks the"),
    )
    yield (
        "no seccomp profile",
        Case(
            in_json("spec.dump", lambda spec: spec["linux"].pop("seccomp")),
            "every system call",
            on_start="another seccomp profile",
        ),
    )
    yield (
        "a profile that allows what it does not name",
        Case(
            in_profile(put(defaultAction="SCMP_ACT_ALLOW", defaultErrnoRet=None)),
            "every system call",
            on_start="another seccomp profile",
        ),
    )
    yield (
        "a second /proc",
        Case(
            in_json("spec.dump", lambda spec: spec["mounts"].append(PROC | {"destination": "/x"})),
            "another proc at /x",
            on_start="does not mount /x",
        ),
    )
    yield (
        "a writable cgroup hierarchy",
        Case(
            in_json("spec.dump", lambda spec: spec["mounts"].append(CGROUP)),
            "a writable /sys/fs/cgroup",
            on_start="",
        ),
    )
    yield (
        "a profile that allows a call with other arguments",
        Case(in_profile(any_personality), "personality", on_start="another seccomp profile"),
    )
    yield "capabilities that are none", Case(in_json("spec.dump", odd_capabilities), "are not a list")
    yield (
        "a profile that allows bpf",
        Case(in_profile(allowing("bpf", "kexec_load")), "bpf kexec_load", on_start="another seccomp profile"),
    )
    yield (
        "open paths",
        Case(
            in_json("spec.dump", lambda spec: spec["linux"].pop("maskedPaths")),
            "access to /proc/kcore",
            on_start="does not protect",
        ),
    )
    yield (
        "writable paths",
        Case(
            in_json("spec.dump", lambda spec: spec["linux"].pop("readonlyPaths")),
            "access to /proc/sys",
            on_start="does not protect",
        ),
    )


def any_personality(profile: Json) -> None:
    for rule in profile["syscalls"]:
        if "personality" in rule["names"]:
            rule["args"][0] |= {"value": 0, "op": "SCMP_CMP_GE"}


def odd_capabilities(spec: Json) -> None:
    spec["process"]["capabilities"]["bounding"] = 5


def capabilities_without(name: str) -> Change:
    def changed(spec: Json) -> None:
        for held in spec["process"]["capabilities"].values():
            held[:] = [each for each in held if each != f"CAP_{name}"]

    def dropped(members: Members) -> None:
        for path in [each for each in members if each.startswith("checkpoint/core-")]:
            core = load(members, path)
            held = core["entries"][0]["thread_core"]["creds"]
            for each in ("cap_prm", "cap_eff", "cap_bnd"):
                held[each][0] &= ~(1 << 8)
            save(members, path, core)

    return both(in_json("spec.dump", changed), dropped)


def more_files(members: Members) -> None:
    core = load(members, FIRST)
    core["entries"][0]["tc"]["rlimits"]["rlimits"][7] = {"cur": 1 << 20, "max": 1 << 20}
    save(members, FIRST, core)


def cgroup_property(name: str, directory: str = "/x") -> Callable[[Json], None]:
    entry = {"dir_name": directory, "properties": [{"name": name, "value": "x"}]}
    return lambda cgroup: cgroup["controllers"][0].update(dirs=[entry])


def cgroup_path(path: str) -> Callable[[Json], None]:
    return lambda cgroup: cgroup["sets"][0]["ctls"][0].update(path=path)


CASES = dict(_cases())
