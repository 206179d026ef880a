"""Where two processes of ocickpt meet: each path, marker and message that they share, in one place.

    flow    an `ocickpt checkpoint` or `restore`, with podman below it
    shim    what the launcher hands a call of the runtime over to, below podman
    guard   what lives with a container whose memory follows; the page server below it
    hook    what the runtime or the engine runs at a moment of a container's life

Standard library only, and little of it: shim and guard are in every container's way.
"""

from __future__ import annotations

from pathlib import Path

TYPE_CHECKING = False  # `typing` takes as long to load as all else of the shim
if TYPE_CHECKING:
    from typing import Literal, NotRequired, TypedDict

    class Asked(TypedDict):
        """What the shim asks the flow; which members there are says `event`."""

        event: Literal["checkpoint", "captured", "restore", "standing", "restored"]
        image_path: NotRequired[str]
        """checkpoint, restore: where the runtime writes or reads CRIU's images."""
        resume: NotRequired[list[str]]
        """checkpoint: the command that thaws the container."""
        error: NotRequired[str]
        """captured: what went wrong; empty when all is safe."""
        hint: NotRequired[str]
        bundle: NotRequired[str]
        """restore: the container's bundle."""
        conmon: NotRequired[int]
        """restore: the pid of who called the shim."""
        criu_configuration: NotRequired[str]
        """restore: the value of CRIU_CONFIG_FILE."""
        container: NotRequired[str]
        """standing: the container's id."""
        pid: NotRequired[int]
        """standing: its first process; none of them has run an instruction yet."""

    class Answer(TypedDict, total=False):
        """What the flow answers; with neither `ok` nor `error` it is gone."""

        ok: bool
        error: str
        """The runtime must not go on."""
        aside: str
        """checkpoint: the directory for pages and trees; without, the runtime just dumps."""
        trees: list[list[str]]
        """checkpoint: [source, target] of each tree to capture."""
        kill: bool
        """checkpoint: whether the container is killed where it stands, once all is safe."""
        pid: int
        """checkpoint: its first process."""
        arguments: list[str]
        """restore: what to add to the runtime's arguments."""
        environment: dict[str, str]
        """checkpoint, restore: what to add to its environment."""
        hold: str
        """restore: the directory by which what CRIU restores is held (`engine.criu.standstill`)."""
        cgroup: str
        """restore: the cgroup in which it is frozen; empty where there is none."""

    class Reading(TypedDict):
        """The first line to guard and page server: which memory to read, and how."""

        reference: str
        """Of the checkpoint, with its digest."""
        authfile: str
        tls_verify: bool | None
        patience: float
        """Seconds that a silent registry is asked again."""
        wide: bool
        """Whether CRIU's page server protocol has wide fields."""

    class Guarded(TypedDict):
        """The second line: there is a restore, whose container is to be guarded."""

        work: str
        """Its directory; CRIU's images are in ``images`` in it."""
        journal: list[str]
        """The files of its journal, if it has one."""
        starter: tuple[int, int]
        """Who restores: pid and start time."""
        kill: list[str]
        """The command that kills the container; without, podman does."""


PACKAGE = Path(__file__).parent
"""Where a process of ours is started from."""

RUN = Path("/run/ocickpt")
OPERATIONS = RUN / "op"
"""Holds the socket of each flow that waits for a shim, by the operation's key."""
CREATED = RUN / "created"
"""Holds a file for each container that was restored instead of created, and does not run yet."""
LAZY = RUN / "lazy"
"""Holds the state of each lazy restore (`lazy.states`)."""

_STORAGE = "ocickpt"

EXPORT = "export.tar"
"""podman's own export, in the work directory of a checkpoint: by it the shim knows that a flow called podman."""
CAPTURED = "captured"
"""In the work directory of a checkpoint: pages and trees are whole."""
MARKER = "ocickpt-operation"
"""Among CRIU's images in the archive of a restore: the operation's key."""
HOLD = "hold"
"""In the work directory of a restore: that by which what CRIU restores is held (`engine.criu.standstill`)."""
REFUSED = "refused"
"""In the work directory of a restore: the runtime was kept from restoring."""

RESTORED = "ocickpt-restored"
"""In a bundle: of which container's processes it was restored when it was created."""
TAKEN = "ocickpt-taken"
"""In a bundle: which dump in it was packaged."""
HOOK = "ocickpt-hook"
"""The program of our OCI hooks."""

CONTAINER, LINK, COMPLETE, FAILED = "container", "link", "complete", "failed"
"""In the work directory of a lazy restore; see `lazy.guarding`."""
SOCKET, LOG = "lazy-pages.socket", "lazy-pages.log"
"""Of CRIU's lazy-pages daemon, in the same place."""


def work_directory(graph_root: Path, key: str) -> Path:
    """The directory of an operation: beside podman's storage, so that pages move by rename."""
    return graph_root / _STORAGE / key


def is_export_of(word: bytes, container: str) -> bool:
    """Whether an argument of podman's names the export of a flow's checkpoint of `container`."""
    return word.endswith(f"/{_STORAGE}/{container}/{EXPORT}".encode())


def bundle_work_directory(bundle: Path, container: str) -> Path:
    """The directory of a restore instead of a start, for which there may be no storage of podman's."""
    return bundle / _STORAGE / container
