"""podman, through its own command: what a container is, its checkpoint, its restore.

Not through its API, which has checkpoint and restore too (podman-py has neither): a service would have to be started
for it first; it writes an archive into a temporary file of its own and sends that through the connection, and so on
the way back; its checkpoint cannot leave the volumes out, and its restore cannot name a runtime
(pkg/api/handlers/libpod/containers.go).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from ocickpt import proc
from ocickpt.engine.container import Container, Volume
from ocickpt.engine.runtime import table
from ocickpt.errors import CommandError, NotFoundError, UnsupportedError

PROGRAM = "podman"


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
    found = proc.run([PROGRAM, "container", "inspect", "--", name], check=False)
    if found.returncode:
        if "no such container" in found.stderr.lower():
            raise NotFoundError(f"there is no container {name!r}", hint="`podman ps --all` lists them")
        raise found.failure(f"podman container inspect {name!r}")
    return _container(first(found))


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
    value = first(found)
    data = (value.get("GraphDriver") or {}).get("Data") or {}
    layers = [data.get("UpperDir") or "", *(data.get("LowerDir") or "").split(":")]
    return Image(
        value["Id"],
        value.get("Digest", ""),
        tuple(value.get("RepoTags") or ()),
        tuple(Path(layer) for layer in layers if layer),
    )


def volume_exists(name: str) -> bool:
    """Whether there is a volume of exactly that name."""
    return proc.run([PROGRAM, "volume", "exists", "--", name], check=False).returncode == 0


def volume_created(name: str) -> float | None:
    """When the volume of exactly that name was made, in seconds since the epoch; None without one."""
    found = proc.run([PROGRAM, "volume", "inspect", "--", name], check=False)
    value = first(found) if found.returncode == 0 else {}
    return datetime.fromisoformat(value["CreatedAt"]).timestamp() if value.get("Name") == name else None


def secret_exists(name: str) -> bool:
    """Whether there is a secret of that name or id."""
    return proc.run([PROGRAM, "secret", "exists", "--", name], check=False).returncode == 0


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


def restore_command(runtime: str, archive: Path, flags: Sequence[str]) -> proc.Background:
    """`podman container restore --import` of `archive` with the runtime of that name."""
    argv = [PROGRAM, "--runtime", runtime, "container", "restore", "--import", str(archive), *flags]
    return proc.Background(argv)


def restore_in_place(subject: Container) -> None:
    """`podman container restore` of a container that was checkpointed on this host."""
    proc.run([PROGRAM, "container", "restore", subject.id])


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
    """Remove a volume that no container uses."""
    proc.run([PROGRAM, "volume", "rm", "--", name])


def pull(name: str) -> bool:
    """Try to pull an image by name, quietly."""
    return proc.run([PROGRAM, "pull", "--quiet", "--", name], check=False).returncode == 0


def check_supported(subject: Container) -> None:
    """UnsupportedError with one sentence for what podman itself cannot checkpoint."""
    what = f"container {subject.name!r}"
    if subject.pod:
        raise UnsupportedError(f"{what} is part of a pod, and podman exports no checkpoint of those")
    if subject.depends:
        raise UnsupportedError(
            f"{what} shares namespaces with another container, and podman exports no checkpoint of those"
        )
    if subject.private_users:
        raise UnsupportedError(f"{what} has a user namespace of its own (--userns), which podman cannot restore")
    if subject.elsewhere:
        raise UnsupportedError(
            f"{what} has overlay or image volumes, which no checkpoint holds: {', '.join(subject.elsewhere)}"
        )
    if subject.host_ipc:
        raise UnsupportedError(f"{what} has the /dev/shm of its host (--ipc=host), which cannot be restored")
    if not subject.own_cgroup:
        raise UnsupportedError(f"{what} has no cgroup of its own (--cgroups=disabled), so nothing can freeze just it")
    if subject.runtime not in table.NAMES:
        raise UnsupportedError(f"{what} runs under {subject.runtime!r}; only {table.LISTED} can checkpoint")


def first(found: proc.Result) -> dict[str, Any]:
    """The first of the objects that an `inspect` printed; CommandError where it printed none."""
    try:
        value = json.loads(found.stdout)[0]
    except (ValueError, IndexError, KeyError) as error:
        raise CommandError(f"podman {found.argv[1]} inspect printed no JSON list") from error
    if not isinstance(value, dict):
        raise CommandError(f"podman {found.argv[1]} inspect printed no JSON object")
    return value


def _container(value: dict[str, Any]) -> Container:
    state, host = value["State"], value["HostConfig"]
    driver = value.get("GraphDriver") or {}
    data = driver.get("Data") or {}
    upper, lower = data.get("UpperDir"), data.get("LowerDir") or ""
    volumes = [
        Volume(mount["Name"], Path(mount["Source"]), mount["Destination"])
        for mount in value.get("Mounts") or ()
        if mount.get("Type") == "volume" and mount.get("Name")
    ]
    elsewhere = [
        mount["Destination"]
        for mount in value.get("Mounts") or ()
        if mount.get("Type") == "image" or any(each.startswith("lowerdir=") for each in mount.get("Options") or ())
    ]
    return Container(
        id=value["Id"],
        name=value["Name"],
        created=value.get("Created", ""),
        status=state["Status"],
        started=state.get("StartedAt", ""),
        checkpointed=bool(state.get("Checkpointed")),
        restored=bool(state.get("Restored")),
        image_id=value["Image"].removeprefix("sha256:"),
        image_name=value.get("ImageName", ""),
        image_digest=value.get("ImageDigest", ""),
        runtime=Path(value["OCIRuntime"]).name,
        runtime_path=value["OCIRuntime"],
        bundle=Path(value["StaticDir"]),
        pod=value.get("Pod", ""),
        auto_remove=bool(host.get("AutoRemove")),
        depends=tuple(value.get("Dependencies") or ()),
        volumes=tuple(volumes),
        elsewhere=tuple(elsewhere),
        executing=len(value.get("ExecIDs") or ()),
        pid=int(state.get("Pid") or 0),
        conmon=int(state.get("ConmonPid") or 0),
        driver=driver.get("Name", ""),
        upper=Path(upper) if driver.get("Name") == "overlay" and upper else None,
        lowers=tuple(Path(layer) for layer in lower.split(":") if layer),
        private_users=host.get("UsernsMode", "") not in ("", "host"),
        host_ipc=host.get("IpcMode") == "host",
        own_cgroup=host.get("Cgroups") != "disabled",
        private_pids=host.get("PidMode", "") in ("", "private"),
        pausable=host.get("Cgroups", "") != "disabled",
        created_by=tuple(value["Config"].get("CreateCommand") or ()),
    )
