"""libpod's configuration of a container (``config.dump``, and in its database), as far as it is read or passed on.

The fields of `Config` are an allow-list, spelled exactly as libpod does (see `oci`). Left out is whatever names
programs, sockets, paths or other containers of a host and that a restore does not need, and what podman chooses
anew; what there is to know of that is in `Beyond`, which is never written. What nobody here looks into is `Any`.

Source: podman 5.4, libpod/container_config.go.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from ocickpt import structs


class _Object(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """An object of the configuration."""


class IdMappings(_Object, frozen=True):
    """``--uidmap``, ``--gidmap``."""

    host_uid: Any = msgspec.field(default=None, name="HostUIDMapping")
    host_gid: Any = msgspec.field(default=None, name="HostGIDMapping")
    uid: Any = msgspec.field(default=None, name="UIDMap")
    gid: Any = msgspec.field(default=None, name="GIDMap")


class NamedVolume(_Object, frozen=True):
    """A named volume, mounted at `dest`."""

    name: str = msgspec.field(default="", name="volumeName")
    dest: str = ""
    options: tuple[str, ...] = ()
    set_anonymous: Any = None
    sub_path: Any = msgspec.field(default=None, name="SubPath")


class NamedSecret(_Object, frozen=True):
    """A secret that is in the environment."""

    name: str
    id: Any = None


class Secret(NamedSecret, frozen=True):
    """A secret that is a file."""

    uid: Any = msgspec.field(default=None, name="UID")
    gid: Any = msgspec.field(default=None, name="GID")
    mode: Any = msgspec.field(default=None, name="Mode")
    target: Any = msgspec.field(default=None, name="Target")


class Port(_Object, frozen=True, rename="lower"):
    """Published ports: `range` of them, from `host_port` on, at one address of the host or at all ("").

    Protocols are separated by commas, none is TCP (containers/common libnetwork/types/network.go, PortMapping).
    """

    host_ip: str = ""
    container_port: int = 0
    host_port: int = 0
    range: int = 0
    protocol: str = ""


class Network(_Object, frozen=True, rename="lower"):
    """How it is in a network (PerNetworkOptions, there), but for drivers' options, which may name links of a host."""

    static_ips: Any = None
    aliases: tuple[str, ...] = ()
    static_mac: Any = None
    interface_name: str = ""


class StorageOptions(_Object, frozen=True):
    """Limits of the container's own layer."""

    size: Any = None
    inodes: Any = None


class Healthcheck(_Object, frozen=True, rename="pascal"):
    """A healthcheck; times are in nanoseconds (containers/image manifest, Schema2HealthConfig)."""

    test: tuple[str, ...] = ()
    start_period: Any = None
    start_interval: Any = None
    interval: int = 0
    timeout: Any = None
    retries: Any = None


