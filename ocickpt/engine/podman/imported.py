"""libpod's configuration of a container, as a checkpoint brings it: checked and made to fit this host.

podman believes what it imports: paths it will mount and unmount at, programs it will run. A checkpoint
comes from elsewhere, so none of these survive: only known keys pass (`allowed`), paths are rebuilt from
this host's storage, and what the container would get of the host beyond its image is listed.

Source: podman, libpod/container_config.go, libpod/runtime_ctr.go (RestoreContainer), and `restore` and
`makeBindMounts` of libpod/container_internal_common.go.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ocickpt.engine import host
from ocickpt.engine.podman import allowed, defaults
from ocickpt.engine.runtime import table
from ocickpt.errors import IntegrityError, UnsupportedError

_ID = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,252}")
_IMAGE = re.compile(r"[A-Za-z0-9.-]+(:[0-9]+)?(/[A-Za-z0-9._-]+)+(:[A-Za-z0-9._-]+)?(@sha256:[0-9a-f]{64})?")
"""A name with its registry. Not every text is one to podman: ``docker-archive:/PATH`` reads a file."""
_IMAGE_ID = re.compile(r"(sha256:)?[0-9a-f]{12,64}")
_OWN_PATH = re.compile(r"/(?:[^/]+/)*overlay-containers/([0-9a-f]{64})/userdata(/.*)?")
_VOLUME_PATH = re.compile(r"/(?:[^/]+/)*volumes/([a-zA-Z0-9][a-zA-Z0-9_.-]*)/_data")
_ZONE = re.compile(r"[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*")
_STATIC = ("staticDir", "ShmDir", "secretsPath")
SHARED = ("ipcNsCtr", "mountNsCtr", "netNsCtr", "pidNsCtr", "userNsCtr", "utsNsCtr", "cgroupNsCtr")
"""What names the container whose namespace another one shares."""
ELSEWHERE = ("overlayVolumes", "ctrImageVolumes")
"""Volumes whose content no checkpoint holds."""
_PARENTS = ("/libpod_parent", "machine.slice")
"""The parents of containers that were given none, under cgroupfs and systemd: this host takes its own."""
_FILESYSTEMS = {"proc", "sysfs", "tmpfs", "ramfs", "devpts", "mqueue", "cgroup", "cgroup2"}
_NAMESPACES = ("pid", "network", "ipc", "uts", "cgroup")
# On the next start podman would change the owner or the label of all that is below the source.
_CHANGING = {"U", "z", "Z", "O", "idmap"}
_REFUSING = ("SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_TRAP")
_USUAL_POLICIES = ("SCHED_OTHER", "SCHED_BATCH", "SCHED_IDLE")
_KERNELS = {"proc": "/proc", "sysfs": "/sys", "cgroup": "/sys/fs/cgroup", "cgroup2": "/sys/fs/cgroup"}
"""Where a container has the kernel's filesystems."""
_OWN_PROFILE = "containers-default-"
_OWN_TYPES = ("container_t", "container_init_t")
"""What podman itself confines containers with (containers/common pkg/apparmor; container-selinux)."""
_VALUED = ("volume-opt", "upperdir=", "workdir=", "lowerdir=", "subpath=", "idmap=")


@dataclass(frozen=True)
class Imported:
    """A container's configuration and OCI specification, fit to be given to this host's podman."""

    config: dict[str, Any]
    spec: dict[str, Any]
    id: str
    name: str
    image_id: str
    image_name: str
    runtime: str
    volumes: dict[str, str]
    """Where each named volume lies on this host, by name."""
    secrets: tuple[str, ...]
    host_paths: tuple[str, ...]
    """Files and directories of this host that the container mounts."""
    access: tuple[str, ...]
    """What else the container gets of this host that one which asks for nothing has not, one phrase each."""
    health_interval: str
    """The interval of its healthcheck as podman writes durations; empty without one."""

    def members(self, created_by: tuple[str, ...]) -> dict[str, bytes]:
        """The two files of a checkpoint archive that hold these; podman will show `created_by` as what made it."""
        config = self.config | {"createCommand": created_by}
        return {"config.dump": json.dumps(config).encode(), "spec.dump": json.dumps(self.spec).encode()}


