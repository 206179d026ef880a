"""Checkpoints from somebody who wants more than a container: how each is made of a good one, and what is said to it.

A case changes the members of an archive that podman wrote. It needs pycriu, and runs in a host of the lab.
"""

from __future__ import annotations

import base64
import json
import struct
import tarfile
from collections.abc import Iterator

from tests.hostile.case import ASKING, USER, VOLUME, Case
from tests.hostile.changing import (
    ALLOW,
    FIRST,
    MARK,
    SPEC_ALLOW,
    TSYNC,
    Change,
    allowing,
    any_personality,
    behind_a_symlink,
    both,
    capabilities,
    capabilities_without,
    cgroup_path,
    cgroup_property,
    chains,
    creds,
    file,
    filtered,
    ghost,
    host_network,
    image,
    in_image,
    in_json,
    in_profile,
    more_files,
    more_permissive,
    mount_at,
    mounted,
    mounts,
    namespace_of_criu,
    no_filters,
    node,
    not_mounted,
    odd_capabilities,
    of_another,
    old_credentials,
    padded,
    process,
    put,
    raw,
    regular,
    rootfs,
    second_network,
    thread,
    tmpfs,
    unknown_field,
    unset,
    without,
    without_field,
    writable,
)
from tests.hostile.field_cases import field_cases
from tests.hostile.kernel_cases import kernel_cases

HOOKS = {
    each: [{"path": "/bin/touch", "args": ["touch", MARK]}]
    for each in ("prestart", "createRuntime", "poststart", "poststop")
}
PROC = {"type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]}
CGROUP = {"type": "cgroup", "source": "cgroup", "destination": "/sys/fs/cgroup", "options": ["rw"]}
PORT = {"host_ip": "", "container_port": 22, "host_port": 2222, "range": 1, "protocol": "tcp"}
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
    "src_addr": ["0.0.0.0"], "dst_addr": ["0.0.0.0"], "opts": SOCKET, "ns_id": "net_ns_id",
}  # fmt: skip
NETLINK = {
    "ino": 1, "protocol": 12, "state": 7, "flags": 2, "portid": 0, "groups": [1], "dst_portid": 0, "dst_group": 0,
    "opts": SOCKET, "ns_id": "net_ns_id",
}  # fmt: skip
LOCAL = {
    "ino": 1, "type": 1, "state": 1, "flags": 2, "uflags": 1, "backlog": 0, "peer": 0, "opts": SOCKET,
    "name": base64.b64encode(b"/run/dbus/system_bus_socket\0").decode(), "ns_id": "net_ns_id",
}  # fmt: skip


def instructions(*found: tuple[int, int, int, int]) -> bytes:
    return b"".join(struct.pack("<HBBI", *each) for each in found)


