"""libpod's configuration of a container, as a checkpoint brings it: checked and made to fit this host.

podman believes what it imports: paths it will mount and unmount at, programs it will run. A checkpoint
comes from elsewhere, so none of these survive: only known keys pass (`config`, `oci`), paths are rebuilt from
this host's storage, and what the container would get of the host beyond its image is listed.

Source: podman, libpod/container_config.go, libpod/runtime_ctr.go (RestoreContainer), and `restore` and
`makeBindMounts` of libpod/container_internal_common.go.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from dataclasses import replace as replaced
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from ocickpt import oci
from ocickpt.asked import READ_ONLY, Asked
from ocickpt.engine.podman import config as libpod
from ocickpt.engine.podman.annotations import acted_on, passed
from ocickpt.engine.podman.config import Config
from ocickpt.engine.podman.privileges import privileges
from ocickpt.engine.podman.services import own_aliases, services
from ocickpt.engine.podman.volumes import VolumeOptions
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
_PARENTS = ("/libpod_parent", "machine.slice")
"""The parents of containers that were given none, under cgroupfs and systemd: this host takes its own."""
_FILESYSTEMS = {"proc", "sysfs", "tmpfs", "ramfs", "devpts", "mqueue", "cgroup", "cgroup2"}
_NAMESPACES = ("pid", "network", "ipc", "uts", "cgroup")
_DEFAULT_NETWORK = "podman"
_NETWORK_MODES = ("", "bridge", "default", "host", "none", "private")
"""In others a process of the host would have to be started again, or another container be there."""
# On the next start podman would change the owner or the label of all that is below the source.
_CHANGING = {"U", "z", "Z", "O", "idmap"}
_HOSTS_FILES: Final = ("image", "none")
"""What a container may have its /etc/hosts made from; anything else is a path of the host."""
_VALUED = ("volume-opt", "upperdir=", "workdir=", "lowerdir=", "subpath=", "idmap=")


@dataclass(frozen=True)
class Imported:
    """A container's configuration and OCI specification, fit to be given to this host's podman."""

    config: Config
    spec: oci.Saved
    volumes: dict[str, str]
    """Where each named volume lies on this host, by name."""
    secrets: tuple[str, ...]
    host_paths: tuple[str, ...]
    """Files and directories of this host that the container mounts."""
    asked: tuple[Asked, ...]
    """What the container would have that podman gives nobody unasked, these files and directories among it."""
    health_interval: str
    """The interval of its healthcheck as podman writes durations; empty without one."""
    made: tuple[VolumeOptions, ...] = ()
    """Those of its volumes that have to be made otherwise than podman makes them, and how."""

    @property
    def id(self) -> str:
        """The container's id: 64 hexadecimal digits."""
        return self.config.id

    @property
    def name(self) -> str:
        """The container's name."""
        return self.config.name

    @property
    def image_id(self) -> str:
        """The ID of its image: 64 hexadecimal digits."""
        return self.config.rootfs_image_id

    @property
    def image_name(self) -> str:
        """The name of its image, with its registry, or its ID."""
        return self.config.rootfs_image_name

    @property
    def networks(self) -> tuple[str, ...]:
        """The networks that it is in, but for podman's default one, which is made where it is missing."""
        return tuple(name for name in self.config.new_networks if name != _DEFAULT_NETWORK)

    @property
    def runtime(self) -> str:
        """The name of its runtime."""
        return self.config.runtime

    def publishing(self, ports: Collection[str]) -> Imported:
        """With these `ports` in the place of its own, if there are any: that is what podman's own `-p` does then, and
        whoever gives it wants them."""
        if not ports:
            return self
        asked = tuple(each for each in self.asked if each.kind != "port")
        return replaced(self, config=replace(self.config, new_port_mappings=()), asked=asked)

    def making(self, volumes: Collection[VolumeOptions]) -> Imported:
        """With these volumes made as they were. IntegrityError for one that it does not have."""
        if not {each.name for each in volumes} <= self.volumes.keys():
            raise IntegrityError("the checkpoint says how volumes were made that its container has not")
        asked = (each.asked() for each in volumes)
        return replaced(self, made=tuple(volumes), asked=(*self.asked, *filter(None, asked)))

    def without(self, refused: Collection[Asked]) -> Imported:
        """Without what it can do without, of which these were `refused`: annotations."""
        left = {each.value for each in refused if each.kind == "annotation"}
        # Whole, as they were asked for: a name may have a "=" itself.
        kept = {name: value for name, value in self.spec.annotations.items() if f"{name}={value}" not in left}
        asked = tuple(each for each in self.asked if each not in refused)
        return replaced(self, spec=replace(self.spec, annotations=kept), asked=asked)

    def members(self, created_by: tuple[str, ...]) -> dict[str, bytes]:
        """The two files of a checkpoint archive that hold these; podman will show `created_by` as what made it."""
        config, spec = libpod.plain(self.config, created_by), oci.plain(self.spec)
        return {"config.dump": json.dumps(config).encode(), "spec.dump": json.dumps(spec).encode()}


