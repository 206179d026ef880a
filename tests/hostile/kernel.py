"""What the kernel shows of crafted checkpoints when nobody has looked at their images: see `cases`.

Not here is what CRIU itself does not restore (a namespace that it cannot make, a path that is not there), what it
leaves undone in silence (a limit above the host's), and what no kernel shows of a process that stands still: what a
filter lets pass, securebits, who is signalled, what lies in its queues.
"""

from __future__ import annotations

from dataclasses import replace

from tests.hostile import cases
from tests.hostile.case import VOLUME, Case
from tests.hostile.field_cases import NOT_FILLED

SAYS: dict[str, str] = {
    "the host's network namespace": "is in the network namespace of this host",
    "the host's ipc namespace": "is in the ipc namespace of this host",
    "the host's uts namespace": "is in the uts namespace of this host",
    "another network for a second process": "is in another network namespace than the one",
    "a network of CRIU's own": "is in another network namespace than the one",
    "root under no_new_privs": "is user 0, which user 33 cannot become",
    "root under no_new_privs, of a child": "is user 0, which user 33 cannot become",
    "an effective uid under no_new_privs": "is user 0, which user 33 cannot become",
    "a group under no_new_privs": "is in group 42",
    "a group id under no_new_privs": "is in group 0",
    "without no_new_privs": "does without the container's no_new_privs",
    "without no_new_privs, of a child": "does without the container's no_new_privs",
    "capabilities under no_new_privs": "cannot have: CHOWN",
    "the capability SYS_ADMIN": "cannot have: SYS_ADMIN",
    "the capability SYS_ADMIN, to come": "cannot have: SYS_ADMIN",
    "the capability SYS_ADMIN, inheritable": "cannot have: SYS_ADMIN",
    "the capability SYS_ADMIN, ambient": "cannot have: SYS_ADMIN",
    "the capability SYS_ADMIN, of a child": "cannot have: SYS_ADMIN",
    "the capability SYS_ADMIN, of a thread": "cannot have: SYS_ADMIN",
    "the real-time policy SCHED_FIFO": "has the real-time policy 1",
    "the real-time policy SCHED_RR": "has the real-time policy 2",
    "a real-time policy of a child": "has the real-time policy 1",
    "a real-time policy of a thread": "has the real-time policy 2",
    "a nice value below zero": "has the nice value -20",
    "a nice value below zero, of a child": "has the nice value -1",
    "a nice value of a thread": "has the nice value -5",
    "more open files than its user may have": "may have 257 of NOFILE, its container 256",
    "no filter": "runs without the container's seccomp filter",
    "no image of filters": "runs without the container's seccomp filter",
    "a thread without a filter": "runs without the container's seccomp filter",
    "a first thread without a filter": "runs without the container's seccomp filter",
    "strict mode": "runs without the container's seccomp filter",
    "/proc/irq without its flag": "has a mount at '/proc/irq'",
    "a directory of the host by a superblock's flags": "lacks its tmpfs mount at '/dev'",
    "a mount less": "lacks its bind mount at '/data'",
    "another /proc, at a place of its own": "has a mount at '/x'",
    "another /sys, at a place of its own": "has a mount at '/x'",
    "another /sys/fs/cgroup, at a place of its own": "has a mount at '/x'",
    "another /dev/mqueue, at a place of its own": "has a mount at '/x'",
    "another /dev/shm, at a place of its own": "has a mount at '/x'",
    "its root filesystem at a place of its own": "has a mount at '/x'",
    "/proc/keys at a place of its own": "has a mount at '/x'",
    "files in memory at a place of its own": "has a mount at '/x'",
    "its volume once more, to be written": "has a mount at '/x'",
    "/etc/hosts at a place of its own": "has a mount at '/x'",
    "the host's /dev/shm for a volume": "lacks its bind mount at '/data'",
    "another file of the host for /etc/hosts": "lacks its bind mount at '/etc/hosts'",
    "without /dev/mqueue": "lacks its mqueue mount at '/dev/mqueue'",
    "without /dev/shm": "lacks its bind mount at '/dev/shm'",
    "without /etc/hosts": "lacks its bind mount at '/etc/hosts'",
    "without /sys/fs/cgroup": "lacks its cgroup mount at '/sys/fs/cgroup'",
    "a second mount namespace": "is in another mount namespace than its container",
    "a file of the host": "has '/etc/passwd' of this host open",
    "a directory of the host": "has '/etc' of this host open",
    "a file of the host in memory": "has '/usr/bin/podman' of this host open",
    "a program of the host": "has '/usr/bin/env' of this host open",
    "a working directory of the host": "has '/' of this host open",
    "the host's root": "has another root filesystem than its own",
    "the host's network held open, by its name": "holds the network namespace of this host open",
    "a file of a process of the host": "/1/status' of this host open",
    "a device among files in memory, open": "has the device '/dev/kmsg' open (c1:11)",
    "a device in the root filesystem, open": "has the device '/kmsg' open (c1:11)",
    "/dev larger than it may be": "has size=1073741824 at '/dev' instead of 67108864",
    "/dev of any size": "at '/dev' instead of 67108864",
    "a packet socket": "has a packet or raw socket",
    "a raw socket": "has a packet or raw socket",
    "a socket that marks packets": "has a socket with the mark 7",
    "a socket whose packets come first": "and the priority 7, which takes CAP_NET_ADMIN",
    "a socket with much memory to send": "bytes of memory, which takes CAP_NET_ADMIN",
    "a socket with much memory to receive": "bytes of memory, which takes CAP_NET_ADMIN",
    "a netlink socket in a group of the firewall's": "has a netlink socket that listens",
}
"""A part of the sentence that it is refused with."""
_DEVICES = "a device among files in memory, open", "a device in the root filesystem, open"
"""Under runc CRIU is in the container's cgroup, whose policy does not let it open them."""
PUT_RIGHT: dict[str, str] = {
    "an open /proc/keys": "[ -c /proc/keys ]",
    "a writable /proc/sys": "grep -q '^proc /proc/sys proc ro,' /proc/mounts",
    "an open /sys/firmware": "grep -q ' /sys/firmware tmpfs ro,' /proc/mounts",
    "/sys without its flag": "grep -q ' /sys sysfs ro,' /proc/mounts",
    "/proc with set-uid programs": "grep -q '^proc /proc proc rw,nosuid,nodev,noexec,' /proc/mounts",
    "a volume that may be written to": "! touch /data/owned",
}
"""What is completed instead, and what is then true inside."""


def _seen(name: str) -> Case:
    case = cases.CASES[name]
    on_start = NOT_FILLED if case.container == VOLUME else None
    if name in SAYS:
        return replace(case, said=SAYS[name], on_start=on_start)
    return replace(case, said="", on_start=on_start, inside="right", look=f"{PUT_RIGHT[name]} && echo right")


def of(runtime: str) -> dict[str, Case]:
    """Those that this runtime restores, by their names, with what is said to them now."""
    return {name: _seen(name) for name in (*SAYS, *PUT_RIGHT) if runtime != "runc" or name not in _DEVICES}