class Config(_Object, frozen=True):
    """What podman gets to read."""

    # Identity and image.
    id: str = ""
    name: str = ""
    raw_image_name: Any = msgspec.field(default=None, name="RawImageName")
    rootfs_image_id: str = msgspec.field(default="", name="rootfsImageID")
    rootfs_image_name: str = ""
    created_time: str = ""
    runtime: str = ""
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    user_volumes: Any = None
    entrypoint: Any = None
    command: Any = None
    # Storage.
    static_dir: str = ""
    shm_dir: str = msgspec.field(default="", name="ShmDir")
    mounts: tuple[str, ...] = ()
    secrets_path: str = ""
    no_shm_share: Any = msgspec.field(default=None, name="NOShmShare")
    no_shm: Any = msgspec.field(default=None, name="NoShm")
    shm_size: Any = None
    shm_size_systemd: Any = None
    create_working_dir: Any = None
    volatile: Any = None
    passwd: Any = None
    read_write_tmpfs: Any = None
    id_mappings_options: IdMappings = IdMappings()
    named_volumes: tuple[NamedVolume, ...] = ()
    secrets: tuple[Secret, ...] = ()
    secret_env: dict[str, NamedSecret] = msgspec.field(default_factory=dict, name="secret_env")
    storage_opts: StorageOptions = StorageOptions()
    # Security, shown and compared.
    privileged: bool = False
    process_label: str = msgspec.field(default="", name="ProcessLabel")
    mount_label: str = msgspec.field(default="", name="MountLabel")
    labelopts: Any = None
    label_nested: Any = msgspec.field(default=None, name="label_nested")
    user: Any = None
    groups: Any = None
    host_users: tuple[str, ...] = msgspec.field(default=(), name="HostUsers")
    umask: Any = None
    mount_all_devices: bool = False
    cdi_devices: tuple[str, ...] = ()
    # Network.
    create_net_ns: bool = msgspec.field(default=False, name="createNetNS")
    static_ip: Any = msgspec.field(default=None, name="staticIP")
    static_mac: Any = msgspec.field(default=None, name="staticMAC")
    new_port_mappings: tuple[Port, ...] = ()
    exposed_ports: Any = None
    use_image_resolv_conf: Any = msgspec.field(default=None, name="UseImageResolvConf")
    dns_server: Any = None
    dns_search: Any = None
    dns_option: Any = None
    use_image_hostname: Any = None
    use_image_hosts: Any = msgspec.field(default=None, name="UseImageHosts")
    base_hosts_file: str = ""
    hosts_add: Any = None
    new_networks: dict[str, Network] = msgspec.field(default_factory=dict)
    network_mode: str = ""
    post_configure_net_ns: Any = msgspec.field(default=None, name="postConfigureNetNS")
    # How it is run.
    stdin: Any = None
    stop_signal: int = 0
    stop_timeout: int = 0
    timeout: Any = None
    cgroup_manager: Any = None
    no_cgroups: bool = False
    cgroups_mode: str = ""
    cgroup_parent: str = ""
    group_entry: Any = msgspec.field(default=None, name="group_entry")
    passwd_entry: Any = msgspec.field(default=None, name="passwd_entry")
    kube_exit_code_propagation: Any = None
    log_driver: str = ""
    log_tag: Any = None
    log_size: Any = None
    restart_policy: str = msgspec.field(default="", name="restart_policy")
    restart_retries: int = msgspec.field(default=0, name="restart_retries")
    sdnotify_mode: Any = None
    systemd: Any = None
    timezone: str = ""
    healthcheck: Healthcheck = Healthcheck()
    healthcheck_on_failure_action: Any = msgspec.field(default=None, name="healthcheck_on_failure_action")
    health_max_log_count: Any = None
    health_max_log_size: Any = None
    startup_health_check: Any = None


class Elsewhere(_Object, frozen=True):
    """A volume whose content no checkpoint holds."""

    dest: str = ""


class Beyond(_Object, frozen=True):
    """What podman does not get to read of a checkpoint."""

    rootfs: str = ""
    """The directory of the host that it has instead of an image (``--rootfs``)."""
    pod: str = ""
    dependencies: tuple[str, ...] = msgspec.field(default=(), name="Dependencies")
    ipc_of: str = msgspec.field(default="", name="ipcNsCtr")
    mount_of: str = msgspec.field(default="", name="mountNsCtr")
    net_of: str = msgspec.field(default="", name="netNsCtr")
    pid_of: str = msgspec.field(default="", name="pidNsCtr")
    user_of: str = msgspec.field(default="", name="userNsCtr")
    uts_of: str = msgspec.field(default="", name="utsNsCtr")
    cgroup_of: str = msgspec.field(default="", name="cgroupNsCtr")
    overlay_volumes: tuple[Elsewhere, ...] = ()
    image_volumes: tuple[Elsewhere, ...] = msgspec.field(default=(), name="ctrImageVolumes")
    log_path: str = ""
    create_command: tuple[str, ...] = msgspec.field(default=(), name="CreateCommand")

    @property
    def shared(self) -> tuple[str, ...]:
        """The containers whose namespaces it shares."""
        given = (self.ipc_of, self.mount_of, self.net_of, self.pid_of, self.user_of, self.uts_of, self.cgroup_of)
        return tuple(each for each in given if each)

    @property
    def elsewhere(self) -> tuple[str, ...]:
        """Where it has volumes whose content no checkpoint holds."""
        return tuple(each.dest for each in (*self.overlay_volumes, *self.image_volumes))


@dataclass(frozen=True, slots=True)
class Record:
    """All that is read of a container's configuration."""

    config: Config
    beyond: Beyond


def read(value: object, what: str) -> Record:
    """What the JSON `value` says; IntegrityError for one that is not of the right form, naming `what` and the place."""
    return Record(structs.read(value, Config, what), structs.read(value, Beyond, what))


def plain(config: Config, created_by: tuple[str, ...]) -> Any:
    """The configuration as JSON, without what was absent or null; podman will show `created_by` as what made it."""
    return msgspec.to_builtins(config) | {"CreateCommand": list(created_by)}
