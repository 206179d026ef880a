"""podman, through its own command: what a container is, its checkpoint, its restore.

Not through its API, which has checkpoint and restore too (podman-py has neither): a service would have to be started
for it first; it writes an archive into a temporary file of its own and sends that through the connection, and so on
the way back; its checkpoint cannot leave the volumes out, and its restore cannot name a runtime
(pkg/api/handlers/libpod/containers.go).
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from ocickpt import proc
from ocickpt.errors import CommandError, NotFoundError, UnsupportedError

PROGRAM = "podman"


@dataclass(frozen=True, slots=True)
class Volume:
    """A named volume of a container: its name, where it lies on the host, where the container sees it."""

    name: str
    source: Path
    destination: str


@dataclass(frozen=True, slots=True)
class Running:
    """A container that runs: what is needed to set it right after a restore."""

    id: str
    name: str
    runtime: str
    bundle: Path
    pid: int
    conmon: int


@dataclass(frozen=True, slots=True)
class Container:
    """What `podman container inspect` says of a container, as far as a checkpoint needs it."""

    id: str
    name: str
    created: str
    status: str
    started: str
    """When it was started last, as podman writes it; a restore is no start."""
    checkpointed: bool
    restored: bool
    """Whether it runs, or has run, from a checkpoint rather than from a start."""
    image_id: str
    image_name: str
    image_digest: str
    runtime: str
    runtime_path: str
    bundle: Path
    """The OCI bundle; CRIU's images go to ``checkpoint`` in it."""
    pod: str
    auto_remove: bool
    depends: tuple[str, ...]
    volumes: tuple[Volume, ...]
    elsewhere: tuple[str, ...]
    """Where it mounts overlays of directories, or images: what it changed there is in no checkpoint."""
    executing: int
    """How many sessions of ``podman exec`` it has."""
    private_users: bool
    host_ipc: bool
    """Whether its /dev/shm is the host's."""
    own_cgroup: bool
    pid: int
    """The host's pid of its first process; 0 when it does not run."""
    conmon: int
    """The pid of its conmon; 0 when it does not run."""
    private_pids: bool
    """Whether its processes die with the first of them."""
    pausable: bool
    """Whether it has a cgroup of its own, which can be frozen."""
    created_by: tuple[str, ...]
    """The command that made it, as podman remembers it."""
    driver: str
    """The storage driver."""
    upper: Path | None
    """The overlay's upper directory: what the container changed in its image. None under other drivers."""
    lowers: tuple[Path, ...]
    """The layers of the image below it, topmost first."""

    @property
    def running(self) -> Running:
        """What does not change while it runs."""
        return Running(self.id, self.name, self.runtime, self.bundle, self.pid, self.conmon)

    @property
    def shm(self) -> Path:
        """Where the container's /dev/shm is mounted, if it has one of its own."""
        return self.bundle / "shm"

    @property
    def graph_root(self) -> Path:
        """Where containers' storage is: ``GRAPHROOT/overlay-containers/ID/userdata`` is the bundle."""
        return self.bundle.parents[2]

    @property
    def image_path(self) -> Path:
        """Where podman has the runtime write CRIU's images."""
        return self.bundle / "checkpoint"


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
    return _container(_first(found))


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
    value = _first(found)
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
    value = _first(found) if found.returncode == 0 else {}
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


def runs_healthchecks() -> bool:
    """Whether podman has healthchecks run on this host: systemd does it (``disableHealthCheckSystemd`` in libpod)."""
    return Path("/run/systemd/system").is_dir() and os.environ.get("DISABLE_HC_SYSTEMD") != "true"


def resume_healthcheck(container_id: str) -> None:
    """Make the timer of a running container's healthcheck, as podman does when it starts one: its restore makes none.

    ``podman update --health-interval`` is no way: it makes a timer only for another interval than before, none while
    there is a startup healthcheck, and it splits a command's arguments at spaces. The unit has the name that
    podman stops and removes where it has put no other on record (``hcUnitName`` in libpod/healthcheck_linux.go).
    """
    found = _first(proc.run([PROGRAM, "container", "inspect", "--", container_id]))
    due = _due_healthcheck(found["Config"])
    if not due:
        return
    suffix, interval = due
    unit = found["Id"] + suffix
    if proc.run(["systemctl", "--quiet", "is-active", f"{found['Id']}*.timer"], check=False).returncode == 0:
        return
    proc.run(
        ["systemd-run", "--quiet", "--unit", unit,
         "--property=LogLevelMax=notice", "--property=StartLimitIntervalSec=0",
         f"--on-unit-inactive={max(1, interval // 1000)}us", "--timer-property=AccuracySec=1s",
         f"--setenv=PATH={os.environ.get('PATH', os.defpath)}", PROGRAM, "healthcheck", "run", found["Id"]]
    )  # fmt: skip
    # From then on the timer counts from the end of each run.
    proc.run(["systemctl", "start", f"{unit}.service"])


def _due_healthcheck(config: dict[str, Any]) -> tuple[str, int] | None:
    """What the timer's name ends in and its interval in ns; None where podman makes no timer.

    A startup healthcheck comes first, and podman changes to the other one once it succeeded. Whether it had
    succeeded before the checkpoint, no checkpoint tells.
    """
    health, startup = config.get("Healthcheck") or {}, config.get("StartupHealthCheck")
    if not health.get("Interval") or (health.get("Test") or [""])[0] in ("", "NONE"):
        return None
    if startup is None:
        return "", health["Interval"]
    return ("-startup", startup["Interval"]) if startup.get("Interval") else None


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
    if subject.runtime not in ("runc", "crun"):
        raise UnsupportedError(f"{what} runs under {subject.runtime!r}; only runc and crun can checkpoint")


def _first(found: proc.Result) -> dict[str, Any]:
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
