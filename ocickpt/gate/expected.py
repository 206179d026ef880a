"""What a container may be, from its OCI specification: what the images of its processes are held against.

Source: runtime-spec, config.md and config-linux.md.
"""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

from ocickpt.errors import IntegrityError
from ocickpt.trust.process import capability_mask

RDONLY, NOSUID, NODEV, NOEXEC = 1, 2, 4, 8
"""What takes something away from a mount, as mount(2) has it."""
_OPTIONS = {"ro": RDONLY, "nosuid": NOSUID, "nodev": NODEV, "noexec": NOEXEC}
_FREE_DEVICES = frozenset(("c", *each) for each in ((1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2)))
"""null, zero, full, random, urandom, tty, console, ptmx (config-linux.md, "Default Devices")."""


class Mount(NamedTuple):
    """A mount that the specification asks for."""

    type: str
    """``bind``, or a filesystem's name."""
    flags: int
    recursive: bool
    """Whether what is mounted below its source comes along."""


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
    seccomp: dict[str, Any] | None
    """The profile; None without one."""
    apparmor: str
    selinux: str
    mounts: dict[str, Mount]
    """By where the container sees them."""
    masked: frozenset[str]
    readonly: frozenset[str]
    root_readonly: bool
    hard_limits: dict[str, int]
    """By name (``NOFILE``)."""
    oom_score_adj: int
    realtime: bool
    """Whether it was given another scheduling class than the usual ones."""
    devices: frozenset[tuple[str, int, int]]
    """What it has nodes for: ``b`` or ``c``, major and minor number."""

    @classmethod
    def of(cls, spec: dict[str, Any]) -> Self:
        """What `spec` describes; IntegrityError for one that is not of the right form."""
        try:
            return cls._of(spec)
        except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
            raise IntegrityError(f"an OCI specification is not of the right form: {error}") from error

    @classmethod
    def _of(cls, spec: dict[str, Any]) -> Self:
        process, linux = spec.get("process") or {}, spec.get("linux") or {}
        user, sets = process.get("user") or {}, process.get("capabilities") or {}
        scheduler = process.get("scheduler") or {}
        return cls(
            namespaces=frozenset(str(each["type"]) for each in linux.get("namespaces") or ()),
            joins_network=any(each.get("path") for each in linux.get("namespaces") or () if each["type"] == "network"),
            bounding=_mask(sets, "bounding"),
            permitted=_mask(sets, "permitted") | _mask(sets, "ambient"),
            inheritable=_mask(sets, "inheritable"),
            uid=int(user.get("uid") or 0),
            groups=frozenset({int(user.get("gid") or 0), *map(int, user.get("additionalGids") or ())}),
            no_new_privileges=process.get("noNewPrivileges") is True,
            seccomp=_object(linux.get("seccomp")),
            apparmor=str(process.get("apparmorProfile") or ""),
            selinux=str(process.get("selinuxLabel") or ""),
            mounts={path(mount["destination"]): _mount(mount) for mount in spec.get("mounts") or ()},
            masked=frozenset(path(each) for each in linux.get("maskedPaths") or ()),
            readonly=frozenset(path(each) for each in linux.get("readonlyPaths") or ()),
            root_readonly=(spec.get("root") or {}).get("readonly") is True,
            hard_limits={
                str(each["type"]).removeprefix("RLIMIT_"): int(each["hard"]) for each in process.get("rlimits") or ()
            },
            oom_score_adj=int(process.get("oomScoreAdj") or 0),
            realtime=scheduler.get("policy") in ("SCHED_FIFO", "SCHED_RR", "SCHED_DEADLINE"),
            devices=_FREE_DEVICES | {_device(each) for each in linux.get("devices") or ()},
        )

    def may(self, capability: str) -> bool:
        """Whether a process of it can come to have this capability."""
        return bool(self.bounding & capability_mask((capability,)))


def mounts_of(spec: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The mounts of a specification by where the container sees them."""
    return {posixpath.normpath(mount["destination"]): mount for mount in spec.get("mounts") or ()}


def path(text: Any) -> str:
    """A path of the container as CRIU writes it; TypeError for anything else."""
    if not isinstance(text, str) or not text.startswith("/"):
        raise TypeError(f"{str(text)[:100]!r} is no path")
    return posixpath.normpath(f"/{text.lstrip('/')}")


def _device(found: dict[str, Any]) -> tuple[str, int, int]:
    kind = "b" if found.get("type") == "b" else "c"
    return kind, int(found.get("major") or 0), int(found.get("minor") or 0)


def _mask(sets: dict[str, Any], name: str) -> int:
    return capability_mask(tuple(str(each) for each in sets.get(name) or ()))


def _object(value: Any) -> dict[str, Any] | None:
    if value is not None and not isinstance(value, dict):
        raise TypeError("its seccomp profile is not an object")
    return value or None


def _mount(mount: dict[str, Any]) -> Mount:
    options = mount.get("options") or ()
    bind = mount.get("type") == "bind" or {"bind", "rbind"} & set(options)
    flags = 0
    for option in options:
        flags |= _OPTIONS.get(option, 0)
    return Mount("bind" if bind else str(mount.get("type") or ""), flags, "rbind" in options)
