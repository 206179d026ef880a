"""How a checkpoint becomes a running container: one sequence, whoever makes the container.

    resolve   the reference is an artifact of ours, whose parts can be read       (`Saved`)
    check     it can run on this host, and may                                    (`Way.check`)
    gate      what CRIU would be given is what such a container may be            (`gate.verification`)
    fill      files and memory are where the runtime will look for them
    arm       what brings the rest of the memory is ready, where that follows
    run       the runtime restores, and all it restores stands still              (`Way.run`)
    verify    what it left undone is done, and the kernel asked what is in force  (`Sequence.verify`)
    settle    what podman and CRIU leave out is given back                        (`Sequence.settle`)
    let go    it runs, and is the caller's from now on                            (`Way.let_go`)

There are two ways: `with_podman` has podman make the container, `on_create` finds one that is being created.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, Self

from msgspec.structs import replace

from ocickpt import oci, rendezvous
from ocickpt.artifact import Artifact, extras, load_index, parts
from ocickpt.artifact.rebuild import Rebuilder
from ocickpt.engine import bundle, cgroups, criu, freezer
from ocickpt.engine.container import Running
from ocickpt.engine.criu import standstill
from ocickpt.engine.host import Host
from ocickpt.engine.podman import config as libpod
from ocickpt.engine.podman import etc
from ocickpt.engine.runtime import table
from ocickpt.engine.runtime.base import Additions
from ocickpt.errors import NotFoundError
from ocickpt.gate import confinement, places, verification
from ocickpt.gate.extras import give_back
from ocickpt.lazy import attach
from ocickpt.lazy.helpers import Helpers
from ocickpt.model import BlobSource, Progress
from ocickpt.restoration.bundles import make_mount_points

_CONFIGURATION = "criu.conf"


@dataclass(frozen=True)
class Saved:
    """A checkpoint that was resolved: what it says of itself, and what reads the rest. None of it is believed yet."""

    artifact: Artifact
    rebuilder: Rebuilder
    config: libpod.Record
    """The engine's configuration of the container."""
    spec: oci.Saved
    """The OCI specification it ran with."""

    @cached_property
    def replayed(self) -> tuple[str, ...]:
        """What the runtime has to be called with for connections and locks to come back.

        The description says what the dump was made with; of an archive that podman has made only the images tell.
        """
        made, names = self.artifact.description.options, self.rebuilder.small_files()
        locks = criu.holds_locks(self.rebuilder.file(parts.LOCKS)) if parts.LOCKS in names else False
        connected = any(parts.CONNECTION.fullmatch(name) for name in names)
        return replace(
            made, tcp_established=made.tcp_established or connected, file_locks=made.file_locks or locks
        ).replayed

    @classmethod
    def read(cls, found: Artifact, source: BlobSource, progress: Progress) -> Self:
        """The checkpoint `found`, whose blobs are in `source`; IntegrityError, UnsupportedError."""
        rebuilder = Rebuilder(load_index(source, found.manifest), source, progress)
        return cls(found, rebuilder, *verification.saved(rebuilder))


@dataclass(frozen=True)
class Target:
    """A container that the runtime is about to restore."""

    bundle: Path
    spec: oci.Bundle
    """What stands in the bundle."""
    image_path: Path
    """Where the runtime will look for CRIU's images."""
    criu_configuration: str
    """The file that CRIU_CONFIG_FILE names for it; empty without one."""


class Ready(NamedTuple):
    """All that a runtime needs is in place."""

    arguments: tuple[str, ...]
    """To add behind its subcommand."""
    environment: dict[str, str]
    """To add to its environment."""
    hold: Path
    """The directory by which what CRIU restores is held (`engine.criu.standstill`)."""
    cgroup: Path | None
    """Where it is frozen; None where there is no such cgroup."""


class Way(ABC):
    """What differs by who makes the container. `follow` brings its memory later; without, it is all there first."""

    def __init__(self, runtime: str, follow: Helpers | None, progress: Progress) -> None:
        self.runtime = runtime
        self.follow = follow
        self.progress = progress

    spec: oci.Bundle | None = None
    """The specification of the container that it is restored in, where that is not the checkpoint's own."""

    @property
    @abstractmethod
    def work(self) -> Path:
        """The directory of this restore."""

    @abstractmethod
    def check(self, saved: Saved) -> None:
        """Find out whether it can be restored here, before anything is made."""

    @contextmanager
    def begun(self, saved: Saved) -> Iterator[None]:  # noqa: ARG002 - one way needs it
        """Within, what is made is taken back after an error."""
        yield

    @abstractmethod
    def fill(self, saved: Saved, target: Target) -> None:
        """Write all files that the container has: nothing is written into its filesystems after this."""

    @abstractmethod
    def place_images(self, saved: Saved, target: Target) -> None:
        """Bring CRIU's images, and the memory that must be there first, into the target's image path."""

    @abstractmethod
    def run(self, sequence: Sequence) -> Running:
        """Have the runtime restore: `sequence` makes all ready for it before, verifies what it restored while that
        stands still, and settles it."""

    @abstractmethod
    def let_go(self, container: Running) -> None:
        """It is as it should be."""

    def without_helpers(self, here: Host) -> None:
        """Do without helpers where this host's runtime cannot restore lazily; that is told."""
        if self.follow and (trouble := attach.unsupported(self.runtime, here)):
            self.progress.note(f"{trouble}: all memory is fetched first")
            self.follow.dismiss()
            self.follow = None