def _filters() -> Iterator[tuple[str, Case]]:
    """What is not the container's filter, or not certainly, gets that in front; what no kernel takes is refused."""

    def harmless(change: Change, filters: str = "2 2", on_start: str | None = None) -> Case:
        return Case(change, on_start=on_start, container=ASKING, inside=f"refused refused {filters}")

    def refused(change: Change, said: str) -> Case:
        return Case(change, said, container=ASKING)

    yield "a filter that allows everything", harmless(filtered(lambda _: ALLOW, -1))
    yield "a filter that lets one call pass", harmless(more_permissive(allowing("bpf")))
    yield "a filter that lets a call pass with any arguments", harmless(more_permissive(allowing("personality")))
    yield "a filter with something in front that allows", harmless(filtered(lambda code: ALLOW + code, -1))
    around = filtered(lambda code: instructions((0x05, 0, 0, len(code) // 8)) + code + ALLOW, -1)
    yield "a filter with a way around it", harmless(around)
    computing = filtered(lambda code: instructions((0x04, 0, 0, 1)) + code, -1)
    yield "a filter that computes", harmless(computing)
    x32 = instructions((0x20, 0, 0, 0), (0x35, 0, 1, 1 << 30)) + ALLOW
    yield "a filter that lets calls of x32 pass", harmless(filtered(lambda code: x32 + code, -1))
    i386 = instructions((0x20, 0, 0, 4), (0x15, 0, 1, 0x40000003)) + ALLOW
    yield "a filter that lets calls of i386 pass", harmless(filtered(lambda code: i386 + code, -1))
    remembering = instructions((0x00, 0, 0, 0x7FFF0000), (0x02, 0, 0, 3), (0x60, 0, 0, 3), (0x16, 0, 0, 0))
    yield "a filter that remembers", harmless(filtered(lambda _: remembering, -1))
    yield (
        "the container's filter, but not first",
        harmless(chains(lambda own: [(ALLOW, TSYNC), (own, TSYNC)], lambda _: [])),
    )
    yield (
        "its own filters in front of the container's",
        harmless(chains(lambda own: [(ALLOW, TSYNC)] * 5 + [(ALLOW + own, TSYNC)], lambda _: []), "7 7"),
    )
    yield (
        "a thread's filter that allows everything",
        harmless(chains(lambda own: [(own, 0)], lambda _: [(ALLOW, 0)]), "1 2"),
    )
    yield (
        "the first thread's filter that allows everything",
        harmless(chains(lambda _: [(ALLOW, 0)], lambda own: [(own, 0)]), "2 1"),
    )
    yield "a thread without a filter", harmless(chains(lambda own: [(own, 0)], lambda _: []), "1 1")
    yield "a first thread without a filter", harmless(chains(lambda _: [], lambda own: [(own, 0)]), "1 1")
    yield "no filter", harmless(thread(seccomp_mode="disabled"), "1 1")
    yield "no image of filters", harmless(no_filters, "1 1")
    yield (
        "a filter without the mitigations of speculation",
        harmless(
            both(in_profile(put(flags=[])), chains(lambda own: [(own, TSYNC | SPEC_ALLOW)], lambda _: [])),
            on_start="another seccomp profile",
        ),
    )

    endless = filtered(lambda _: instructions((0x05, 0, 0, 7)), -1)
    yield "a filter that does not end", refused(endless, "as the kernel does not take it")
    unanswered = filtered(lambda _: instructions((0x20, 0, 0, 0)), -1)
    yield "a filter without an answer", refused(unanswered, "does not come to an end")
    dividing = filtered(lambda code: instructions((0x34, 0, 0, 0)) + code, -1)
    yield "a filter that divides by nothing", refused(dividing, "as the kernel does not take it")
    yield "a filter that is empty", refused(filtered(lambda _: b"", -1), "0 bytes long")
    yield "a filter that is longer than any", refused(filtered(lambda _: ALLOW * 4097, -1), "of 32776 bytes")
    longest = instructions(*[(0x80, 0, 0, 0)] * 4095) + ALLOW
    yield (
        "more filters than the kernel takes",
        refused(chains(lambda _: [(longest, TSYNC)] * 9, lambda _: []), "and the kernel takes 32768"),
    )
    yield (
        "no room for the container's filter",
        refused(chains(lambda _: [(ALLOW, TSYNC)] * 3600, lambda _: []), " with that of its container"),
    )
    yield "strict mode", refused(thread(seccomp_mode="strict"), "in seccomp's strict mode")
    beside = "seccomp filters for all of its threads, and others"
    yield (
        "filters for all threads, and of one",
        refused(chains(lambda own: [(own, TSYNC)], lambda own: [(own, 0)]), beside),
    )
    yield (
        "filters for all threads, in part",
        refused(chains(lambda own: [(own, 0), (own, TSYNC)], lambda _: []), beside),
    )
    yield (
        "filters for all threads, of another than the first",
        refused(chains(lambda own: [(own, 0)], lambda own: [(own, TSYNC)]), beside),
    )
    yield "no filter, as the old format says", Case(process(old_seccomp_mode="disabled"), "old format")
    yield "another filter, as the old format says", Case(process(old_seccomp_filter=0), "old format")
    yield "a filter that is not there", Case(thread(seccomp_filter=500), "that is not there")
    followed = in_image("seccomp", lambda entry: entry["seccomp_filters"][0].update(prev=500))
    yield "a filter after which there is none", Case(followed, "followed by one that is not there")
    circle = in_image("seccomp", lambda entry: entry["seccomp_filters"][0].update(prev=0))
    yield "filters in a circle", Case(circle, "in a circle")
    listener = in_image("seccomp", lambda entry: entry["seccomp_filters"][0].update(flags=8))
    yield "a filter with a listener", Case(listener, "flags 0x8")


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
    yield "a cgroup outside", Case(in_image("cgroup", cgroup_path("/../../x")), "leads out of its own")
    directory = in_image("cgroup", cgroup_property("cpu.max", "../x"))
    yield "a cgroup's directory outside", Case(directory, "leads out of its own")
    yield "a file outside", Case(regular(name="/../../etc/shadow"), "which leads elsewhere")
    yield "a file on no mount", Case(regular(mnt_id=31337), "on no mount of its container")
    yield "a block device opened by its name", Case(regular(mode=0o060600), "opens the block device")
    yield "a file of a plugin", Case(regular(ext=True), "only a plugin")
    yield "the host's network held open", Case(host_network, "a namespace of the host")
    yield "a block device among files in memory", Case(tmpfs(node("./disk", tarfile.BLKTYPE, 8, 0)), "block device 8:0")
    yield (
        "a memory device among files in memory",
        Case(tmpfs(node("./mem", tarfile.CHRTYPE, 1, 1)), "character device 1:1"),
    )
    yield "a way out of files in memory", Case(tmpfs(node("./../../owned", tarfile.CHRTYPE, 1, 3)), "leads outside")
    yield "a device among deleted files", Case(ghost, "block device 8:0")
    yield "a device in the root filesystem", Case(rootfs, "block device 8:0")

    yield from _filters()

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
    in_shm = behind_a_symlink("/dev/shm", "GHOST")
    yield "a deleted file behind a symlink in /dev/shm", Case(in_shm, "lies behind a symlink")
    yield "a deleted file behind a symlink in memory", Case(behind_a_symlink("/dev", "GHOST"), "lies behind a symlink")
    yield "a mount less", Case(not_mounted("/data"), "lacks the mount at '/data'", container=VOLUME)

    # Sockets.
    yield "a packet socket", Case(file("PACKETSK", "psk", **PACKET), "takes CAP_NET_RAW")
    yield "a raw socket", Case(file("INETSK", "isk", **INTERNET), "takes CAP_NET_RAW")
    yield (
        "a socket that marks packets",
        Case(
            file("INETSK", "isk", **INTERNET | {"type": 2, "proto": 17, "opts": SOCKET | {"so_mark": 7}}),
            "so_mark 7, which takes CAP_NET_ADMIN",
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
    for what, change, said in (
        ("a port of the host", put(newPortMappings=[PORT]), "--allow port=2222 "),
        ("a port of every address, as a range", put(newPortMappings=[PORT | {"range": 9}]), "--allow port="),
        ("to be started whenever the host is", put(restart_policy="always"), "--allow restart=always"),
        (
            "a label that updates act on",
            put(labels={"io.containers.autoupdate": "registry"}),
            "io.containers.autoupdate",
        ),
        (
            "a label that stops a unit of the host's",
            put(labels={"PODMAN_SYSTEMD_UNIT": "sshd.service"}),
            "sshd.service",
        ),
        ("a cgroup of the host's", put(cgroupParent="/system.slice"), "--allow cgroup-parent=/system.slice"),
    ):
        yield what, Case(in_json("config.dump", change), said, on_start="")
    yield "a capability", Case(capabilities("CAP_NET_ADMIN"), "the capability NET_ADMIN", on_start="lacks the")
    yield (
        "capabilities in other spelling",
        Case(capabilities("sys_admin"), "the capability SYS_ADMIN", on_start="lacks the"),
    )
    yield (
        "no seccomp profile",
        Case(
            unset("seccomp"),
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
    yield "capabilities that are none", Case(in_json("spec.dump", odd_capabilities), "at process.capabilities")
    yield (
        "a profile that allows bpf",
        Case(in_profile(allowing("bpf", "kexec_load")), "bpf kexec_load", on_start="another seccomp profile"),
    )
    yield (
        "open paths",
        Case(
            unset("maskedPaths"),
            "access to /proc/kcore",
            on_start="does not protect",
        ),
    )
    yield (
        "writable paths",
        Case(
            unset("readonlyPaths"),
            "access to /proc/sys",
            on_start="does not protect",
        ),
    )


CASES = {**dict(_cases()), **dict(field_cases()), **dict(kernel_cases())}
