"""A container is restored instead of started, because whoever creates it asks for it in an annotation.

    podman run --annotation io.ocickpt.restore=REPOSITORY@sha256:… IMAGE

The engine creates a container as always. In the runtime's `create` its processes are restored, and stand still;
`start` lets them run. What the container is (mounts, devices, namespaces, limits) comes from the new bundle, what
runs in it from the checkpoint (`bundle.py`). Only the runtime's own interface is used, so it is the same under
any engine, and under none. podman is never asked about the container: it holds its lock.

It happens once per container, and `RESTORED` in the bundle says that it has: started again, it starts as usual.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ocickpt import config, guard, libraries, names, orphans, proc, runtimes, shim
from ocickpt.engine import criu, host, openat2, podman, storage
from ocickpt.errors import CommandError, IncompatibleError, IntegrityError, OcickptError, StorageError
from ocickpt.flows import artifact, bundle, confine, images, lazy, operation, policy, preflight, remaps
from ocickpt.flows.describe import volumes
from ocickpt.flows.helpers import Helpers
from ocickpt.flows.rebuild import Rebuilder
from ocickpt.flows.tell import Logged, refuse, say
from ocickpt.model import Kind, parse_json
from ocickpt.store import Access, open_source
from ocickpt.trust import process

RESTORED = "ocickpt-restored"
"""The file in the bundle that says of which container's processes it had been restored."""

_WORK = "ocickpt"
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
        return self.bundle / _WORK / self.id

    @property
    def restored(self) -> Path:
        return self.bundle / RESTORED

    @property
    def waiting(self) -> Path:
        """The file that says that the container stands still until its `start`."""
        return shim.CREATED / self.id

    def run(self, *arguments: str) -> proc.Result:
        """Call the runtime; CommandError when it fails."""
        return proc.run([*self.call, *arguments])


def create(call: list[str], rest: list[str]) -> int:
    """Do what ``RUNTIME create …`` does, with processes from a checkpoint; the exit status."""
    request = _Request(call, rest, runtimes.container(rest, "create"), _bundle(rest))
    try:
        spec = json.loads((request.bundle / "config.json").read_bytes())
        wanted = str((spec.get("annotations") or {}).get(names.ANNOTATION_RESTORE) or "")
    except (OSError, ValueError, AttributeError):
        wanted = ""  # the runtime will say what is wrong with it
    if not wanted or not request.id or was_restored(request.bundle, request.id):
        shim.become(call[0], [*call[1:], "create", *rest])
    try:
        with operation.undisturbed():
            _create(request, spec, wanted)
    except Exception as error:  # noqa: BLE001 - nobody sees a traceback of what an engine calls
        return refuse(_ours(error), runtimes.option(call[1:], "--log"))
    return 0


def _ours(error: Exception) -> OcickptError:
    """Whatever went wrong, as what can be told."""
    if ours := error if isinstance(error, OcickptError) else libraries.unusable(error):
        return ours
    if isinstance(error, OSError):
        return StorageError(f"{error.filename or 'a file'}: {error.strerror}")
    return OcickptError(f"this is a bug: {libraries.reason(error)}")


def _create(request: _Request, spec: dict[str, Any], wanted: str) -> None:
    host_config = config.load()
    reference = policy.pinned(wanted, host_config)
    helpers = _helpers(request, spec)
    access = Access(within=_SECONDS)
    with _work(request, helpers) as undo, closing(open_source(reference, access)) as source:
        found = artifact.load(source, reference)
        if found.description.runtime.name != request.runtime:
            raise IncompatibleError(
                f"the checkpoint was made under {found.description.runtime.name[:100]}, this is {request.runtime}"
            )
        here = host.facts()
        if helpers:
            helpers.prepare(lazy.plan(found.reference, Access(), here))
        progress = Logged(f"container {request.id[:12]}")
        for note in preflight.check_host(found.description, here):
            progress.note(note)
        rebuilder = Rebuilder(artifact.load_index(source, found.manifest), source, progress)
        configuration, saved = images.saved(rebuilder)
        bundle.check(spec, saved, request.runtime)
        images.verify(rebuilder, configuration, saved, found.description, spec)
        image, before = storage.image_of(request.bundle), found.description.image
        if image not in ("", before.id):
            raise IncompatibleError(
                f"the container is made from image {image[:12]}, the checkpoint's from {before.id[:12]} ({before.name})"
            )
        rebuilder.check_space(request.work)
        if helpers and (trouble := lazy.unsupported(request.runtime, here)):
            say(f"container {request.id[:12]}: {trouble}: all memory is fetched first", quiet=True)
            helpers.dismiss()
            helpers = None
        if not helpers:
            source.fetch((found.manifest.config, *found.manifest.layers))
        _fill(request, rebuilder, spec, configuration, undo, lazily=bool(helpers))
        if helpers:
            kill = [*request.call, "kill", request.id, "KILL"]
            helpers.start(request.work, str(found.reference), rebuilder.divided()[0], kill=kill)
        _restore(request, rebuilder, found, spec, helpers)


