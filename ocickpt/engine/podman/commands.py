"""podman, through its own command: what a container is, its checkpoint, its restore.

Not through its API, which has checkpoint and restore too (podman-py has neither): a service would have to be started
for it first; it writes an archive into a temporary file of its own and sends that through the connection, and so on
the way back; its checkpoint cannot leave the volumes out, and its restore cannot name a runtime
(pkg/api/handlers/libpod/containers.go).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TypeVar

import msgspec

from ocickpt import proc, structs
from ocickpt.engine.container import Container, Volume
from ocickpt.errors import CommandError, IntegrityError, NotFoundError

PROGRAM = "podman"
T = TypeVar("T", bound=msgspec.Struct)


class Printed(msgspec.Struct, frozen=True, rename="pascal"):
    """An object that an `inspect` of podman prints (podman, libpod/define/container_inspect.go)."""


class _Layers(Printed, frozen=True):
    upper_dir: str = ""
    lower_dir: str = ""


class _Driver(Printed, frozen=True):
    name: str = ""
    data: _Layers = _Layers()


class _State(Printed, frozen=True):
    status: str
    started_at: str = ""
    checkpointed: bool = False
    restored: bool = False
    restored_at: str = ""
    pid: int = 0
    conmon_pid: int = 0


class _Host(Printed, frozen=True):
    auto_remove: bool = False
    userns_mode: str = ""
    ipc_mode: str = ""
    pid_mode: str = ""
    cgroups: str = ""


class _Mount(Printed, frozen=True):
    destination: str
    type: str = ""
    name: str = ""
    source: str = ""
    options: tuple[str, ...] = ()


class _Settings(Printed, frozen=True):
    create_command: tuple[str, ...] = ()


class _Joined(Printed, frozen=True):
    gateway: str = ""
    ipv6_gateway: str = msgspec.field(default="", name="IPv6Gateway")


class _Networks(Printed, frozen=True):
    networks: dict[str, _Joined] = {}


class _Inspected(Printed, frozen=True):
    """What `podman container inspect` prints, as far as it is read."""

    id: str
    name: str
    image: str
    static_dir: str
    runtime: str = msgspec.field(name="OCIRuntime")
    state: _State
    host_config: _Host
    config: _Settings
    created: str = ""
    image_name: str = ""
    image_digest: str = ""
    pod: str = ""
    dependencies: tuple[str, ...] = ()
    exec_ids: tuple[str, ...] = msgspec.field(default=(), name="ExecIDs")
    mounts: tuple[_Mount, ...] = ()
    graph_driver: _Driver = _Driver()
    network_settings: _Networks = _Networks()


class _Image(Printed, frozen=True):
    id: str
    digest: str = ""
    repo_tags: tuple[str, ...] = ()
    graph_driver: _Driver = _Driver()


class _Volume(Printed, frozen=True):
    name: str
    created_at: str
    driver: str = ""
    options: dict[str, str] = {}
    labels: dict[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Image:
    """An image of this host's storage."""

    id: str
    digest: str
    names: tuple[str, ...]
    layers: tuple[Path, ...]
    """The directories of its layers; none under other storage drivers than overlay."""


def container(name: str) -> Container:
    """The container of that name or id; NotFoundError when there is none."""
    return _container(inspected(name, _Inspected))


def inspected(name: str, kind: type[T]) -> T:
    """What podman says of the container of that name or id, as far as `kind` reads it; errors as of `container`."""
    found = proc.run([PROGRAM, "container", "inspect", "--", name], check=False)
    if found.returncode:
        if "no such container" in found.stderr.lower():
            raise NotFoundError(f"there is no container {name!r}", hint="`podman ps --all` lists them")
        raise found.failure(f"podman container inspect {name!r}")
    return _first(found, kind)


def existing(names: Sequence[str]) -> list[str]:
    """Those of `names` that are the name or the whole id of a container."""
    found = proc.run([PROGRAM, "container", "inspect", "--format", "{{.ID}} {{.Name}}", "--", *names], check=False)
    if found.returncode and "no such container" not in found.stderr.lower():
        raise found.failure()
    taken = set(found.stdout.split())
    return [name for name in names if name in taken]


def container_or_none(name: str) -> Container | None:
    """The container of that name or id, if there is one."""
    try:
        return container(name)
    except NotFoundError:
        return None


def image(name: str) -> Image | None:
    """The image of that id or name, if this host has it."""
    found = proc.run([PROGRAM, "image", "inspect", "--", name], check=False)
    if found.returncode:
        return None
    value = _first(found, _Image)
    data = value.graph_driver.data
    layers = tuple(Path(layer) for layer in (data.upper_dir, *data.lower_dir.split(":")) if layer)
    return Image(value.id, value.digest, value.repo_tags, layers)


def volume_exists(name: str) -> bool:
    """Whether there is a volume of exactly that name."""
    return proc.run([PROGRAM, "volume", "exists", "--", name], check=False).returncode == 0


def volume_created(name: str) -> float | None:
    """When the volume of exactly that name was made, in seconds since the epoch; None without one."""
    value = _volume(name)
    return datetime.fromisoformat(value.created_at).timestamp() if value else None


def volume_labels(name: str) -> dict[str, str]:
    """The labels of the volume of exactly that name; none without one."""
    value = _volume(name)
    return (value.labels or {}) if value else {}


def _volume(name: str) -> _Volume | None:
    found = proc.run([PROGRAM, "volume", "inspect", "--", name], check=False)
    value = _first(found, _Volume) if found.returncode == 0 else None
    return value if value and value.name == name else None


