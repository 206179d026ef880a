"""What podman wrote down about a container, read from its files while it holds the container's lock.

podman cannot be asked then: it would wait for that lock. Its SQLite database is opened read-only; what it holds
is what `podman container checkpoint --export` would write as ``config.dump`` and ``network.status``.

Source: podman, libpod/sqlite_state.go, container_config.go and container.go; containers/storage, drivers/overlay;
proc_pid_mountinfo(5).
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from ocickpt import oci, structs
from ocickpt.engine.container import Container, Volume
from ocickpt.engine.podman import commands, storage
from ocickpt.engine.podman import config as libpod
from ocickpt.engine.podman.volumes import VolumeOptions
from ocickpt.errors import IntegrityError, StorageError, UnsupportedError

_MOUNTS = Path("/proc/self/mountinfo")
_PATIENCE = 10.0
_ZERO = "0001-"
"""What Go's zero time begins with."""
_LOG_DRIVERS = ("k8s-file", "json-file", "")


class _State(msgspec.Struct, frozen=True, rename="camel"):
    """What podman wrote down about how a container is just now."""

    pid: int = 0
    conmon_pid: int = 0
    started_time: str = ""
    checkpointed_time: str = _ZERO
    restored_time: str = _ZERO
    new_exec_sessions: dict[str, object] = {}
    network_status: Any = None


class _Volume(msgspec.Struct, frozen=True, rename="camel"):
    """What podman wrote down about a volume (VolumeConfig in libpod/volume.go)."""

    volume_driver: str = ""
    volume_options: dict[str, str] = {}


@dataclass(frozen=True, slots=True)
class Recorded:
    """A container, and the files of a checkpoint archive that are about it."""

    container: Container
    config: bytes
    """``config.dump``."""
    network: bytes
    """``network.status``; empty for a container without a network of its own."""
    log: Path | None
    """``ctr.log``, where podman keeps the container's output in a file."""

    @property
    def spec(self) -> Path:
        """``spec.dump``: the specification that the runtime was given."""
        return self.container.bundle / "config.json"


def is_bundle(bundle: Path) -> bool:
    """Whether a bundle lies where podman has its containers': ``GRAPHROOT/overlay-containers/ID/userdata``."""
    return bundle.name == "userdata" and bundle.parents[1].name.endswith("-containers")


def read(bundle: Path) -> Recorded:
    """Everything about the container of that bundle; StorageError, or UnsupportedError for one that is not podman's."""
    if not is_bundle(bundle):
        raise UnsupportedError(f"{bundle} is not the bundle of a container of podman")
    config, state = _rows(bundle.parents[2], bundle.parent.name)
    try:
        spec = oci.read_bundle(json.loads((bundle / "config.json").read_bytes()), "bundle's config.json")
        record = libpod.read(json.loads(config), "configuration in podman's database")
        if record.config.id != bundle.parent.name or not record.config.name:
            raise ValueError("it is of another one")  # noqa: TRY301 - told below
        status = structs.read(json.loads(state), _State, "state in podman's database")
        network = json.dumps(status.network_status).encode() if status.network_status else b""
        saved = bundle / "network.status"
        if not network and saved.is_file():
            network = saved.read_bytes()  # the container is being cleaned up
        return Recorded(_container(bundle, record, status, spec), config, network, _log(bundle, record))
    except OSError as error:
        raise StorageError(f"{error.filename} cannot be read: {error.strerror}") from error
    except (IntegrityError, ValueError, KeyError) as error:
        raise UnsupportedError(
            f"podman's record of container {bundle.parent.name[:12]} is unlike any known: {error}"
        ) from error


def configuration(bundle: Path) -> bytes:
    """podman's configuration of the container of that bundle, which ``config.dump`` would hold; errors as of `read`."""
    return _rows(bundle.parents[2], bundle.parent.name)[0]


def volume_options(subject: Container) -> tuple[VolumeOptions, ...]:
    """How those of its volumes were made that are not plain ones; UnsupportedError for one of another driver."""
    found = []
    for volume in subject.volumes:
        made = _made(subject.graph_root, volume.name)
        if made.volume_driver not in ("", "local"):
            raise UnsupportedError(
                f"container {subject.name!r} has the volume {volume.name!r} of the driver {made.volume_driver!r}, whose"
                " content no checkpoint holds"
            )
        if (options := _options(volume.name, made)).given:
            found.append(options)
    return tuple(found)


def is_of_host(bundle: Path, place: Path) -> bool:
    """Whether a container of podman's has at `place` a volume whose content is there without it.

    Told by ``VOLUMES/NAME/_data``, for podman may not have written down yet what the container is.
    """
    if not is_bundle(bundle) or place.name != "_data":
        return False
    name = place.parent.name
    made = _made(bundle.parents[2], name)
    return made.volume_driver not in ("", "local") or _options(name, made).is_of_host


def _options(name: str, made: _Volume) -> VolumeOptions:
    return VolumeOptions(name, **{k: v for k, v in made.volume_options.items() if k in ("type", "device", "o")})


