"""A container as an engine has it: what a checkpoint needs to know of one, and what a restore gets back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


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
    restored_at: str = ""
    """When it was restored last, as podman writes it."""
    servers: tuple[str, ...] = ()
    """The addresses at which its networks answer for names."""

    @property
    def merged(self) -> Path | None:
        """Where its overlay is mounted while it runs: ``LAYER/merged`` beside ``LAYER/diff`` (containers/storage)."""
        return self.upper.parent / "merged" if self.upper else None

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
