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

from ocickpt.engine.container import Container, Volume
from ocickpt.engine.podman import imported, storage
from ocickpt.errors import StorageError, UnsupportedError

_MOUNTS = Path("/proc/self/mountinfo")
_PATIENCE = 10.0
_ZERO = "0001-"
"""What Go's zero time begins with."""
_LOG_DRIVERS = ("k8s-file", "json-file", "")


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
        spec = json.loads((bundle / "config.json").read_bytes())
        found, status = json.loads(config), json.loads(state)
        network = json.dumps(status["networkStatus"]).encode() if status.get("networkStatus") else b""
        saved = bundle / "network.status"
        if not network and saved.is_file():
            network = saved.read_bytes()  # the container is being cleaned up
        return Recorded(_container(bundle, found, status, spec), config, network, _log(bundle, found))
    except OSError as error:
        raise StorageError(f"{error.filename} cannot be read: {error.strerror}") from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UnsupportedError(f"podman's record of container {bundle.parent.name[:12]} is unlike any known") from error


def _rows(graph_root: Path, container: str) -> tuple[bytes, bytes]:
    for path in (graph_root / "db.sql", graph_root / "libpod" / "db.sql"):
        if path.is_file():
            break
    else:
        raise UnsupportedError(f"podman keeps no SQLite database in {graph_root}")
    query = "SELECT c.JSON, s.JSON FROM ContainerConfig c JOIN ContainerState s ON s.ID = c.ID WHERE c.ID = ?"
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=_PATIENCE)) as database:
            row = database.execute(query, (container,)).fetchone()
    except sqlite3.Error as error:
        raise StorageError(f"podman's database {path} cannot be read: {error}") from error
    if row is None:
        raise UnsupportedError(f"podman's database {path} knows no container {container[:12]}")
    config, state = (each.encode() if isinstance(each, str) else bytes(each) for each in row)
    return config, state


def _container(bundle: Path, config: dict[str, Any], state: dict[str, Any], spec: dict[str, Any]) -> Container:
    linux = spec.get("linux") or {}
    namespaces = {each["type"]: each.get("path", "") for each in linux.get("namespaces") or ()}
    sources = {mount["destination"]: mount.get("source", "") for mount in spec.get("mounts") or ()}
    volumes = {each["volumeName"]: each["dest"] for each in config.get("namedVolumes") or ()}
    root = Path((spec.get("root") or {}).get("path") or "")
    upper, lowers = _layers(root) if not config.get("rootfs") else (None, ())
    own_cgroup = config.get("cgroupsMode") != "disabled" and not config.get("noCgroups")
    return Container(
        id=config["id"],
        name=config["name"],
        created=config.get("createdTime", ""),
        status="",
        started=state.get("startedTime", ""),
        checkpointed=not state.get("checkpointedTime", _ZERO).startswith(_ZERO),
        restored=not state.get("restoredTime", _ZERO).startswith(_ZERO),
        image_id=config.get("rootfsImageID", ""),
        image_name=config.get("rootfsImageName", ""),
        image_digest=storage.digest_of(config.get("rootfsImageID", ""), (bundle.parents[2], *_stores(lowers))),
        runtime=Path(config.get("runtime", "")).name,
        runtime_path=config.get("runtime", ""),
        bundle=bundle,
        pod=config.get("pod", ""),
        auto_remove=(spec.get("annotations") or {}).get("io.podman.annotations.autoremove") == "TRUE",
        depends=tuple(config.get("Dependencies") or ())
        or tuple(config[key] for key in imported.SHARED if config.get(key)),
        volumes=tuple(Volume(name, Path(sources[dest]), dest) for name, dest in volumes.items()),
        elsewhere=tuple(each["dest"] for key in imported.ELSEWHERE for each in config.get(key) or ()),
        executing=len(state.get("newExecSessions") or ()),
        private_users="user" in namespaces or bool(linux.get("uidMappings")),
        host_ipc="ipc" not in namespaces,
        own_cgroup=own_cgroup,
        pid=int(state.get("pid") or 0),
        conmon=int(state.get("conmonPid") or 0),
        private_pids=namespaces.get("pid") == "",
        pausable=own_cgroup,
        created_by=tuple(config.get("CreateCommand") or ()),
        driver=bundle.parents[1].name.removesuffix("-containers"),
        upper=upper,
        lowers=lowers,
    )


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


def _log(bundle: Path, config: dict[str, Any]) -> Path | None:
    path = Path(config.get("logPath") or "")
    inside = path.parent == bundle and config.get("logDriver") in _LOG_DRIVERS
    return path if inside and path.is_file() and not path.is_symlink() else None