def import_config(config: dict[str, Any], spec: dict[str, Any], graph_root: Path, volume_root: Path) -> Imported:
    """Check a ``config.dump`` and a ``spec.dump`` and rebuild their paths below this host's roots.

    Raises IntegrityError for what podman never writes, UnsupportedError for what cannot be restored.
    """
    try:
        return _import(config, spec, graph_root, volume_root)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise IntegrityError(
            f"the container's configuration is not of the form that podman gives it: {error}"
        ) from error


def _import(config: dict[str, Any], spec: dict[str, Any], graph_root: Path, volume_root: Path) -> Imported:
    identity, name, runtime = _text(config, "id"), _text(config, "name"), _text(config, "runtime")
    if not _ID.fullmatch(identity) or not _NAME.fullmatch(name):
        raise IntegrityError("the container's id or name is not one that podman gives")
    if runtime not in table.NAMES:
        raise UnsupportedError(f"container {name!r} runs under {runtime[:100]!r}; only {table.LISTED} can restore")
    _check_whole(config, name)
    config, spec = allowed.only(config, allowed.CONFIG, "config.dump"), allowed.only(spec, allowed.SPEC, "spec.dump")
    _rebuild_paths(config, identity, graph_root)
    _check_values(config)
    volumes = _volumes(config, volume_root)
    host_paths, secrets = _mounts(spec, volumes), _secrets(config)
    shared = _namespaces(spec, made=config.get("createNetNS") is True)
    return Imported(
        config,
        spec,
        identity,
        name,
        _text(config, "rootfsImageID"),
        _text(config, "rootfsImageName"),
        runtime,
        volumes,
        secrets,
        tuple(sorted(set(host_paths))),
        (*_privileges(config, spec), *shared, *(f"the secret {name}" for name in secrets)),
        _interval(_object(config, "healthcheck")),
    )


def _check_whole(config: dict[str, Any], name: str) -> None:
    """UnsupportedError for containers that consist of more than podman exports."""
    if _text(config, "rootfs"):
        raise UnsupportedError(f"container {name!r} has no image but a directory of its host as root (--rootfs)")
    if any(config.get(key) for key in (*SHARED, "pod", "Dependencies")):
        raise UnsupportedError(f"container {name!r} is part of a pod or shares namespaces; podman cannot import those")
    if any(config.get(key) for key in ELSEWHERE):
        raise UnsupportedError(f"container {name!r} has overlay or image volumes, which no checkpoint holds")


def _check_values(config: dict[str, Any]) -> None:
    """Refuse or drop values that podman would take for something of the host."""
    if not _ID.fullmatch(_text(config, "rootfsImageID")):
        raise IntegrityError("the container's image has no ID as podman gives them")
    image = _text(config, "rootfsImageName")
    if not (_IMAGE.fullmatch(image) or _IMAGE_ID.fullmatch(image)):
        raise IntegrityError(f"{image[:200]!r} is not the name of an image")
    mode = _text(config, "networkMode")
    if mode.startswith(("container:", "ns:", "pasta")):
        raise UnsupportedError(f"the container's network is {mode[:200]!r}, which cannot be restored elsewhere")
    if ".." in _text(config, "cgroupParent").split("/"):
        raise IntegrityError("the container's cgroup parent is not one that podman gives")
    if config.get("cgroupParent") in _PARENTS:
        del config["cgroupParent"]
    if (zone := _text(config, "timezone")) and not _ZONE.fullmatch(zone):
        raise IntegrityError(f"{zone[:200]!r} is not a time zone")
    if _text(config, "baseHostsFile") not in ("image", "none"):
        config.pop("baseHostsFile", None)


