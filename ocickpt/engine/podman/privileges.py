"""What a container may do beyond what podman gives one that asks for nothing: how it is confined, and its share.

Limits are not here: they only take away. Nor are sysctls: runtimes set those of the container's own namespaces alone
(runc libcontainer/configs/validate, crun src/libcrun/linux.c).

Source: podman pkg/specgen/generate; runtime-spec, config-linux.md; containers/common pkg/apparmor; container-selinux.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ocickpt import oci
from ocickpt.asked import Asked
from ocickpt.engine import host
from ocickpt.engine.podman import defaults
from ocickpt.engine.podman.config import Config

_REFUSING = ("SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_TRAP")
_USUAL_POLICIES = ("SCHED_OTHER", "SCHED_BATCH", "SCHED_IDLE")
_KERNELS = {"proc": "/proc", "sysfs": "/sys", "cgroup": "/sys/fs/cgroup", "cgroup2": "/sys/fs/cgroup"}
"""Where a container has the kernel's filesystems."""
_EVERY_CALL = "every system call (no seccomp profile, or one that allows what it does not name)"
_OWN_PROFILE = "containers-default-"
_OWN_TYPES = ("container_t", "container_init_t")
"""What podman itself confines containers with."""
_PRIVATE = ("private", "rprivate")
_PROPAGATIONS = ("shared", "rshared", "slave", "rslave")
_ENDLESS: Final = 1 << 63
"""From here on a limit is none (RLIM_INFINITY)."""
_LIMITS: Final = {"MEMLOCK": 8 << 20, "MSGQUEUE": 819200, "NICE": 0, "NOFILE": 1 << 20, "NPROC": 1 << 22, "RTPRIO": 0,
                  "SIGPENDING": 1 << 22}  # fmt: skip
"""So much everybody has: from podman (libpod/define/config.go) or the kernel (include/asm-generic/resource.h), and of
what depends on the host's memory as much as there may be. Of what is not here everybody has no limit."""
_SHARES, _WEIGHT = 1024, 100
"""What a cgroup has of the processors and of block devices that was given no share (cgroups(7))."""


def privileges(config: Config, spec: oci.Spec) -> list[Asked]:
    """Each of them; what --privileged gives is not listed one by one."""
    found = [_device(each) for each in sorted(spec.linux.devices, key=lambda device: device.path)]
    found += [Asked("device", name, f"the device {name} of the host") for name in config.cdi_devices]
    if config.privileged or config.mount_all_devices:
        found.insert(0, Asked("privileged", "", "what --privileged gives"))
    else:
        found += [*_device_rules(spec.linux), *_filesystems(spec), *_powers(spec.process), *_openings(config, spec)]
    return [*found, *_limits(spec.process), *_shares(spec.linux.resources), *_propagation(spec)]


def _device(device: oci.Device) -> Asked:
    """By its numbers too: what is behind a path of the container's is whatever the checkpoint says."""
    which = f"{device.type or 'c'}{device.major}:{device.minor}"
    return Asked("device", f"{device.path}:{which}", f"{device.path}, which is the device {which} of the host")


def _device_rules(linux: oci.Linux) -> Iterator[Asked]:
    """What it may do with devices that it has no nodes for, as `podman run --device-cgroup-rule` has it."""
    nodes = {(each.type or "c", each.major, each.minor) for each in linux.devices}
    for rule in linux.resources.devices:
        if rule.allow and (rule.type, rule.major, rule.minor) not in nodes:
            major, minor = ("*" if number < 0 else str(number) for number in (rule.major, rule.minor))
            which = f"{rule.type or 'a'} {major}:{minor} {rule.access}"
            yield Asked("device-cgroup-rule", which, f"the devices {which} of the host")


def _powers(process: oci.Process) -> list[Asked]:
    """Capabilities, and what else goes before others: in scheduling, and when memory is short."""
    sets = process.capabilities
    held = (*sets.bounding, *sets.effective, *sets.permitted, *sets.inheritable, *sets.ambient)
    more = sorted(set(map(_name, held)) - defaults.capabilities())
    found = [Asked("cap", name.lower(), f"the capability {name}") for name in more]
    policy, spared = process.scheduler.policy, process.oom_score_adj or 0
    if policy not in ("", *_USUAL_POLICIES):
        found.append(Asked("scheduling", policy, f"the scheduling policy {policy}"))
    if (nice := process.scheduler.nice) < 0:
        found.append(Asked("scheduling", f"nice={nice}", f"the nice value {nice}"))
    if spared < 0:
        found.append(Asked("oom-score-adj", str(spared), f"the oom_score_adj {spared}"))
    return found