def import_config(record: libpod.Record, spec: oci.Saved, graph_root: Path, volume_root: Path) -> Imported:
    """Check what a ``config.dump`` and a ``spec.dump`` say and rebuild their paths below this host's roots.

    Raises IntegrityError for what podman never writes, UnsupportedError for what cannot be restored.
    """
    config, name = record.config, record.config.name
    if not _ID.fullmatch(config.id) or not _NAME.fullmatch(name):
        raise IntegrityError("the container's id or name is not one that podman gives")
    if config.runtime not in table.NAMES:
        raise UnsupportedError(
            f"container {name!r} runs under {config.runtime[:100]!r}; only {table.LISTED} can restore"
        )
    _check_whole(record.beyond, name)
    config = _checked(_with_own_paths(config, graph_root))
    volumes, secrets = _volumes(config, volume_root), _secrets(config)
    mounts, shown = _mounts(spec, volumes)
    namespaces, shared = _namespaces(spec, made=config.create_net_ns)
    linux, kept = replace(spec.linux, namespaces=namespaces), passed(spec.annotations, config)
    spec = replace(spec, mounts=mounts, linux=linux, annotations=kept)
    return Imported(
        config,
        spec,
        volumes,
        secrets,
        tuple(sorted(shown)),
        (
            *_directories(shown),
            *privileges(config, spec),
            *shared,
            *_given(secrets),
            *services(config, spec.hostname),
            *acted_on(kept),
        ),
        _interval(config.healthcheck),
    )


def _check_whole(beyond: libpod.Beyond, name: str) -> None:
    """UnsupportedError for containers that consist of more than podman exports."""
    if beyond.rootfs:
        raise UnsupportedError(f"container {name!r} has no image but a directory of its host as root (--rootfs)")
    if beyond.shared or beyond.pod or beyond.dependencies:
        raise UnsupportedError(f"container {name!r} is part of a pod or shares namespaces; podman cannot import those")
    if beyond.elsewhere:
        raise UnsupportedError(f"container {name!r} has overlay or image volumes, which no checkpoint holds")


def _with_own_paths(config: Config, graph_root: Path) -> Config:
    """With the paths of podman's own directories for it below `graph_root`; IntegrityError for any other paths."""

    def own(what: str, path: str) -> str:
        if not path:
            return ""
        found = _OWN_PATH.fullmatch(path)
        if not found or found[1] != config.id or ".." in path.split("/"):
            raise IntegrityError(f"the container's {what} is {path[:200]!r}, which podman never gives")
        return f"{graph_root}/overlay-containers/{config.id}/userdata{found[2] or ''}"

    shm = own("ShmDir", config.shm_dir)
    return replace(
        config,
        static_dir=own("staticDir", config.static_dir),
        shm_dir=shm,
        secrets_path=own("secretsPath", config.secrets_path),
        mounts=(shm,) if config.mounts and shm else (),
    )


def _checked(config: Config) -> Config:
    """Without values that podman would take for something of the host; those that it never gives are refused."""
    if not _ID.fullmatch(config.rootfs_image_id):
        raise IntegrityError("the container's image has no ID as podman gives them")
    image = config.rootfs_image_name
    if not (_IMAGE.fullmatch(image) or _IMAGE_ID.fullmatch(image)):
        raise IntegrityError(f"{image[:200]!r} is not the name of an image")
    mode = config.network_mode
    if mode not in _NETWORK_MODES:
        raise UnsupportedError(f"the container's network is {mode[:200]!r}, which cannot be restored elsewhere")
    if ".." in config.cgroup_parent.split("/"):
        raise IntegrityError("the container's cgroup parent is not one that podman gives")
    if config.timezone and not _ZONE.fullmatch(config.timezone):
        raise IntegrityError(f"{config.timezone[:200]!r} is not a time zone")
    return replace(
        config,
        cgroup_parent="" if config.cgroup_parent in _PARENTS else config.cgroup_parent,
        base_hosts_file=config.base_hosts_file if config.base_hosts_file in _HOSTS_FILES else "",
        named_volumes=tuple(replace(each, options=_harmless(each.options)) for each in config.named_volumes),
        new_networks={name: own_aliases(each) for name, each in config.new_networks.items()},
    )