def _volumes(config: dict[str, Any], root: Path) -> dict[str, str]:
    found = {}
    for volume in config.get("namedVolumes") or ():
        name = _text(volume, "volumeName")
        if not _NAME.fullmatch(name):
            raise IntegrityError("a volume of the container has a name that podman does not give")
        volume["options"] = _options(volume)
        found[name] = f"{root}/{name}/_data"
    return found


def _secrets(config: dict[str, Any]) -> tuple[str, ...]:
    given = [*(config.get("secrets") or ()), *_object(config, "secret_env").values()]
    found = sorted({_text(each, "name") for each in given})
    if not all(name and name.isprintable() for name in found):
        raise IntegrityError("a secret of the container has a name that podman does not give")
    return tuple(found)


def _mounts(spec: dict[str, Any], volumes: dict[str, str]) -> list[str]:
    """Make the mounts of `spec` this host's; the paths of this host that are left.

    podman's own files for the container are left out: it makes and mounts them itself.
    """
    kept, foreign = [], []
    for mount in spec.get("mounts") or ():
        kind, source = _text(mount, "type"), _text(mount, "source")
        mount["options"] = _options(mount)
        if kind == "bind" or {"bind", "rbind"} & set(mount["options"]):
            plain = ".." not in source.split("/")
            if plain and _OWN_PATH.fullmatch(source):
                continue
            volume = _VOLUME_PATH.fullmatch(source)
            if plain and volume and volume[1] in volumes:
                mount["source"] = volumes[volume[1]]
            elif source.startswith("/") and source.isprintable():
                foreign.append(source)
            else:
                raise IntegrityError(f"the container mounts {source[:200]!r}, which is no path")
        elif kind not in _FILESYSTEMS:
            raise UnsupportedError(f"the container has a mount of the type {kind[:100]!r}, which cannot be restored")
        kept.append(mount)
    spec["mounts"] = kept
    return foreign


def _options(mount: dict[str, Any]) -> list[str]:
    """The mount options, but for those that change the host or mount something else."""
    options = mount.get("options") or []
    if not isinstance(options, list) or not all(isinstance(each, str) for each in options):
        raise IntegrityError("a mount of the container has options that are not a list of strings")
    return [each for each in options if each not in _CHANGING and not each.startswith(_VALUED)]


def _namespaces(spec: dict[str, Any], *, made: bool) -> list[str]:
    """Which namespaces of the host the container uses; `made` says that podman makes a network for it."""
    linux = _object(spec, "linux")
    found = {}
    for namespace in linux.get("namespaces") or ():
        kind = _text(namespace, "type")
        if namespace.pop("path", "") and not (kind == "network" and made):
            raise UnsupportedError(f"the container joins a {kind[:20]!r} namespace of its host by path")
        found[kind] = namespace
    if "user" in found:
        raise UnsupportedError("the container has a user namespace of its own (--userns), which podman cannot restore")
    if "mount" not in found:
        raise IntegrityError("the container has no mount namespace of its own")
    return [f"the {kind} namespace" for kind in _NAMESPACES if kind not in found]


def _privileges(config: dict[str, Any], spec: dict[str, Any]) -> list[str]:
    """What the container may do beyond what podman gives one that asks for nothing, one phrase each."""
    linux, process = _object(spec, "linux"), _object(spec, "process")
    rules = _object(linux, "resources").get("devices") or ()
    privileged = bool(config.get("privileged") or config.get("mountAllDevices"))
    found = ["what --privileged gives"] if privileged else []
    found += sorted({_text(device, "path") for device in linux.get("devices") or ()})
    if not found and (config.get("cdiDevices") or any(rule and rule.get("allow") for rule in rules)):
        found.append("devices")
    return found if privileged else [*found, *_filesystems(spec), *_powers(process), *_openings(config, linux, process)]


