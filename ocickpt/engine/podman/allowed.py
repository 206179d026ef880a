"""Which keys of ``config.dump`` and ``spec.dump`` podman and the runtime get to see: an allow-list, spelled exactly.

Go's decoder takes ``HOOKS`` for ``hooks``, so what is not spelled like here must not pass: it would be
read after all that was checked. Left out is whatever names programs, sockets, paths or other containers
of a host and that a restore does not need, and what podman chooses anew.

Source: podman 5.4, libpod/container_config.go; runtime-spec, specs-go/config.go.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

from ocickpt.errors import IntegrityError

Shape: TypeAlias = "dict[str, Shape] | list[Shape] | None"
"""What passes: anything (None), these keys of an object, or a list of such objects."""

EACH: Final = "*"
"""As a key of a shape: any key."""


def _keys(names: str, **shapes: Shape) -> dict[str, Shape]:
    return {**dict.fromkeys(names.split()), **shapes}


CONFIG: Final[Shape] = _keys(
    # Identity and image.
    "id name RawImageName rootfsImageID rootfsImageName createdTime runtime labels userVolumes entrypoint command"
    # Storage.
    " staticDir ShmDir mounts secretsPath NOShmShare NoShm shmSize shmSizeSystemd createWorkingDir volatile passwd"
    " readWriteTmpfs"
    # Security, shown and compared.
    " privileged ProcessLabel MountLabel labelopts label_nested user groups HostUsers umask mountAllDevices cdiDevices"
    # Network.
    " createNetNS staticIP staticMAC newPortMappings exposedPorts UseImageResolvConf dnsServer dnsSearch dnsOption"
    " useImageHostname UseImageHosts baseHostsFile hostsAdd newNetworks networkMode network_options postConfigureNetNS"
    # How it is run.
    " stdin stopSignal stopTimeout timeout cgroupManager noCgroups cgroupsMode cgroupParent group_entry passwd_entry"
    " kubeExitCodePropagation logDriver logTag logSize restart_policy restart_retries sdnotifyMode systemd timezone"
    " healthcheck healthcheck_on_failure_action healthMaxLogCount healthMaxLogSize startupHealthCheck",
    idMappingsOptions=_keys("HostUIDMapping HostGIDMapping UIDMap GIDMap"),
    namedVolumes=[_keys("volumeName dest options setAnonymous SubPath")],
    secrets=[_keys("name id UID GID Mode Target")],
    secret_env={EACH: _keys("name id")},
    storageOpts=_keys("size inodes"),
)

SPEC: Final[Shape] = _keys(
    "ociVersion hostname domainname",
    root=_keys("path readonly"),
    mounts=[_keys("destination type source options uidMappings gidMappings")],
    annotations=_keys(
        "io.container.manager org.opencontainers.image.stopSignal org.systemd.property.KillSignal"
        " org.systemd.property.TimeoutStopUSec io.podman.annotations.autoremove io.podman.annotations.privileged"
        " io.podman.annotations.publish-all io.podman.annotations.init io.podman.annotations.label"
        " io.podman.annotations.seccomp io.podman.annotations.apparmor io.podman.annotations.ulimit"
    ),
    process=_keys(
        "terminal consoleSize args env cwd noNewPrivileges apparmorProfile oomScoreAdj selinuxLabel scheduler"
        " ioPriority",
        user=_keys("uid gid umask additionalGids"),
        capabilities=_keys("bounding effective permitted inheritable ambient"),
        rlimits=[_keys("type hard soft")],
    ),
    linux=_keys(
        "sysctl rootfsPropagation maskedPaths readonlyPaths mountLabel personality timeOffsets",
        resources=_keys(
            "memory cpu pids blockIO hugepageLimits network rdma unified",
            devices=[_keys("allow type major minor access")],
        ),
        uidMappings=[_keys("containerID hostID size")],
        gidMappings=[_keys("containerID hostID size")],
        namespaces=[_keys("type path")],
        devices=[_keys("path type major minor fileMode uid gid")],
        seccomp=_keys("defaultAction defaultErrnoRet architectures flags syscalls"),
    ),
)


def only(value: Any, shape: Shape, what: str) -> Any:
    """`value` without the keys that `shape` does not have; IntegrityError for another type than it says."""
    if shape is None or value is None:
        return value
    if isinstance(shape, list):
        if not isinstance(value, list):
            raise IntegrityError(f"the container's {what} is not a list")
        return [only(each, shape[0], what) for each in value]
    if not isinstance(value, dict):
        raise IntegrityError(f"the container's {what} is not an object")
    if EACH in shape:
        return {key: only(each, shape[EACH], what) for key, each in value.items()}
    return {key: only(value[key], shape[key], key) for key in shape if key in value}
