"""What a container may be, from its OCI specification: what the images of its processes are held against.

Source: runtime-spec, config.md and config-linux.md.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from typing import NamedTuple, Self

from ocickpt import oci
from ocickpt.engine import host
from ocickpt.errors import IntegrityError
from ocickpt.trust.capabilities import capability_mask

RDONLY, NOSUID, NODEV, NOEXEC = 1, 2, 4, 8
"""What takes something away from a mount, as mount(2) has it."""
_OPTIONS = {"ro": RDONLY, "nosuid": NOSUID, "nodev": NODEV, "noexec": NOEXEC}
_SIZE = re.compile(r"(\d{1,15})([kmgKMG]?)", re.ASCII)
_SHIFTS = {"": 0, "k": 10, "m": 20, "g": 30}
_SHARES = frozenset({"shared", "rshared", "slave", "rslave"})
_FREE_DEVICES = frozenset(("c", *each) for each in ((1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2)))
"""null, zero, full, random, urandom, tty, console, ptmx (config-linux.md, "Default Devices")."""


class Mount(NamedTuple):
    """A mount that the specification asks for."""

    type: str
    """``bind``, or a filesystem's name."""
    flags: int
    recursive: bool
    """Whether what is mounted below its source comes along."""
    options: dict[str, str]
    """What else it is mounted with, as ``size`` of a tmpfs; nothing is the value of a word alone."""
    shares: bool
    """Whether what is mounted below it is seen where it comes from, or the other way round (mount_namespaces(7))."""


@dataclass(frozen=True)
class Expected:
    """The container that a specification describes. Capabilities are masks."""

    namespaces: frozenset[str]
    """Those it has of its own."""
    joins_network: bool
    """Whether its network was made by somebody else, and is given to it."""
    bounding: int
    permitted: int
    inheritable: int
    uid: int
    groups: frozenset[int]
    """Its gid, and the additional ones."""
    no_new_privileges: bool
    seccomp: oci.Seccomp | None
    """The profile; None without one."""
    apparmor: str
    selinux: str
    mount_label: str
    """SELinux' label for the files of its own filesystems."""
    sysctl: dict[str, str]
    mounts: dict[str, Mount]
    """By where the container sees them."""
    masked: frozenset[str]
    readonly: frozenset[str]
    root_readonly: bool
    shares_root: bool
    """As `Mount.shares`, of the root filesystem."""
    hard_limits: dict[str, int]
    """By name (``NOFILE``)."""
    oom_score_adj: int
    realtime: bool
    """Whether it was given another scheduling class than the usual ones."""
    devices: frozenset[tuple[str, int, int]]
    """What it has nodes for: ``b`` or ``c``, major and minor number."""

    @classmethod
    def of(cls, spec: oci.Spec) -> Self:
        """What `spec` describes; IntegrityError for paths in it that are none."""
        process, linux = spec.process, spec.linux
        user, sets = process.user, process.capabilities
        return cls(
            namespaces=frozenset(each.type for each in linux.namespaces),
            joins_network=any(each.path for each in linux.namespaces if each.type == "network"),
            bounding=capability_mask(sets.bounding),
            permitted=capability_mask((*sets.permitted, *sets.ambient)),
            inheritable=capability_mask(sets.inheritable),
            uid=user.uid,
            groups=frozenset({user.gid, *user.additional_gids}),
            no_new_privileges=process.no_new_privileges,
            seccomp=linux.seccomp.says if linux.seccomp else None,
            apparmor=process.apparmor_profile,
            selinux=process.selinux_label,
            mount_label=linux.mount_label,
            sysctl=linux.sysctl,
            mounts={path(mount.destination): _mount(mount) for mount in spec.mounts},
            masked=frozenset(path(each) for each in linux.masked_paths),
            readonly=frozenset(path(each) for each in linux.readonly_paths),
            root_readonly=spec.root.readonly,
            shares_root=linux.rootfs_propagation in _SHARES,
            hard_limits={each.type.removeprefix("RLIMIT_"): each.hard for each in process.rlimits},
            oom_score_adj=process.oom_score_adj or 0,
            realtime=process.scheduler.policy in ("SCHED_FIFO", "SCHED_RR", "SCHED_DEADLINE"),
            devices=_FREE_DEVICES | {_device(each) for each in linux.devices},
        )

    def may(self, capability: str) -> bool:
        """Whether a process of it can come to have this capability."""
        return bool(self.reachable & capability_mask((capability,)))

    @property
    def may_have_realtime_io(self) -> bool:
        """Whether a thread of it can give itself real-time I/O (ioprio_set(2))."""
        return self.may("SYS_NICE") or self.may("SYS_ADMIN")

    @property
    def reachable(self) -> int:
        """The capabilities that a process can come to have: under no_new_privs none that it did not begin with."""
        return self.permitted if self.no_new_privileges else self.bounding

    def may_bind(self, port: int) -> bool:
        """Whether a process of it can use this port: any of its own network, else what its host does not reserve."""
        reserved = 0 < port < host.first_free_port()
        return "network" in self.namespaces or self.may("NET_BIND_SERVICE") or not reserved

    def is_user(self, uid: int) -> bool:
        """Whether a process of it can come to be this user: any, where it may start programs that are setuid (sudo)."""
        return not self.no_new_privileges or self.may("SETUID") or uid == self.uid

    def is_in(self, gid: int) -> bool:
        """Whether a process of it can come to be in this group."""
        return not self.no_new_privileges or self.may("SETGID") or gid in self.groups


def mounts_of(spec: oci.Spec) -> dict[str, oci.Mount]:
    """The mounts of a specification by where the container sees them."""
    return {posixpath.normpath(mount.destination): mount for mount in spec.mounts}


def path(text: str) -> str:
    """A path of the container as CRIU writes it; IntegrityError for what is not absolute."""
    if not text.startswith("/"):
        raise IntegrityError(f"the OCI specification has {text[:100]!r} where a path from the root has to be")
    return posixpath.normpath(f"/{text.lstrip('/')}")


def number(value: str) -> int | None:
    """A number of bytes or inodes (tmpfs(5)); None for what is none, and for a part of the memory."""
    found = _SIZE.fullmatch(value)
    return int(found[1]) << _SHIFTS[found[2].lower()] if found else None


def _device(found: oci.Device) -> tuple[str, int, int]:
    return "b" if found.type == "b" else "c", found.major, found.minor


def _mount(mount: oci.Mount) -> Mount:
    flags = 0
    for option in mount.options:
        flags |= _OPTIONS.get(option, 0)
    words = {name: value for name, _, value in (option.partition("=") for option in mount.options)}
    return Mount(
        type="bind" if mount.is_bind else mount.type,
        flags=flags,
        recursive="rbind" in words,
        options=words,
        shares=not _SHARES.isdisjoint(words),
    )
