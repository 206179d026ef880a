"""A container is restored instead of started, because whoever creates it asks for it in an annotation.

    podman run --annotation io.ocickpt.restore=REPOSITORY@sha256:… IMAGE

The engine creates a container as always. In the runtime's `create` its processes are restored, and stand still;
`start` lets them run. What the container is (mounts, devices, namespaces, limits) comes from the new bundle, what
runs in it from the checkpoint (`bundles`). Only the runtime's own interface is used, so it is the same under
any engine, and under none. podman is never asked about the container: it holds its lock.

It happens once per container, and `rendezvous.RESTORED` in the bundle says that it has: started again, it starts as
usual.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from ocickpt import artifact, config, libraries, names, oci, proc, rendezvous
from ocickpt.artifact.origin import volumes
from ocickpt.engine import criu, host, podman
from ocickpt.engine.container import Running
from ocickpt.engine.criu.configuration import ENVIRONMENT
from ocickpt.engine.files import openat2
from ocickpt.engine.podman import database, storage
from ocickpt.engine.runtime import command_line
from ocickpt.errors import CommandError, IncompatibleError, IntegrityError, OcickptError, StorageError
from ocickpt.gate.expected import mounts_of
from ocickpt.lazy import attach
from ocickpt.lazy.helpers import Helpers
from ocickpt.log import Logged, refuse
from ocickpt.model import Kind, Progress
from ocickpt.operations import interrupts, workdir
from ocickpt.restoration import bundles, policy, preflight
from ocickpt.restoration.held import Held, RefusedError
from ocickpt.restoration.sequence import Saved, Sequence, Target, Way
from ocickpt.store import Access, CachedSource, open_source

_CONFIG = "bundle's config.json"
_KEPT = ("--pid-file", "--console-socket")
_SECONDS = 200.0
"""For all that is fetched before the container is there: after 240 s podman gives up (ContainerCreateTimeout)."""
_SHM = "/dev/shm"  # noqa: S108 - the container's


@dataclass(frozen=True, slots=True)
class _Request:
    """A runtime's `create`."""

    call: list[str]
    """The runtime and its options before the subcommand."""
    rest: list[str]
    """What comes after the subcommand."""
    id: str
    bundle: Path

    @property
    def runtime(self) -> str:
        return Path(self.call[0]).name

    @property
    def work(self) -> Path:
        return rendezvous.bundle_work_directory(self.bundle, self.id)

    @property
    def restored(self) -> Path:
        return self.bundle / rendezvous.RESTORED

    @property
    def waiting(self) -> Path:
        """The file that says that the container stands still until its `start`."""
        return rendezvous.CREATED / self.id

    def run(self, *arguments: str) -> proc.Result:
        """Call the runtime; CommandError when it fails."""
        return proc.run([*self.call, *arguments])

    def write_down(self) -> None:
        """That its processes are restored, before anything can run: rather not restored than restored twice."""
        rendezvous.CREATED.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.waiting.write_text(str(self.bundle), "utf-8")
        with self.restored.open("w", encoding="ascii") as file:
            file.write(self.id)
            file.flush()
            os.fsync(file.fileno())


def create(call: list[str], rest: list[str]) -> int:
    """Do what ``RUNTIME create …`` does, with processes from a checkpoint; the exit status."""
    request = _Request(call, rest, command_line.container(rest, "create"), _bundle(rest))
    try:
        spec = json.loads((request.bundle / "config.json").read_bytes())
        wanted = oci.annotations_of(spec, _CONFIG).get(names.ANNOTATION_RESTORE, "")
    except (OSError, ValueError, IntegrityError):
        wanted = ""  # the runtime will say what is wrong with it
    if not wanted or not request.id or was_restored(request.bundle, request.id):
        command_line.become(call[0], [*call[1:], "create", *rest])
    try:
        with interrupts.undisturbed():
            _create(request, oci.read_bundle(spec, _CONFIG), wanted)
    except Exception as error:  # noqa: BLE001 - nobody sees a traceback of what an engine calls
        return refuse(_ours(error), command_line.option(call[1:], "--log"))
    return 0