def _volumes(config: Config, root: Path) -> dict[str, str]:
    if not all(_NAME.fullmatch(volume.name) for volume in config.named_volumes):
        raise IntegrityError("a volume of the container has a name that podman does not give")
    return {volume.name: f"{root}/{volume.name}/_data" for volume in config.named_volumes}


def _secrets(config: Config) -> tuple[str, ...]:
    found = sorted({each.name for each in (*config.secrets, *config.secret_env.values())})
    if not all(name and name.isprintable() for name in found):
        raise IntegrityError("a secret of the container has a name that podman does not give")
    return tuple(found)


def _mounts(spec: oci.Saved, volumes: dict[str, str]) -> tuple[tuple[oci.Mount, ...], dict[str, bool]]:
    """The mounts of `spec` as this host's; the paths of this host among them, and whether one may be written to.

    podman's own files for the container are left out: it makes and mounts them itself.
    """
    kept, foreign = [], dict[str, bool]()
    for given in spec.mounts:
        mount, source = replace(given, options=_harmless(given.options)), given.source
        if mount.is_bind:
            plain = ".." not in source.split("/")
            if plain and _OWN_PATH.fullmatch(source):
                continue
            volume = _VOLUME_PATH.fullmatch(source)
            if plain and volume and volume[1] in volumes:
                mount = replace(mount, source=volumes[volume[1]])
            elif source.startswith("/") and source.isprintable():
                foreign[source] = foreign.get(source, False) or "ro" not in mount.options
            else:
                raise IntegrityError(f"the container mounts {source[:200]!r}, which is no path")
        elif mount.type not in _FILESYSTEMS:
            raise UnsupportedError(
                f"the container has a mount of the type {mount.type[:100]!r}, which cannot be restored"
            )
        kept.append(mount)
    return tuple(kept), foreign


def _harmless(options: tuple[str, ...]) -> tuple[str, ...]:
    """The mount options, but for those that change the host or mount something else."""
    return tuple(each for each in options if each not in _CHANGING and not each.startswith(_VALUED))


def _namespaces(spec: oci.Saved, *, made: bool) -> tuple[tuple[oci.Namespace, ...], list[Asked]]:
    """The container's own namespaces, and which of the host it uses; `made` says that podman makes a network for it."""
    for each in spec.linux.namespaces:
        if each.path and not (each.type == "network" and made):
            raise UnsupportedError(f"the container joins a {each.type[:20]!r} namespace of its host by path")
    found = {each.type for each in spec.linux.namespaces}
    if "user" in found:
        raise UnsupportedError("the container has a user namespace of its own (--userns), which podman cannot restore")
    if "mount" not in found:
        raise IntegrityError("the container has no mount namespace of its own")
    own = tuple(oci.Namespace(each.type) for each in spec.linux.namespaces)
    shared = [Asked("namespace", kind, f"the {kind} namespace") for kind in _NAMESPACES if kind not in found]
    return own, shared


def _directories(shown: dict[str, bool]) -> list[Asked]:
    """What the container has mounted of the host; by path, and whether it may write there. UnsupportedError."""
    if strange := [path for path in shown if path.endswith((READ_ONLY, ":rw"))]:
        raise UnsupportedError(f"the container mounts {strange[0][:200]!r}, whose name cannot be told from an option")
    return [
        Asked("mount", path if writable else f"{path}{READ_ONLY}", f"the directory {path}")
        for path, writable in sorted(shown.items())
    ]


def _given(secrets: tuple[str, ...]) -> list[Asked]:
    return [Asked("secret", name, f"the secret {name}") for name in secrets]


def _interval(health: libpod.Healthcheck) -> str:
    if health.interval < 0:
        raise IntegrityError("the container's healthcheck has an interval that cannot be")
    return f"{health.interval}ns" if health.interval else ""