def _powers(process: dict[str, Any]) -> list[str]:
    """Capabilities, and what else goes before others: in scheduling, and when memory is short."""
    sets = _object(process, "capabilities")
    names = {_name(each) for held in sets.values() for each in held or ()}
    found = [f"the capability {name}" for name in sorted(names - defaults.capabilities())]
    policy = _text(_object(process, "scheduler"), "policy")
    if policy not in ("", *_USUAL_POLICIES):
        found.append(f"the scheduling policy {policy}")
    spared = process.get("oomScoreAdj") or 0
    if not isinstance(spared, int) or spared < 0:
        found.append(f"the oom_score_adj {spared}")
    return found


def _openings(config: dict[str, Any], linux: dict[str, Any], process: dict[str, Any]) -> list[str]:
    """Where it is less confined than usual."""
    found, profile = [], _object(linux, "seccomp")
    if profile.get("defaultAction") not in _REFUSING:
        found.append("every system call (no seccomp profile, or one that allows what it does not name)")
    else:
        held = {_name(each) for each in _object(process, "capabilities").get("bounding") or ()}
        if calls := defaults.more_calls(profile, held):
            found.append(f"the system calls {' '.join(calls[:20])}{' …' if len(calls) > 20 else ''}")
    for key, usual in (("maskedPaths", defaults.MASKED), ("readonlyPaths", defaults.READONLY)):
        found += [f"access to {path}" for path in sorted(usual - {str(each) for each in linux.get(key) or ()})]
    module = host.lsm()
    profile_name, label = _text(process, "apparmorProfile"), _text(config, "ProcessLabel")
    if module == "apparmor" and not profile_name.startswith(_OWN_PROFILE):
        found.append(f"the AppArmor profile {profile_name}" if profile_name else "no AppArmor profile")
    if module == "selinux" and (label.split(":") + [""] * 3)[2] not in _OWN_TYPES:
        found.append(f"the SELinux label {label}" if label else "no SELinux label")
    return found


def _filesystems(spec: dict[str, Any]) -> list[str]:
    """The kernel's filesystems where no container usually has them: what is masked in one is open in another."""
    found = []
    for mount in spec.get("mounts") or ():
        kind, place = _text(mount, "type"), _text(mount, "destination")
        writable = "ro" not in (mount.get("options") or ())
        if kind in _KERNELS and place != _KERNELS[kind]:
            found.append(f"another {kind} at {place}")
        elif kind in _KERNELS and kind != "proc" and writable:
            found.append(f"a writable {place}")
    return found


def _name(capability: Any) -> str:
    return str(capability).upper().removeprefix("CAP_")


def _interval(health: dict[str, Any]) -> str:
    interval = health.get("Interval") or 0
    if not isinstance(interval, int) or interval < 0:
        raise IntegrityError("the container's healthcheck has an interval that cannot be")
    return f"{interval}ns" if interval else ""


def _rebuild_paths(config: dict[str, Any], identity: str, graph_root: Path) -> None:
    for key in _STATIC:
        path = _text(config, key)
        if not path:
            continue
        own = _OWN_PATH.fullmatch(path)
        if not own or own[1] != identity or ".." in path.split("/"):
            raise IntegrityError(f"the container's {key} is {path[:200]!r}, which podman never gives")
        config[key] = f"{graph_root}/overlay-containers/{identity}/userdata{own[2] or ''}"
    if config.get("mounts"):
        config["mounts"] = [config["ShmDir"]] if config.get("ShmDir") else []


def _object(value: dict[str, Any], key: str) -> dict[str, Any]:
    found = value.get(key) or {}
    if not isinstance(found, dict):
        raise IntegrityError(f"the container's {key} is not an object")
    return found


def _text(value: dict[str, Any], key: str) -> str:
    found = value.get(key) or "" if isinstance(value, dict) else None
    if not isinstance(found, str):
        raise IntegrityError(f"the container's {key} is not a string")
    return found
