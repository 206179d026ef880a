"""The OCI runtime specification of a container, as far as it is read or passed on.

The fields are an allow-list, spelled exactly: Go's decoder takes ``HOOKS`` for ``hooks``, so what is not spelled like
here is not written again; it would be read after all that was checked. Not here is whatever names programs, sockets
or other containers of a host and that a restore does not need. What nobody here looks into is `Any`.

Source: runtime-spec, config.md and config-linux.md, specs-go/config.go.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

from ocickpt import structs
from ocickpt.model import digest_of


class _Object(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """An object of the specification."""


class Root(_Object, frozen=True):
    """The root filesystem."""

    path: str = ""
    readonly: bool = False


class Mount(_Object, frozen=True):
    """A mount, at `destination` in the container."""

    destination: str
    type: str = ""
    source: str = ""
    options: tuple[str, ...] = ()
    uid_mappings: Any = None
    gid_mappings: Any = None

    @property
    def is_bind(self) -> bool:
        """Whether it is a bind mount, of which there are several ways to say so."""
        return self.type == "bind" or bool({"bind", "rbind"} & set(self.options))


class User(_Object, frozen=True):
    """Whom the process runs as."""

    uid: int = 0
    gid: int = 0
    umask: Any = None
    additional_gids: tuple[int, ...] = ()


class Capabilities(_Object, frozen=True):
    """The capability sets of the process."""

    bounding: tuple[str, ...] = ()
    effective: tuple[str, ...] = ()
    permitted: tuple[str, ...] = ()
    inheritable: tuple[str, ...] = ()
    ambient: tuple[str, ...] = ()


class Rlimit(_Object, frozen=True):
    """A resource limit: ``RLIMIT_NOFILE``, and the values of setrlimit(2)."""

    type: str
    hard: int
    soft: int = 0


class Scheduler(_Object, frozen=True):
    """How the process is scheduled (sched_setattr(2))."""

    policy: str = ""
    nice: int = 0
    priority: Any = None
    flags: Any = None
    runtime: Any = None
    deadline: Any = None
    period: Any = None


class Process(_Object, frozen=True):
    """The container's process."""

    terminal: bool = False
    console_size: Any = None
    user: User = User()
    args: Any = None
    env: Any = None
    cwd: Any = None
    capabilities: Capabilities = Capabilities()
    rlimits: tuple[Rlimit, ...] = ()
    no_new_privileges: bool = False
    apparmor_profile: str = ""
    oom_score_adj: int | None = None
    scheduler: Scheduler = Scheduler()
    selinux_label: str = ""


class IdMapping(_Object, frozen=True):
    """`size` IDs from `container` on are those from `host` on."""

    container: int = msgspec.field(name="containerID")
    host: int = msgspec.field(name="hostID")
    size: int


class Namespace(_Object, frozen=True):
    """A namespace of the container's own, or with a `path` one that is there already."""

    type: str
    path: str = ""


class Device(_Object, frozen=True):
    """A device node of the container."""

    path: str = ""
    type: str = ""
    major: int = 0
    minor: int = 0
    file_mode: Any = None
    uid: Any = None
    gid: Any = None


class DeviceRule(_Object, frozen=True):
    """Which devices the cgroup of the container may use, or may not."""

    allow: bool = False
    type: str = ""
    major: int = -1
    minor: int = -1
    access: str = ""


class Memory(_Object, frozen=True):
    """Limits of memory, in bytes; `reservation` is kept for the container when others need memory."""

    limit: int | None = None
    reservation: int = 0
    swap: Any = None
    kernel: Any = None
    kernel_tcp: Any = msgspec.field(default=None, name="kernelTCP")
    swappiness: Any = None
    disable_oom_killer: bool = msgspec.field(default=False, name="disableOOMKiller")
    use_hierarchy: Any = None
    check_before_update: Any = None


class Cpu(_Object, frozen=True):
    """The processors' time; `realtime_runtime` is that of real-time tasks, in microseconds."""

    shares: int = 0
    quota: Any = None
    burst: Any = None
    period: Any = None
    realtime_runtime: int = 0
    realtime_period: Any = None
    cpus: Any = None
    mems: Any = None
    idle: Any = None


class BlockWeight(_Object, frozen=True):
    """The share of one block device."""

    major: int = 0
    minor: int = 0
    weight: int = 0
    leaf_weight: int = 0


class BlockIo(_Object, frozen=True):
    """Shares and limits of block devices."""

    weight: int = 0
    leaf_weight: int = 0
    weight_device: tuple[BlockWeight, ...] = ()
    throttle_read_bps_device: Any = None
    throttle_write_bps_device: Any = None
    throttle_read_iops_device: Any = msgspec.field(default=None, name="throttleReadIOPSDevice")
    throttle_write_iops_device: Any = msgspec.field(default=None, name="throttleWriteIOPSDevice")