def volume_options(name: str) -> tuple[str, dict[str, str]]:
    """The driver of a volume, and what it was made with. CommandError."""
    found = _first(proc.run([PROGRAM, "volume", "inspect", "--", name]), _Volume)
    return found.driver, found.options


def secret_exists(name: str) -> bool:
    """Whether there is a secret of that name or id."""
    return proc.run([PROGRAM, "secret", "exists", "--", name], check=False).returncode == 0


def network_exists(name: str) -> bool:
    """Whether there is a network of that name."""
    return proc.run([PROGRAM, "network", "exists", "--", name], check=False).returncode == 0


@dataclass(frozen=True, slots=True)
class Roots:
    """Where podman keeps things on this host (see `roots`)."""

    graph: Path
    """Containers' storage."""
    volumes: Path
    """``VOLUMES/NAME/_data`` is a volume."""
    images: tuple[Path, ...]
    """Storage that has images, that of `graph` first; there may be more."""


def program_path() -> str:
    """The absolute path of the podman that is used."""
    import shutil

    return shutil.which(PROGRAM) or PROGRAM


def checkpoint_command(subject: Container, export: Path, flags: Sequence[str]) -> proc.Background:
    """`podman container checkpoint` into the uncompressed archive `export`, a regular file.

    Never a FIFO: podman opens its export read-write, so it would not notice that the reader died.
    """
    argv = [PROGRAM, "container", "checkpoint", "--compress", "none", "--export", str(export), *flags, subject.id]
    return proc.Background(argv)


def restore_command(
    runtime: str, archive: Path, flags: Sequence[str], environment: Mapping[str, str]
) -> proc.Background:
    """`podman container restore --import` of `archive` with the runtime of that name, and more `environment`."""
    argv = [PROGRAM, "--runtime", runtime, "container", "restore", "--import", str(archive), *flags]
    return proc.Background(argv, environment=environment)


def restore_in_place(subject: Container, flags: Sequence[str], environment: Mapping[str, str]) -> None:
    """`podman container restore` of a container that was checkpointed on this host, with the `flags` of its dump, and
    an `environment` beside our own, which its runtime gets too. CommandError."""
    try:
        proc.run([PROGRAM, "container", "restore", *flags, subject.id], env=os.environ | environment)
    except CommandError:
        remove_cgroup(subject.id)
        raise


def remove_container(name: str) -> None:
    """Remove a container, running or not, but none of its volumes."""
    proc.run([PROGRAM, "container", "rm", "--force", "--time", "0", "--ignore", "--", name])


def remove_cgroup(container_id: str) -> None:
    """Remove the cgroup of a container that is gone: crun leaves that of one it could not restore."""
    for depth in ("*", "*/*"):
        for cgroup in Path("/sys/fs/cgroup").glob(f"{depth}/libpod-{container_id}*"):
            with suppress(OSError):  # not empty: not ours to remove
                cgroup.rmdir()


def remove_volume(name: str) -> None:
    """Remove a volume that no container uses, if there is one of that very name: podman takes beginnings too."""
    if volume_exists(name):
        proc.run([PROGRAM, "volume", "rm", "--", name])


def pull(name: str) -> bool:
    """Try to pull an image by name, quietly."""
    return proc.run([PROGRAM, "pull", "--quiet", "--", name], check=False).returncode == 0


def _first(found: proc.Result, kind: type[T]) -> T:
    """The first of the objects that an `inspect` printed; CommandError for one of another form."""
    try:
        return structs.read(json.loads(found.stdout)[0], kind, f"answer of podman {found.argv[1]} inspect")
    except (ValueError, LookupError) as error:
        raise CommandError(f"podman {found.argv[1]} inspect printed no JSON list") from error
    except IntegrityError as error:
        raise CommandError(error.message, hint="ocickpt is tried with podman 5") from error


def _container(value: _Inspected) -> Container:
    state, host, driver = value.state, value.host_config, value.graph_driver
    upper, lower = driver.data.upper_dir, driver.data.lower_dir
    volumes = {  # one may be mounted twice
        mount.name: Volume(mount.name, Path(mount.source), mount.destination)
        for mount in value.mounts
        if mount.type == "volume" and mount.name
    }
    elsewhere = [
        mount.destination
        for mount in value.mounts
        if mount.type == "image" or any(each.startswith("lowerdir=") for each in mount.options)
    ]
    return Container(
        id=value.id,
        name=value.name,
        created=value.created,
        status=state.status,
        started=state.started_at,
        checkpointed=state.checkpointed,
        restored=state.restored,
        image_id=value.image.removeprefix("sha256:"),
        image_name=value.image_name,
        image_digest=value.image_digest,
        runtime=Path(value.runtime).name,
        runtime_path=value.runtime,
        bundle=Path(value.static_dir),
        pod=value.pod,
        auto_remove=host.auto_remove,
        depends=value.dependencies,
        volumes=tuple(volumes.values()),
        elsewhere=tuple(elsewhere),
        executing=len(value.exec_ids),
        pid=state.pid,
        conmon=state.conmon_pid,
        driver=driver.name,
        upper=Path(upper) if driver.name == "overlay" and upper else None,
        lowers=tuple(Path(layer) for layer in lower.split(":") if layer),
        private_users=host.userns_mode not in ("", "host"),
        host_ipc=host.ipc_mode == "host",
        own_cgroup=host.cgroups != "disabled",
        private_pids=host.pid_mode in ("", "private"),
        pausable=host.cgroups != "disabled",
        created_by=value.config.create_command,
        restored_at=state.restored_at,
        servers=tuple(
            address
            for each in value.network_settings.networks.values()
            for address in (each.gateway, each.ipv6_gateway)
            if address
        ),
    )