class Sequence:
    """One restore. The gate's work is done in `pool`, where there is one, while the container comes up."""

    def __init__(self, way: Way, saved: Saved, pool: Executor | None = None) -> None:
        self._way, self._saved, self._pool = way, saved, pool
        self._filters: dict[int, int] = {}
        """How many seccomp filters each thread has to have."""
        self._extras = extras.NONE
        self._frozen = False
        """Whether what was restored stands still until the runtime has ended."""

    def restore(self) -> Running:
        """The container, running; when that fails, nothing of it is left."""
        self._way.check(self._saved)
        with self._way.begun(self._saved):
            container = self._way.run(self)
        self._way.let_go(container)
        return container

    @staticmethod
    def _confine_exec(container: Running) -> None:
        """As `confinement.confine_exec`; one that has ended meanwhile has not failed, and nothing starts in it."""
        try:
            confinement.confine_exec(container)
        except NotFoundError:
            if freezer.tree(container.pid):
                raise

    def begin_gate(self) -> None:
        """Begin with the gate's work, if there is anybody to do it meanwhile."""
        if self._pool:
            _ = self._gate

    @cached_property
    def _gate(self) -> Future[None]:
        if self._pool:
            return self._pool.submit(self._hold)
        done: Future[None] = Future()
        self._hold()
        done.set_result(None)
        return done

    def _hold(self) -> None:
        instead = verification.verify(
            self._saved.rebuilder,
            self._saved.config,
            self._saved.spec,
            self._saved.artifact.description,
            self._way.spec,
        )
        self._saved.rebuilder.replace(instead)
        self._extras = self._saved.rebuilder.extras()
        self._filters = verification.filters(self._saved.rebuilder)

    def gate(self) -> None:
        """Return when nothing is wrong with what CRIU would be given. IntegrityError, UnsupportedError."""
        self._gate.result()

    def ready(self, target: Target) -> Ready:
        """Make everything ready for the runtime."""
        self.gate()
        bundle.resolve_bind_sources(target.bundle)  # before the checkpoint has any symlink of its own on this host
        self._way.fill(self._saved, target)
        # Only now it is seen what lies where: a symlink that comes later would lead CRIU elsewhere.
        places.check_placed(self._saved.rebuilder, target.spec, target.bundle)
        make_mount_points(target.spec, target.bundle)
        self._way.place_images(self._saved, target)
        more, hold = Additions(), self._way.work / rendezvous.HOLD
        if self._way.follow:
            more = attach.arm(self._way.runtime, target.bundle, self._way.work)
            self._way.follow.wait()
        options = (*standstill.make(hold), *more.criu)
        if "--tcp-established" in self._saved.replayed:
            options += table.RUNTIMES[self._way.runtime].connected(target.spec).criu
        environment = criu.configure(self._way.work / _CONFIGURATION, target.criu_configuration, options)
        cgroup = cgroups.place_of(target.spec.linux.cgroups_path)
        self._frozen = cgroup is not None
        return Ready(more.arguments, environment, hold, cgroup)

    def _given_back(self) -> extras.Extras:
        """What neither podman nor CRIU has saved. Files of a container that is being created podman writes later."""
        if self._way.spec is None:
            return self._extras
        for path in (each.path for each in self._extras.files if each.path != etc.HOSTNAME):
            self._way.progress.note(f"its changes to {path} are not given back: the new container has its own")
        return replace(self._extras, files=())

    def verify(self, container: Running) -> None:
        """Hold what was restored, and stands still, against what it may be. IntegrityError."""
        confinement.verify(container, verification.mountpoints(self._saved.rebuilder), self._filters)
        if not self._frozen:
            self._give_back(container)

    def settle(self, container: Running) -> None:
        """Do what takes a runtime that knows the container, and has set its limits."""
        if self._frozen:
            self._give_back(container)
        self._confine_exec(container)

    def _give_back(self, container: Running) -> None:
        was, spec = self._saved.artifact.description.container, self._saved.spec
        names = frozenset({was.name, was.id[:12], spec.hostname})
        for each in give_back(container, self._given_back(), names):
            self._way.progress.note(each)
