"""podman makes the container of a restore; its files come when the shim asks for them.

begun       the journal is written: what this restore will make
podman      podman is at work; the shim asks before the runtime restores, and when what it restored stands still
guarded     a lazy restore only: what brings the memory later is at work, too
running     podman has returned: the container runs, and is confined as it was
lazy        a lazy restore only: its memory follows (`outcome`)
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ocickpt import artifact, names, proc, processes, rendezvous
from ocickpt.artifact import parts
from ocickpt.engine import criu, podman
from ocickpt.engine.container import Running
from ocickpt.engine.files import libtar
from ocickpt.engine.podman.imported import Imported
from ocickpt.engine.podman.volumes import VolumeOptions
from ocickpt.errors import (
    CommandError,
    ExistsError,
    IntegrityError,
    OcickptError,
    StorageError,
)
from ocickpt.gate import confinement, host_access, verification
from ocickpt.lazy import attach
from ocickpt.lazy.helpers import Helpers
from ocickpt.model import Kind, Progress, Stage
from ocickpt.operations import channel, interrupts, launcher, recovery, workdir
from ocickpt.operations.journal import Journal, Record, Restore
from ocickpt.restoration import outcome, preflight
from ocickpt.restoration.options import Preparation, Restored, RestoreOptions
from ocickpt.restoration.sequence import Saved, Sequence, Target, Way
from ocickpt.store import Access, open_source
from ocickpt.store.reference import Reference

if TYPE_CHECKING:
    from ocickpt.rendezvous import Answer, Asked


def restore(
    reference: Reference, options: RestoreOptions, access: Access, progress: Progress, prepared: Preparation
) -> Restored:
    """Restore the artifact `reference`; when it fails, nothing of it is left on this host."""

    def mine(record: Record) -> bool:
        same = record.reference.partition("@")[0] == str(reference).partition("@")[0]
        return isinstance(record, Restore) and same and options.name in (None, record.name)

    finished = recovery.recover(progress, mine)
    with closing(open_source(reference, access)) as source:
        prepared.pool.submit(libtar.load)  # while the registry answers
        follow = prepared.helpers.result() if prepared.helpers else None

        def prepare(pinned: Reference) -> None:
            if follow:
                follow.prepare(attach.reading(pinned, access, prepared.facts.result()))

        found = artifact.open(source, reference, prepare)
        name = options.name or found.description.container.name
        for record in finished:
            # This very restore had been interrupted when all but saying so was done.
            if isinstance(record, Restore) and (record.name, record.reference) == (name, str(found.reference)):
                return Restored(record.container, name, record.reference, found.descriptor.digest)
        saved = Saved.read(found, source, progress)
        way = WithPodman(found.description.runtime.name, follow, progress, options, prepared)
        subject = Sequence(way, saved, prepared.pool).restore()
    return Restored(subject.id, name, str(found.reference), found.descriptor.digest)


class WithPodman(Way):
    """A restore that has a journal: whoever finds it can take it back, or end it."""

    def __init__(
        self, runtime: str, follow: Helpers | None, progress: Progress, options: RestoreOptions, prepared: Preparation
    ) -> None:
        super().__init__(runtime, follow, progress)
        self._options, self._prepared = options, prepared
        self._imported: Imported
        self._made: list[VolumeOptions]
        """Volumes that are to be made before podman makes the others."""
        self._journal: Journal[Restore]
        self._saved: Saved
        self._called: Asked | None = None
        """How the shim was called."""
        self._standing: Running | None = None
        """What stands still, and may run."""
        self._restored: Running | None = None
        """The same, once its runtime knows it."""

    @property
    def work(self) -> Path:
        """Beside podman's storage."""
        return self._prepared.work

    def check(self, saved: Saved) -> None:
        """Host, name, image, volumes, what it gets of this host, and space."""
        told, roots = saved.artifact.description, self._prepared.roots.result()
        for note in preflight.check_host(told, self._prepared.facts.result()):
            self.progress.note(note)
        self._saved = saved
        imported = verification.imported_config(saved.config, saved.spec, saved.rebuilder.extras(), told, roots)
        allow = host_access.allowed(saved.artifact.reference, self._options.allow)
        self._imported = host_access.without_refused(imported.publishing(self._options.publish), allow, self.progress)
        preflight.check_container(
            self._imported,
            self._options.name,
            roots,
            ignore_volumes=self._options.ignore_volumes,
            allow=allow,
            progress=self.progress,
        )
        self._made = [each for each in self._imported.made if not podman.volume_exists(each.name)]
        saved.rebuilder.check_space(roots.graph)
        if in_memory := [each.name for each in self._made if each.is_memory]:
            limit = self._imported.spec.linux.resources.memory.limit
            preflight.check_memory(saved.rebuilder.memory_for(in_memory), limit)

    @contextmanager
    def begun(self, saved: Saved) -> Iterator[None]:
        """Under a journal: an error, and a Ctrl-C, takes back what was made."""
        with interrupts.undisturbed():
            self._journal = Journal.begin(self._record(saved))
        try:
            self.without_helpers(self._prepared.facts.result())
            yield
            self._journal.step("running")
        except KeyboardInterrupt:
            with interrupts.undisturbed(), outcome.despite(self._journal, self.progress):
                if outcome.settle(self._journal, self.progress):
                    self.progress.note(f"container {self._journal.record.name!r} was restored already: it runs")
            raise
        except BaseException:
            with interrupts.undisturbed(), outcome.despite(self._journal, self.progress):
                failed = self._journal.record.step in ("podman", "guarded")
                outcome.take_back(self._journal, failed=failed)
            raise

    def _record(self, saved: Saved) -> Restore:
        """What this restore will make, so that it can be taken back."""
        imported, options, key = self._imported, self._options, self._prepared.key
        name, reference = options.name or imported.name, str(saved.artifact.reference)
        return Restore(
            key=key,
            container="" if options.name else imported.id,
            name=name,
            reference=reference,
            work=str(self.work),
            runtime=imported.runtime,
            volumes=() if options.ignore_volumes else tuple(imported.volumes),
            made_volumes=tuple(each.name for each in self._made),
            health_interval=imported.health_interval,
            created_by=("ocickpt", "restore", "--name", name, reference, f"# {key}"),
        )

    def run(self, sequence: Sequence) -> Running:
        """Have podman restore it; the container, which nobody knows yet to be confined."""
        workdir.make(self.work)
        installed = launcher.installed(self.runtime)
        environment = {} if installed else launcher.for_one_call(self.runtime, self.work)
        flags = self._prepare()
        journal, name = self._journal, self._journal.record.name
        with channel.opened(journal.record.key) as opened:
            command = podman.restore_command(self.runtime, self.work / outcome.IMPORT, flags, environment)
            journal.step("podman", podman_pid=command.pid, podman_start=processes.start_time(command.pid) or 0)
            self.progress.stage(Stage.RESTORING)
            command.go()
            if self.follow:
                self._start(self.follow)  # podman comes up meanwhile, and then the shim waits for it
            sequence.begin_gate()
            result = opened.serve(command, lambda message: self._answer(message, sequence))
        if result.returncode:
            raise _explain(result, name)
        if not self._restored:
            raise IntegrityError(f"container {name!r} was restored without anybody to look at it before it ran")
        if self.follow:
            self._prepared.on_running()
        return self._restored

    def _prepare(self) -> list[str]:
        """Fetch what podman will need, and write the archive that it imports; podman's options.

        Files and memory are not in it: the shim will have them put in place.
        """
        members = self._imported.members(self._journal.record.created_by)
        flags = _flags(self._options, self._saved.replayed)
        if "--tcp-established" not in flags:
            # CRIU refuses a checkpoint with connections then: there are none to protect.
            inventory = criu.without_network_lock(self._saved.rebuilder.file(parts.INVENTORY))
            self._saved.rebuilder.replace({parts.INVENTORY: inventory})
        self.progress.stage(Stage.FETCHING)
        rebuilder, work = self._saved.rebuilder, self.work
        rebuilder.expect(Kind.STATE, Kind.ROOTFS, Kind.VOLUME, *(() if self.follow else (Kind.MEMORY,)))
        members[f"checkpoint/{rendezvous.MARKER}"] = self._journal.record.key.encode()
        (work / "pages").mkdir()
        if not self.follow:
            rebuilder.pages(work / "pages")
        rebuilder.skeleton(work / outcome.IMPORT, members, work)
        for volume in self._made:
            volume.make(f"{names.LABEL_RESTORE}={self._journal.record.key}")
        return [*flags, "--ignore-volumes"]

    def _start(self, follow: Helpers) -> None:
        """Write what memory must be there first, and start the helpers, with images of their own."""
        work, rebuilder = self.work, self._saved.rebuilder
        rebuilder.pages(work / "pages", lazy=True)
        later, first = rebuilder.divided()
        self.progress.note(f"{first / 1e6:.1f} MB of memory are fetched first, {later / 1e6:.1f} MB follow")
        (work / "images").mkdir()
        rebuilder.images(work / "images")
        for pages in (work / "pages").iterdir():
            os.link(pages, work / "images" / pages.name)
        self._journal.step("guarded", guard_pid=follow.pid, guard_start=follow.started)
        follow.start(work, self._journal.record.reference, later, journal=self._journal.paths())

    def _answer(self, message: Asked, sequence: Sequence) -> Answer:
        """What the shim waits for."""
        if message["event"] == "restore":
            return self._make_ready(message, sequence)
        if message["event"] == "restored" and self._standing:
            sequence.settle(self._standing)
            self._restored = self._standing
            return {"ok": True}
        if message["event"] != "standing" or not self._called:
            return {"error": "this is a restore"}
        bundle, conmon = Path(self._called["bundle"]), self._called["conmon"]
        found = Running(message["container"], self._journal.record.name, self.runtime, bundle, message["pid"], conmon)
        sequence.verify(found)
        self._standing = found
        return {"ok": True}

    def _make_ready(self, message: Asked, sequence: Sequence) -> Answer:
        """The shim is about to call the runtime, and says where."""
        bundle = Path(message["bundle"])
        sequence.gate()
        try:
            spec = confinement.specification(bundle)
            image_path, usual = Path(message["image_path"]), message.get("criu_configuration", "")
            ready = sequence.ready(Target(bundle, spec, image_path, usual))
        except OSError as error:
            raise StorageError(f"the container's files cannot be put in place: {error}") from error
        if self.follow:
            self._prepared.pool.submit(attach.accompany, self.follow.pid, message["conmon"], bundle)
        self._called = message
        return {
            "ok": True,
            "arguments": list(ready.arguments),
            "environment": ready.environment,
            "hold": str(ready.hold),
            "cgroup": str(ready.cgroup or ""),
        }

    def fill(self, saved: Saved, target: Target) -> None:
        """All that podman was not given in the archive; /dev/shm it has unpacked already."""
        if not self._options.ignore_rootfs:
            saved.rebuilder.tree(Kind.ROOTFS, target.spec.root_in(target.bundle))
        if not self._options.ignore_volumes:
            host = {each.name for each in self._imported.made if each.is_of_host}
            for name, place in self._imported.volumes.items():
                if name in host:  # what is in it is there already, and not ours
                    continue
                saved.rebuilder.tree(Kind.VOLUME, Path(place), name)

    def place_images(self, saved: Saved, target: Target) -> None:
        """The memory, which was written beside it, and what the gate has changed since."""
        saved.rebuilder.replaced_images(target.image_path)
        for pages in (self.work / "pages").iterdir():
            pages.rename(target.image_path / pages.name)
        (target.image_path / rendezvous.MARKER).unlink()

    def let_go(self, container: Running) -> None:
        """Its healthcheck goes on, and its memory follows."""
        with interrupts.undisturbed():
            outcome.resume_healthcheck(container.id, self._imported.health_interval, self.progress)
            outcome.finish(self._journal, container, self.progress)


def _flags(options: RestoreOptions, replayed: Iterable[str]) -> list[str]:
    flags = ["--name", options.name] if options.name else []
    asked = [
        "--" + name.replace("_", "-")
        for name in ("tcp_established", "ignore_static_ip", "ignore_static_mac", "ignore_rootfs")
        if getattr(options, name)
    ]
    flags += dict.fromkeys((*replayed, *asked))
    for port in options.publish:
        flags += ["--publish", port]
    return flags


def _explain(result: proc.Result, name: str) -> OcickptError:
    error = result.failure("podman container restore")
    if "already allocated" in error.message or "address already in use" in error.message:
        return ExistsError(
            f"an address of container {name!r} is in use on this host: {error.message.splitlines()[-1]}",
            hint="--ignore-static-ip and --ignore-static-mac give it another one, -p other ports",
        )
    container = podman.container_or_none(name)
    reasons = criu.log_errors(container.bundle / "restore.log") if container else []
    return CommandError(f"CRIU cannot restore container {name!r}: {'; '.join(reasons)}") if reasons else error