class Resources(_Object, frozen=True):
    """The limits of the container's cgroup, and its shares; `unified` are files of it, and what is written there."""

    devices: tuple[DeviceRule, ...] = ()
    memory: Memory = Memory()
    cpu: Cpu = Cpu()
    pids: Any = None
    block_io: BlockIo = msgspec.field(default=BlockIo(), name="blockIO")
    hugepage_limits: Any = None
    unified: dict[str, str] = {}


class Condition(_Object, frozen=True):
    """What an argument of a system call has to be for a rule to apply."""

    index: int
    value: int = 0
    value_two: int = 0
    op: str = ""


class Rule(_Object, frozen=True):
    """What is to be done about system calls."""

    names: tuple[str, ...]
    action: str
    errno_ret: int | None = None
    args: tuple[Condition, ...] = ()


class Seccomp(_Object, frozen=True):
    """A seccomp profile. Agents of the host that would be asked (``listenerPath``) are not part of it."""

    default_action: str = ""
    default_errno_ret: int | None = None
    architectures: tuple[str, ...] = ()
    flags: tuple[str, ...] | None = None
    """None is not the same as none: the runtimes have a flag for those who say nothing."""
    syscalls: tuple[Rule, ...] = ()


class Profile:
    """A seccomp profile as it stands, and what it says; an empty one is none. Only what it says is written again."""

    __slots__ = ("_raw", "says")

    def __init__(self, raw: object) -> None:
        """IntegrityError for a profile that is not of the right form."""
        self._raw = raw
        self.says = structs.read(raw, Seccomp, "container's seccomp profile")

    def __bool__(self) -> bool:
        return bool(self._raw)

    def digest(self) -> str:
        """That of its canonical JSON: all that stands there, with sorted keys and no spaces."""
        return digest_of(json.dumps(self._raw, sort_keys=True, separators=(",", ":")).encode())


class Linux(_Object, frozen=True):
    """What Linux alone has."""

    namespaces: tuple[Namespace, ...] = ()
    uid_mappings: tuple[IdMapping, ...] = ()
    gid_mappings: tuple[IdMapping, ...] = ()
    devices: tuple[Device, ...] = ()
    resources: Resources = Resources()
    seccomp: Profile | None = None
    sysctl: dict[str, str] = {}
    rootfs_propagation: str = ""
    masked_paths: tuple[str, ...] = ()
    readonly_paths: tuple[str, ...] = ()
    mount_label: str = ""
    personality: Any = None
    time_offsets: Any = None


class Spec(_Object, frozen=True):
    """A specification, in whatever it is kept."""

    oci_version: Any = None
    hostname: str = ""
    domainname: Any = None
    root: Root = Root()
    mounts: tuple[Mount, ...] = ()
    process: Process = Process()
    linux: Linux = Linux()

    def root_in(self, bundle: Path) -> Path:
        """The root filesystem of the container of that `bundle`; ``rootfs`` in it where nothing is said."""
        return bundle / (self.root.path or "rootfs")


class Saved(Spec, frozen=True):
    """The specification in a checkpoint, of a container that was: all of it may be given to podman, but for the
    annotations, on which runtimes act (`engine.podman.annotations`)."""

    annotations: dict[str, str] = {}


class Hook(_Object, frozen=True):
    """A program to be run for a container."""

    path: str = ""


class Hooks(_Object, frozen=True):
    """The hooks of a container, by when they are run."""

    prestart: tuple[Hook, ...] = ()
    create_runtime: tuple[Hook, ...] = ()
    create_container: tuple[Hook, ...] = ()
    start_container: tuple[Hook, ...] = ()
    poststart: tuple[Hook, ...] = ()


class BundleLinux(Linux, frozen=True):
    """What Linux alone has, of a container that an engine of this host has made."""

    cgroups_path: str = ""


class Bundle(Spec, frozen=True):
    """The specification in a bundle, of a container that an engine of this host has made."""

    linux: BundleLinux = BundleLinux()
    annotations: dict[str, str] = {}
    hooks: Hooks = Hooks()


class _Annotated(_Object, frozen=True):
    annotations: dict[str, str] = {}


def read(value: object, what: str) -> Saved:
    """The specification in the JSON `value` that a checkpoint has; IntegrityError for one that is not of the right
    form, naming `what` and the place."""
    return structs.read(value, Saved, what, _profile)


def read_bundle(value: object, what: str) -> Bundle:
    """The specification in the JSON `value` that a bundle has; errors as of `read`."""
    return structs.read(value, Bundle, what, _profile)


def annotations_of(value: object, what: str) -> dict[str, str]:
    """Only the annotations of a specification; errors as of `read`."""
    return structs.read(value, _Annotated, what).annotations


def plain(spec: Saved) -> Any:
    """The specification as JSON, without what was absent or null."""
    return msgspec.to_builtins(spec, enc_hook=_rules)


def _profile(kind: type, value: Any) -> Profile:
    if kind is not Profile:
        raise NotImplementedError
    return Profile(value)


def _rules(value: Any) -> Seccomp:
    if not isinstance(value, Profile):
        raise NotImplementedError
    return value.says