def _ours(error: Exception) -> OcickptError:
    """Whatever went wrong, as what can be told."""
    if ours := error if isinstance(error, OcickptError) else libraries.unusable(error):
        return ours
    if isinstance(error, OSError):
        return StorageError(f"{error.filename or 'a file'}: {error.strerror}")
    return OcickptError(f"this is a bug: {libraries.reason(error)}")


def _create(request: _Request, spec: oci.Bundle, wanted: str) -> None:
    host_config = config.load()
    reference = policy.pinned(wanted, host_config)
    helpers = _helpers(request, spec)
    with _work(request, helpers) as undo, closing(open_source(reference, Access(within=_SECONDS))) as source:
        progress = Logged(f"container {request.id[:12]}")
        found = artifact.open(source, reference)
        way = OnCreate(request, spec, helpers, source=source, undo=undo, progress=progress)
        way.begin(found)
        Sequence(way, Saved.read(found, source, progress)).restore()


@contextlib.contextmanager
def _work(request: _Request, helpers: Helpers | None) -> Iterator[contextlib.ExitStack]:
    """The directory in which all this is done, and what is to be undone when it fails; both go with the block.

    Once the container is told to the guard, the directory is the guard's.
    """
    workdir.make(request.work)
    with contextlib.ExitStack() as undo:
        undo.callback(workdir.remove, request.work)
        if helpers:
            undo.callback(attach.stop_all, (helpers.pid, helpers.started), request.work, str(request.work))
            undo.callback(helpers.dismiss)
        undo.callback(request.restored.unlink, missing_ok=True)
        undo.callback(request.waiting.unlink, missing_ok=True)
        undo.callback(podman.remove_cgroup, request.id)
        undo.callback(proc.run, [*request.call, "delete", "--force", request.id], check=False)
        yield undo
        undo.pop_all()
    if not (request.work / rendezvous.CONTAINER).exists():
        workdir.remove(request.work)


def _empty(place: Path, progress: Progress) -> None:
    """Remove all that is in a directory, which may be a mount itself; what is in the way is told, for another error
    is the one to raise."""
    try:
        handle = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            openat2.empty(handle, ".")
        finally:
            os.close(handle)
    except OSError as error:
        progress.note(f"{place} has files of the checkpoint, which cannot be removed: {error.strerror}")


def _helpers(request: _Request, spec: oci.Bundle) -> Helpers | None:
    """What will bring the container's memory after it, if that is wanted."""
    if spec.annotations.get(names.ANNOTATION_RESTORE_LAZY) != "true":
        return None
    return Helpers(str(request.work))