def _made(graph_root: Path, name: str) -> _Volume:
    try:
        row = _row(graph_root, "SELECT JSON FROM VolumeConfig WHERE Name = ?", name)
    except UnsupportedError:  # an older podman's: it can be asked of volumes, whose locks it does not hold
        driver, options = commands.volume_options(name)
        return _Volume(driver, options)
    return structs.read(json.loads(row[0] if row else b"{}"), _Volume, f"record of the volume {name}")


def _rows(graph_root: Path, container: str) -> tuple[bytes, bytes]:
    query = "SELECT c.JSON, s.JSON FROM ContainerConfig c JOIN ContainerState s ON s.ID = c.ID WHERE c.ID = ?"
    row = _row(graph_root, query, container)
    if row is None:
        raise UnsupportedError(f"podman's database in {graph_root} knows no container {container[:12]}")
    config, state = row
    return config, state


def _row(graph_root: Path, query: str, key: str) -> list[bytes] | None:
    """The one row that a query finds."""
    for path in (graph_root / "db.sql", graph_root / "libpod" / "db.sql"):
        if path.is_file():
            break
    else:
        raise UnsupportedError(f"podman keeps no SQLite database in {graph_root}")
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=_PATIENCE)) as database:
            row = database.execute(query, (key,)).fetchone()
    except sqlite3.Error as error:
        raise StorageError(f"podman's database {path} cannot be read: {error}") from error
    return row and [each.encode() if isinstance(each, str) else bytes(each) for each in row]


def _container(bundle: Path, record: libpod.Record, state: _State, spec: oci.Bundle) -> Container:
    config, beyond = record.config, record.beyond
    namespaces = {each.type: each.path for each in spec.linux.namespaces}
    sources = {mount.destination: mount.source for mount in spec.mounts}
    volumes = {each.name: each.dest for each in config.named_volumes}
    upper, lowers = _layers(Path(spec.root.path)) if not beyond.rootfs else (None, ())
    own_cgroup = config.cgroups_mode != "disabled" and not config.no_cgroups
    return Container(
        id=config.id,
        name=config.name,
        created=config.created_time,
        status="",
        started=state.started_time,
        checkpointed=not state.checkpointed_time.startswith(_ZERO),
        restored=not state.restored_time.startswith(_ZERO),
        image_id=config.rootfs_image_id,
        image_name=config.rootfs_image_name,
        image_digest=storage.digest_of(config.rootfs_image_id, (bundle.parents[2], *_stores(lowers))),
        runtime=Path(config.runtime).name,
        runtime_path=config.runtime,
        bundle=bundle,
        pod=beyond.pod,
        auto_remove=spec.annotations.get("io.podman.annotations.autoremove") == "TRUE",
        depends=beyond.dependencies or beyond.shared,
        volumes=tuple(Volume(name, Path(sources[dest]), dest) for name, dest in volumes.items()),
        elsewhere=beyond.elsewhere,
        executing=len(state.new_exec_sessions),
        private_users="user" in namespaces or bool(spec.linux.uid_mappings),
        host_ipc="ipc" not in namespaces,
        own_cgroup=own_cgroup,
        pid=state.pid,
        conmon=state.conmon_pid,
        private_pids=namespaces.get("pid") == "",
        pausable=own_cgroup,
        created_by=beyond.create_command,
        driver=bundle.parents[1].name.removesuffix("-containers"),
        upper=upper,
        lowers=lowers,
        restored_at=state.restored_time,
        servers=_servers(state.network_status),
    )


def _servers(status: Any) -> tuple[str, ...]:
    """The name servers of its networks (StatusBlock in containers/common libnetwork/types)."""
    blocks = status.values() if isinstance(status, dict) else ()
    found = [each.get("dns_server_ips") or () for each in blocks if isinstance(each, dict)]
    return tuple(str(address) for addresses in found for address in addresses)


def _layers(root: Path) -> tuple[Path | None, tuple[Path, ...]]:
    """The upper directory of the overlay ``overlay/LAYER/merged``, and the layers below it, topmost first."""
    if root.name != "merged" or not (root.parent / "diff").is_dir():
        return None, ()
    # Not from LAYER/lower: a layer may be in another store, and only the mount says in which.
    for line in reversed(_MOUNTS.read_text("utf-8", "replace").splitlines()):
        words = line.split()
        if words[4] == str(root):
            options = dict(each.partition("=")[::2] for each in words[-1].split(","))
            lowers = options.get("lowerdir", "").split(":")
            return root.parent / "diff", tuple((root.parents[1] / each).resolve() for each in lowers if each)
    return root.parent / "diff", ()


def _stores(lowers: tuple[Path, ...]) -> list[Path]:
    """Where the layers of an image are stored: ``STORE/overlay/LAYER/diff``."""
    return sorted({lower.parents[2] for lower in lowers if len(lower.parents) > 2})


def _log(bundle: Path, record: libpod.Record) -> Path | None:
    path = Path(record.beyond.log_path)
    inside = path.parent == bundle and record.config.log_driver in _LOG_DRIVERS
    return path if inside and path.is_file() and not path.is_symlink() else None