@contextlib.contextmanager
def _work(request: _Request, helpers: Helpers | None) -> Iterator[contextlib.ExitStack]:
    """The directory in which all this is done, and what is to be undone when it fails; both go with the block.

    Once the container is told to the guard, the directory is the guard's.
    """
    operation.make_directory(request.work)
    with contextlib.ExitStack() as undo:
        undo.callback(operation.remove_directory, request.work)
        if helpers:
            undo.callback(lazy.stop_all, (helpers.pid, helpers.started), request.work, str(request.work))
            undo.callback(helpers.dismiss)
        undo.callback(request.restored.unlink, missing_ok=True)
        undo.callback(request.waiting.unlink, missing_ok=True)
        undo.callback(podman.remove_cgroup, request.id)
        undo.callback(proc.run, [*request.call, "delete", "--force", request.id], check=False)
        yield undo
        undo.pop_all()
    if not (request.work / guard.CONTAINER).exists():
        operation.remove_directory(request.work)


def _empty(place: Path) -> None:
    handle = os.open(place.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        openat2.empty(handle, place.name)
    finally:
        os.close(handle)


def _helpers(request: _Request, spec: dict[str, Any]) -> Helpers | None:
    """What will bring the container's memory after it, if that is wanted."""
    if (spec.get("annotations") or {}).get(names.ANNOTATION_RESTORE_LAZY) != "true":
        return None
    return Helpers(str(request.work))


def _fill(
    request: _Request,
    rebuilder: Rebuilder,
    spec: dict[str, Any],
    configuration: dict[str, Any],
    undo: contextlib.ExitStack,
    *,
    lazily: bool,
) -> None:
    """Bring memory and files to where the runtime will look for them."""
    root = request.bundle / (spec.get("root") or {}).get("path", "rootfs")
    rebuilder.tree(Kind.ROOTFS, root)
    places = bundle.mounts(spec)
    for volume in volumes(configuration):
        place = bundle.volume_place(spec, volume.destination)
        undo.callback(_empty, place)
        rebuilder.tree(Kind.VOLUME, place, volume.name)
    shm = places.get(_SHM, {})
    for directory in ("shm", "images"):
        (request.work / directory).mkdir()
    if shm.get("source", "").startswith("/"):
        rebuilder.shm(Path(shm["source"]), request.work / "shm")
    remaps.check_placed(rebuilder, spec, request.bundle)
    bundle.make_mount_points(spec, request.bundle)
    rebuilder.images(request.work / "images")
    rebuilder.pages(request.work / "images", lazy=lazily)


def _restore(
    request: _Request,
    rebuilder: Rebuilder,
    found: artifact.Artifact,
    spec: dict[str, Any],
    helpers: Helpers | None,
) -> None:
    """Restore, and confine what stands still then."""
    shim.CREATED.mkdir(mode=0o700, parents=True, exist_ok=True)
    request.waiting.write_text(str(request.bundle), "utf-8")
    with request.restored.open("w", encoding="ascii") as file:
        # Written down before anything can run: rather not restored than restored twice.
        file.write(request.id)
        file.flush()
        os.fsync(file.fileno())
    options = ["--tcp-established"] if found.description.options.tcp_established else []
    options += ["--file-locks"] if found.description.options.file_locks else []
    if host.lsm() == "selinux" and (label := (spec.get("process") or {}).get("selinuxLabel")):
        options += ["--lsm-profile", f"selinux:{label}"]
        options += ["--lsm-mount-context", context] if (context := (spec.get("linux") or {}).get("mountLabel")) else []
    environment = dict(os.environ)
    for name in _KEPT:
        options += [name, value] if (value := runtimes.option(request.rest, name, "create")) else []
    if helpers:
        usual = environment.get(lazy.CRIU_CONFIGURATION, "")
        armed = lazy.arm(request.runtime, request.bundle, request.work, usual)
        options += armed.get("arguments", [])
        environment |= armed.get("environment", {})
        helpers.wait()
    paths = ["--image-path", str(request.work / "images"), "--work-path", str(request.work)]
    command = [*request.call, "restore", "--detach", "--bundle", str(request.bundle), *paths, *options, request.id]
    # With our own descriptors: they become the container's.
    status = orphans.call(command, environment)
    if status:
        reasons = criu.log_errors(request.work / "restore.log")
        raise CommandError(f"CRIU cannot restore the checkpoint: {'; '.join(reasons) or 'it said nothing'}")
    request.run("pause", request.id)
    state = parse_json(request.run("state", request.id).stdout.encode(), "state of the container")
    running = podman.Running(request.id, request.id, request.runtime, request.bundle, int(state["pid"]), os.getppid())
    confine.complete(running, images.mountpoints(rebuilder))
    problem = process.unconfined(running.pid, found.description.security)
    if problem:
        raise IntegrityError(f"the restored container is not confined as it was ({problem}); it was removed")
    if helpers:
        lazy.let_go(request.work, running, helpers.pid, helpers.started)
        if trouble := lazy.trouble(request.work, alive=helpers.is_alive()):
            raise CommandError(f"the container's memory cannot be completed: {trouble}")


def was_restored(bundle: Path, container: str) -> bool:
    """Whether the container of that bundle had been restored when it was created: later it starts as usual."""
    try:
        return (bundle / RESTORED).read_text("ascii") == container
    except (OSError, UnicodeDecodeError):
        return False


def _bundle(rest: list[str]) -> Path:
    return Path(runtimes.option(rest, "--bundle", "create") or ".").absolute()