def _openings(config: Config, spec: oci.Spec) -> list[Asked]:
    """Where it is less confined than usual."""
    found, linux, process = list[Asked](), spec.linux, spec.process
    if not linux.seccomp or linux.seccomp.says.default_action not in _REFUSING:
        found.append(Asked("seccomp", "unconfined", _EVERY_CALL))
    else:
        held = {_name(each) for each in process.capabilities.bounding}
        if calls := defaults.more_calls(linux.seccomp.says, held):
            shown = " ".join(calls[:20]) + (" …" if len(calls) > 20 else "")
            found.append(Asked("syscall", ",".join(calls), f"the system calls {shown}"))
    for paths, usual in ((linux.masked_paths, defaults.MASKED), (linux.readonly_paths, defaults.READONLY)):
        found += [Asked("unmask", path, f"access to {path}") for path in sorted(usual - set(paths))]
    module, profile, label = host.lsm(), process.apparmor_profile, config.process_label
    if module == "apparmor" and not profile.startswith(_OWN_PROFILE):
        told = f"the AppArmor profile {profile}" if profile else "no AppArmor profile"
        found.append(Asked("apparmor", profile or "unconfined", told))
    if module == "selinux" and (label.split(":") + [""] * 3)[2] not in _OWN_TYPES:
        found.append(
            Asked("selinux", label or "disable", f"the SELinux label {label}" if label else "no SELinux label")
        )
    return found


def _filesystems(spec: oci.Spec) -> list[Asked]:
    """The kernel's filesystems where no container usually has them: what is masked in one is open in another."""
    found = list[Asked]()
    for mount in spec.mounts:
        kind, place = mount.type, mount.destination
        if kind in _KERNELS and place != _KERNELS[kind]:
            found.append(Asked("filesystem", f"{kind}:{place}", f"another {kind} at {place}"))
        elif kind in _KERNELS and kind != "proc" and "ro" not in mount.options:
            found.append(Asked("filesystem", f"{kind}:{place}", f"a writable {place}"))
    return found


def _name(capability: str) -> str:
    return capability.upper().removeprefix("CAP_")


def _limits(process: oci.Process) -> Iterator[Asked]:
    """Limits above what everybody has."""
    for each in process.rlimits:
        name = each.type.upper().removeprefix("RLIMIT_")
        if max(each.hard, each.soft) > _LIMITS.get(name, _ENDLESS * 2):
            most = -1 if each.hard >= _ENDLESS else each.hard
            shown = "no limit" if most < 0 else f"a limit of {most}"
            yield Asked("ulimit", f"{name.lower()}={most}", f"{shown} for {name}")


def _shares(resources: oci.Resources) -> Iterator[Asked]:
    """What it gets before others do, when there is not enough for all."""
    cpu, memory, io = resources.cpu, resources.memory, resources.block_io
    if cpu.shares > _SHARES:
        yield Asked("cpu-shares", str(cpu.shares), f"the processors before others, {cpu.shares} shares to {_SHARES}")
    if cpu.realtime_runtime:
        yield Asked("cpu-rt-runtime", str(cpu.realtime_runtime), "real-time scheduling")
    if memory.reservation > 0:
        yield Asked(
            "memory-reservation", str(memory.reservation), f"{memory.reservation} bytes of memory before others"
        )
    if memory.disable_oom_killer:
        yield Asked("oom-kill-disable", "", "to be spared when memory is short")
    by_device = (each for device in io.weight_device for each in (device.weight, device.leaf_weight))
    if (weight := max(io.weight, io.leaf_weight, *by_device)) > _WEIGHT:
        yield Asked("blkio-weight", str(weight), f"block devices before others, a weight of {weight} to {_WEIGHT}")
    for key, value in sorted(resources.unified.items()):
        yield Asked("cgroup-conf", f"{key}={value}", f"{value!r} in the file {key} of its cgroup")


def _propagation(spec: oci.Spec) -> Iterator[Asked]:
    """Mounts that go to the host and come from there; podman gives the root filesystem the propagation of one below."""
    found = {mount.destination: each for mount in spec.mounts for each in mount.options if each in _PROPAGATIONS}
    root = spec.linux.rootfs_propagation
    if root not in ("", *_PRIVATE, *(each.removeprefix("r") for each in found.values()), *found.values()):
        found["/"] = root
    for place, how in sorted(found.items()):
        yield Asked("propagation", f"{how}:{place}", f"mounts below {place} shared with the host ({how})")