class OnCreate(Way):
    """A container that an engine has the runtime create; all but its processes is its own."""

    def __init__(
        self,
        request: _Request,
        spec: oci.Bundle,
        helpers: Helpers | None,
        *,
        source: CachedSource,
        undo: contextlib.ExitStack,
        progress: Progress,
    ) -> None:
        super().__init__(request.runtime, helpers, progress)
        self.spec: oci.Bundle = spec
        self._request, self._source, self._undo = request, source, undo
        self._here = host.facts()
        self._held: Held

    @property
    def work(self) -> Path:
        """In the bundle."""
        return self._request.work

    def begin(self, found: artifact.Artifact) -> None:
        """Refuse a checkpoint that another runtime has made, with IncompatibleError; else the helpers may read."""
        made_under = found.description.runtime.name
        if made_under != self.runtime:
            raise IncompatibleError(f"the checkpoint was made under {made_under[:100]}, this is {self.runtime}")
        if self.follow:
            self.follow.prepare(attach.reading(found.reference, Access(), self._here))

    def check(self, saved: Saved) -> None:
        """Host, bundle, image and space; without helpers all blobs are fetched now."""
        found = saved.artifact
        for note in preflight.check_host(found.description, self._here):
            self.progress.note(note)
        bundles.check(self.spec, saved.spec, self.runtime)
        image, before = storage.image_of(self._request.bundle), found.description.image
        if image not in ("", before.id):
            raise IncompatibleError(
                f"the container is made from image {image[:12]}, the checkpoint's from {before.id[:12]} ({before.name})"
            )
        self._saved = saved
        saved.rebuilder.check_space(self.work)
        self.without_helpers(self._here)

    def fill(self, saved: Saved, target: Target) -> None:
        """Root filesystem, volumes and /dev/shm, which podman has made; a volume is emptied again after an error."""
        saved.rebuilder.tree(Kind.ROOTFS, target.spec.root_in(target.bundle))
        host = {each.name for each in saved.rebuilder.extras().volumes if each.is_of_host}
        for volume in (each for each in volumes(saved.config.config) if each.name not in host):
            place = bundles.volume_place(target.spec, volume.destination)
            if database.is_of_host(self._request.bundle, place):
                raise IncompatibleError(
                    f"the checkpoint brings a volume for {volume.destination}, where the container has a directory,"
                    " device or share of its host",
                    hint="`podman volume create` without options makes one that can be filled",
                )
            self._undo.callback(_empty, place, self.progress)
            saved.rebuilder.tree(Kind.VOLUME, place, volume.name)
        shm = mounts_of(target.spec).get(_SHM)
        if shm and shm.source.startswith("/"):
            (self.work / "shm").mkdir()
            saved.rebuilder.shm(Path(shm.source), self.work / "shm")

    def place_images(self, saved: Saved, target: Target) -> None:
        """Images and memory; the helpers begin."""
        saved.rebuilder.images(target.image_path)
        saved.rebuilder.pages(target.image_path, lazy=bool(self.follow))
        if self.follow:
            kill = [*self._request.call, "kill", self._request.id, "KILL"]
            reference, later = str(saved.artifact.reference), saved.rebuilder.divided()[0]
            self.follow.start(self.work, reference, later, kill=kill)

    def run(self, sequence: Sequence) -> Running:
        """Have the runtime restore; what it restored stands still until its `start`."""
        request, images = self._request, self.work / "images"
        sequence.gate()
        manifest = self._saved.artifact.manifest
        if not self.follow:
            self._source.fetch((manifest.config, *manifest.layers))
        images.mkdir()
        usual = os.environ.get(ENVIRONMENT, "")
        ready = sequence.ready(Target(request.bundle, self.spec, images, usual))
        request.write_down()
        paths = ["--image-path", str(images), "--work-path", str(self.work)]
        command = [*request.call, "restore", "--detach", "--bundle", str(request.bundle), *paths]
        command += [*self._options(), *ready.arguments, request.id]
        restored: list[Running] = []

        def look(first: int) -> None:
            restored.append(Running(request.id, request.id, self.runtime, request.bundle, first, os.getppid()))
            sequence.verify(restored[0])

        held = self._held = Held(ready.hold, ready.cgroup, look, lambda: sequence.settle(restored[0]))
        self._undo.callback(held.leave)
        try:
            # With our own descriptors: they become the container's.
            status = held.call(command, os.environ | ready.environment)
        except RefusedError as error:
            raise IntegrityError(str(error)) from error
        if status:
            reasons = criu.log_errors(self.work / "restore.log")
            raise CommandError(f"CRIU cannot restore the checkpoint: {'; '.join(reasons) or 'it said nothing'}")
        if not held.frozen:
            request.run("pause", request.id)
        return restored[0]

    def _options(self) -> list[str]:
        spec, options = self.spec, list(self._saved.replayed)
        if host.lsm() == "selinux" and (label := spec.process.selinux_label):
            options += ["--lsm-profile", f"selinux:{label}"]
            if context := spec.linux.mount_label:
                options += ["--lsm-mount-context", context]
        for name in _KEPT:
            if value := command_line.option(self._request.rest, name, "create"):
                options += [name, value]
        return options

    def let_go(self, container: Running) -> None:
        """Its memory follows; it stands still until its `start`, whoever dies."""
        self._held.leave()
        if helpers := self.follow:
            attach.let_go(self.work, container, helpers.pid, helpers.started)
            if trouble := attach.trouble(self.work, alive=helpers.is_alive()):
                raise CommandError(f"the container's memory cannot be completed: {trouble}")


def was_restored(bundle: Path, container: str) -> bool:
    """Whether the container of that bundle had been restored when it was created: later it starts as usual."""
    try:
        return (bundle / rendezvous.RESTORED).read_text("ascii") == container
    except (OSError, UnicodeDecodeError):
        return False


def _bundle(rest: list[str]) -> Path:
    return Path(command_line.option(rest, "--bundle", "create") or ".").absolute()
