"""The cgroups that CRIU would make and write to: none but the container's, and nothing that they have not.

Source: images/cgroup.proto; criu/cgroup.c, cgroup-props.c; cgroups(7), the kernel's cgroup-v1/devices.rst.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from ocickpt.errors import IntegrityError, UnsupportedError
from ocickpt.gate.expected import Expected
from ocickpt.gate.images import Images, Message
from ocickpt.gate.mounts import writes_cgroups

_PROPERTIES: Final = (
    "cgroup.clone_children", "notify_on_release", "cgroup.procs", "tasks", "cgroup.subtree_control",
    "cgroup.max.descendants", "cgroup.max.depth", "cgroup.freeze", "cgroup.type", "cpu.shares", "cpu.cfs_period_us",
    "cpu.cfs_quota_us", "cpu.rt_period_us", "cpu.rt_runtime_us", "memory.limit_in_bytes",
    "memory.memsw.limit_in_bytes", "memory.swappiness", "memory.soft_limit_in_bytes",
    "memory.move_charge_at_immigrate", "memory.oom_control", "memory.use_hierarchy", "memory.kmem.limit_in_bytes",
    "memory.kmem.tcp.limit_in_bytes", "cpuset.cpus", "cpuset.mems", "cpuset.memory_migrate", "cpuset.cpu_exclusive",
    "cpuset.mem_exclusive", "cpuset.mem_hardwall", "cpuset.memory_spread_page", "cpuset.memory_spread_slab",
    "cpuset.sched_load_balance", "cpuset.sched_relax_domain_level", "blkio.weight", "freezer.state",
    "net_cls.classid", "net_prio.ifpriomap", "pids.max", "devices.list",
)  # fmt: skip
"""What CRIU writes of a cgroup (criu/cgroup-props.c), without release_agent, a program that the host's root runs."""
_OF_HOST_TRAFFIC: Final = ("net_cls.classid", "net_prio.ifpriomap")
"""What the host's firewall and queues go by; podman gives no container any."""
_USUAL_DEVICES: Final = (("c", "136", "*"), ("c", "10", "200"))
"""Terminals, and /dev/net/tun, which runc gives everybody."""
_DEVICE: Final = re.compile(r"([abc]) (\d+|\*):(\d+|\*) ([rwm]+)", re.ASCII)


def check_cgroups(images: Images, container: str, expected: Expected, *, ignored: bool) -> None:
    """Refuse cgroups that are not below that of the `container` (by id), for CRIU moves tasks to where they say.

    In the unified hierarchy; which of a v1 host's it is, is believed. Where CRIU is to have them `ignored` it moves
    none, and makes no cgroup namespace either.
    """
    writes = "cgroup" in expected.namespaces and writes_cgroups(images.numbered("mountpoints"))
    if writes and ignored and not expected.may("SYS_ADMIN"):
        raise UnsupportedError(
            "the container may write to its cgroups, and this host has CRIU leave cgroups alone: it would be the host's"
        )
    if ignored:
        return
    own = {f"libpod-{container}", f"libpod-{container}.scope"}
    for cgroup in images.messages("cgroup"):
        members = [member for each in cgroup.sets for member in each.ctls if not member.name]
        for member in members:
            if own.isdisjoint(member.path.split("/")):
                raise IntegrityError(
                    f"a process of the checkpoint is in the cgroup {member.path[:200]!r}, which is not its container's"
                )
        if writes and members and members[0].cgns_prefix != len(members[0].path) and not expected.may("SYS_ADMIN"):
            raise IntegrityError("the checkpoint would let its container write to cgroups of the host")
        for controller in cgroup.controllers:
            for directory in controller.dirs if "" in controller.cnames else ():
                if own.isdisjoint(directory.dir_name.split("/")):
                    raise IntegrityError(f"the checkpoint would change the cgroup {directory.dir_name[:200]!r}")


def check_values(cgroups: Iterable[Message], expected: Expected) -> None:
    """Refuse paths that lead elsewhere, and properties that are none: CRIU writes them as root."""
    for cgroup in cgroups:
        for member in (member for each in cgroup.sets for member in each.ctls):
            path = member.path
            if ".." in path.split("/") or not path.startswith("/") or member.cgns_prefix > len(path):
                raise IntegrityError(f"the checkpoint names the cgroup {path[:200]!r}, which leads out of its own")
        for controller in cgroup.controllers:
            for directory in controller.dirs:
                _check_directory(directory, expected)


def _check_directory(directory: Message, expected: Expected) -> None:
    if ".." in directory.dir_name.split("/"):
        raise IntegrityError(
            f"the checkpoint names the cgroup {directory.dir_name[:200]!r}, which leads out of its own"
        )
    _check_perms(directory.dir_name, directory.dir_perms)
    for each in directory.properties:
        if each.name not in _PROPERTIES:
            raise IntegrityError(f"the checkpoint sets {each.name[:200]!r} of a cgroup, which is no property of one")
        _check_perms(each.name, each.perms)
        if each.name in _OF_HOST_TRAFFIC and re.search(r"[1-9]", re.sub(r"(?m)^\S+ ", "", each.value)):
            raise IntegrityError(f"the checkpoint sets {each.name} of a cgroup to {each.value[:100]!r}")
        for line in each.value.splitlines() if each.name == "devices.list" else ():
            _check_device(line, expected)
    for child in directory.children:
        _check_directory(child, expected)


def _check_perms(name: str, perms: Message) -> None:
    """Who may write to a cgroup, or change its owner, decides on all that is below it."""
    if perms.mode & 0o7022 or perms.uid or perms.gid:
        raise IntegrityError(
            f"the checkpoint gives user {perms.uid} the cgroup's {name[:200]!r} with the mode {perms.mode & 0o7777:o}"
        )


def _check_device(line: str, expected: Expected) -> None:
    """One line of devices.list: ``TYPE MAJOR:MINOR ACCESS`` (cgroup-v1/devices.rst). Making nodes takes CAP_MKNOD."""
    found = _DEVICE.fullmatch(line)
    if not found:
        raise IntegrityError(f"the checkpoint has the device rule {line[:100]!r}, which is none")
    kind, major, minor, access = found.groups()
    if access == "m" or (kind, major, minor) in _USUAL_DEVICES:
        return
    if "*" in (major, minor) or (kind, int(major), int(minor)) not in expected.devices:
        raise IntegrityError(f"the checkpoint has the device rule {line[:100]!r}, which is more than its container's")
