"""An artifact becomes the running container it was made from, or a copy of it.

begun       the journal is written: what this restore will make
podman      podman is at work; the shim asks before the runtime restores
guarded     a lazy restore only: what brings the memory later is at work, too
unverified  podman has returned: the container runs, nobody knows yet whether it is confined
running     it is confined as it was
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ocickpt import proc, processes, shim
from ocickpt.description import Description
from ocickpt.engine import criu, libpod, libtar, podman
from ocickpt.errors import (
    CommandError,
    ExistsError,
    IntegrityError,
    NotFoundError,
    OcickptError,
    PrerequisiteError,
    StorageError,
)
from ocickpt.flows import artifact, confine, images, lazy, made, operation, preflight, recover, remaps, setup
from ocickpt.flows import contents as parts
from ocickpt.flows.bundle import make_mount_points
from ocickpt.flows.helpers import Helpers
from ocickpt.flows.journal import RESTORE, Journal, Record
from ocickpt.flows.rebuild import Rebuilder
from ocickpt.flows.restore import Aside, Restored, RestoreOptions
from ocickpt.model import BlobSource, Kind, Progress, Stage, parse_json
from ocickpt.store import Access, open_source
from ocickpt.store.reference import Reference
from ocickpt.trust import process


def restore(
    reference: Reference, options: RestoreOptions, access: Access, progress: Progress, aside: Aside
) -> Restored:
    """Restore the artifact `reference`; when it fails, nothing of it is left on this host."""

    def mine(record: Record) -> bool:
        same = record.reference.partition("@")[0] == str(reference).partition("@")[0]
        return record.verb == RESTORE and same and options.name in (None, record.name)

    finished = recover.recover(progress, mine)
    with closing(open_source(reference, access)) as source:
        aside.pool.submit(libtar.load)  # while the registry answers
        descriptor, manifest = artifact.resolve(source, reference)
        if aside.helpers:
            pinned = reference.with_digest(descriptor.digest)
            aside.helpers.result().prepare(lazy.plan(pinned, access, aside.facts.result()))
        found = artifact.unchecked(source, reference, descriptor, manifest)
        name = options.name or found.description.container.name
        for record in finished:
            # This very restore had been interrupted when all but saying so was done.
            if record.verb == RESTORE and (record.name, record.reference) == (name, str(found.reference)):
                return Restored(record.container, name, record.reference, found.descriptor.digest)
        rebuilder, imported, verify = _check(found, source, options, progress, aside)
        with operation.undisturbed():
            journal = Journal.begin(_record(found, imported, options, aside))
        try:
            follow = _helpers(imported.runtime, aside, progress)
            subject = _Restore(found, rebuilder, imported, verify, options, journal, progress, aside, follow).run()
        except KeyboardInterrupt:
            with operation.undisturbed():
                if made.settle(journal, progress):
                    progress.note(f"container {name!r} was restored already: it runs")
            raise
        except BaseException:
            with operation.undisturbed():
                made.take_back(journal, failed=journal.record.step in ("podman", "guarded"))
            raise
        with operation.undisturbed():
            made.resume_healthcheck(subject.id, imported.health_interval, progress)
            made.finish(journal, subject)
    return Restored(subject.id, name, str(found.reference), found.descriptor.digest)


def _check(
    found: artifact.Artifact, source: BlobSource, options: RestoreOptions, progress: Progress, aside: Aside
) -> tuple[Rebuilder, libpod.Imported, Callable[[], None]]:
    """Find out whether it can be restored here, before anything is made; and what is to be verified before it runs."""
    told = found.description
    rebuilder = Rebuilder(artifact.load_index(source, found.manifest), source, progress)
    for note in preflight.check_host(told, aside.facts.result()):
        progress.note(note)
    roots = aside.roots.result()
    config, spec = images.saved(rebuilder)
    imported = images.imported(config, spec, told, roots)
    preflight.check_container(
        imported,
        options.name,
        roots,
        ignore_volumes=options.ignore_volumes,
        host_access=options.host_access,
        progress=progress,
    )
    rebuilder.check_space(roots.graph)
    return rebuilder, imported, partial(_verify, rebuilder, config, spec, told)


def _verify(rebuilder: Rebuilder, config: dict[str, Any], spec: dict[str, Any], told: Description) -> None:
    """What takes as long as podman takes to come up."""
    told.check()
    images.verify(rebuilder, config, spec, told)


def _record(found: artifact.Artifact, imported: libpod.Imported, options: RestoreOptions, aside: Aside) -> Record:
    """What this restore will make, so that it can be taken back."""
    name = options.name or imported.name
    return Record(
        RESTORE,
        aside.key,
        "" if options.name else imported.id,
        name,
        str(found.reference),
        work=str(aside.work),
        runtime=imported.runtime,
        volumes=() if options.ignore_volumes else tuple(imported.volumes),
        health_interval=imported.health_interval,
        created_by=("ocickpt", "restore", "--name", name, str(found.reference), f"# {aside.key}"),
    )


def _helpers(runtime: str, aside: Aside, progress: Progress) -> Helpers | None:
    """What will bring the memory later, if it is to; nothing where that cannot be, which is told."""
    if not aside.helpers:
        return None
    if trouble := lazy.unsupported(runtime, aside.facts.result()):
        progress.note(f"{trouble}: all memory is fetched first")
        aside.helpers.result().dismiss()
        return None
    return aside.helpers.result()


@dataclass(frozen=True)
class _Restore:
    """A restore whose journal is begun: podman makes the container, its files come when the shim asks for them."""

    found: artifact.Artifact
    rebuilder: Rebuilder
    imported: libpod.Imported
    verify: Callable[[], None]
    """Is called before anything runs; the images are read while podman comes up, which takes as long."""
    options: RestoreOptions
    journal: Journal
    progress: Progress
    aside: Aside
    follow: Helpers | None
    """What brings the memory later; without, it is all there when the container runs."""

    @property
    def work(self) -> Path:
        """The directory of this restore."""
        return Path(self.journal.record.work)

    def run(self) -> podman.Running:
        """The container, running, and confined as it was."""
        operation.make_directory(self.work)
        subject = self._podman(self._prepare())
        confine.complete(subject, images.mountpoints(self.rebuilder))
        _check_confined(subject, self.found)
        self.journal.step("running")
        return subject

    def _prepare(self) -> list[str]:
        """Fetch what podman or CRIU will need, and write the archive that podman imports; podman's options."""
        with_shim = setup.installed(self.imported.runtime)
        if self.follow and not with_shim:
            raise PrerequisiteError("a lazy restore needs the runtime shim", hint="`ocickpt setup` puts it in place")
        members = self.imported.members(self.journal.record.created_by)
        if not self.options.tcp_established:
            # CRIU refuses a checkpoint with connections then: there are none to protect.
            members[parts.INVENTORY] = criu.without_network_lock(self.rebuilder.file(parts.INVENTORY))
        self.progress.stage(Stage.FETCHING)
        return [*_flags(self.options), *(self._skeleton(members) if with_shim else self._whole(members))]

    def _skeleton(self, members: dict[str, bytes]) -> list[str]:
        """Write an archive without files and memory, which the shim will have put in place."""
        rebuilder, work = self.rebuilder, self.work
        rebuilder.expect(Kind.STATE, Kind.ROOTFS, Kind.VOLUME, *(() if self.follow else (Kind.MEMORY,)))
        members[f"checkpoint/{shim.MARKER}"] = self.journal.record.key.encode()
        (work / "pages").mkdir()
        if not self.follow:
            rebuilder.pages(work / "pages")
        rebuilder.skeleton(work / made.IMPORT, members, work)
        return ["--ignore-volumes"]

    def _whole(self, members: dict[str, bytes]) -> list[str]:
        """Write an archive as podman itself would; it will ask nobody before it runs what is in there."""
        self.verify()
        self.progress.note(
            "the runtime shim is not set up (`ocickpt setup`): podman unpacks an archive, which is slower"
        )
        rebuilder, options = self.rebuilder, self.options
        rebuilder.expect(Kind.STATE, Kind.MEMORY, Kind.ROOTFS, Kind.VOLUME)
        image = podman.image(self.imported.image_id)
        layers = image.layers if image else ()
        rebuilder.check_deletions(layers, "`ocickpt setup` makes do without")
        remaps.check_packed(rebuilder, self.imported, layers, "`ocickpt setup` makes do without")
        archive, with_rootfs, with_volumes = (
            self.work / made.IMPORT,
            not options.ignore_rootfs,
            not options.ignore_volumes,
        )
        rebuilder.whole(archive, members, self.work, rootfs=with_rootfs, volumes=with_volumes)
        return [] if with_volumes else ["--ignore-volumes"]

    def _start(self, follow: Helpers) -> None:
        """Write what memory must be there first, and start the helpers, with images of their own."""
        work = self.work
        self.rebuilder.pages(work / "pages", lazy=True)
        later, first = self.rebuilder.divided()
        self.progress.note(f"{first / 1e6:.1f} MB of memory are fetched first, {later / 1e6:.1f} MB follow")
        (work / "images").mkdir()
        self.rebuilder.images(work / "images")
        for pages in (work / "pages").iterdir():
            os.link(pages, work / "images" / pages.name)
        self.journal.step("guarded", guard_pid=follow.pid, guard_start=follow.started)
        follow.start(work, str(self.found.reference), later, journal=self.journal.paths())

    def _podman(self, flags: list[str]) -> podman.Running:
        """Have podman restore it; the container, which nobody knows yet to be confined."""
        journal, name = self.journal, self.journal.record.name
        told: dict[str, Any] = {}
        with operation.operation(journal.record.key) as op:
            command = podman.restore_command(self.imported.runtime, self.work / made.IMPORT, flags)
            journal.step("podman", podman_pid=command.pid, podman_start=processes.start_time(command.pid) or 0)
            self.progress.stage(Stage.RESTORING)
            command.go()
            if self.follow:
                self._start(self.follow)  # podman comes up meanwhile, and then the shim waits for it
            verified = self.aside.pool.submit(self.verify)
            result = op.serve(command, lambda message: self._answer(message, told, verified))
        if self.follow:
            self.follow.give_way()
        if result.returncode:
            raise _explain(result, name)
        verified.result()
        container_id = result.stdout.split()[-1] if result.stdout.split() else ""
        if told:
            subject = _running(container_id, name, self.imported, told)
        else:
            subject = podman.container(container_id or name).running
        journal.step("unverified", container=subject.id)
        return subject

    def _answer(self, message: dict[str, Any], told: dict[str, Any], verified: Future[None]) -> operation.Answer:
        """What the shim waits for, which is about to call the runtime and has `told` where."""
        if message.get("event") != "restore":
            return {"error": "this is a restore"}
        verified.result()
        bundle = Path(message["bundle"])
        try:
            self._fill(bundle, Path(message["image_path"]))
            usual = str(message.get("criu_configuration") or "")
            extra = lazy.arm(self.imported.runtime, bundle, self.work, usual) if self.follow else {}
        except OSError as error:
            raise StorageError(f"the container's files cannot be put in place: {error}") from error
        if self.follow:
            self.follow.wait()
            self.aside.pool.submit(lazy.accompany, self.follow.pid, message["conmon"], bundle)
        told.update(message)
        return {"ok": True, **extra}

    def _fill(self, bundle: Path, image_path: Path) -> None:
        """Bring memory and files to where the runtime will look for them."""
        spec = parse_json((bundle / "config.json").read_bytes(), "bundle's config.json")
        if not self.options.ignore_rootfs:
            self.rebuilder.tree(Kind.ROOTFS, Path(spec["root"]["path"]))
        if not self.options.ignore_volumes:
            for volume, place in self.imported.volumes.items():
                self.rebuilder.tree(Kind.VOLUME, Path(place), volume)
        remaps.check_placed(self.rebuilder, spec, bundle)
        make_mount_points(spec, bundle)
        for pages in (self.work / "pages").iterdir():
            pages.rename(image_path / pages.name)
        (image_path / shim.MARKER).unlink()


def _running(container_id: str, name: str, imported: libpod.Imported, told: dict[str, Any]) -> podman.Running:
    """The container, from what the shim `told`: asking podman again would take longer than all that is left to do."""
    try:
        pid = int(Path(told["pid_file"]).read_text("ascii"))
    except (OSError, ValueError) as error:
        raise NotFoundError(f"container {name!r} has ended already", hint="`podman logs` may tell why") from error
    return podman.Running(container_id, name, imported.runtime, Path(told["bundle"]), pid, told["conmon"])


def _flags(options: RestoreOptions) -> list[str]:
    flags = ["--name", options.name] if options.name else []
    for name in ("tcp_established", "ignore_static_ip", "ignore_static_mac", "ignore_rootfs"):
        if getattr(options, name):
            flags.append("--" + name.replace("_", "-"))
    for port in options.publish:
        flags += ["--publish", port]
    return flags


def _check_confined(subject: podman.Running, found: artifact.Artifact) -> None:
    """A container that runs with less confinement than it was checkpointed with does not run on."""
    problem = process.unconfined(subject.pid, found.description.security)
    if problem:
        raise IntegrityError(
            f"the restored container is not confined as it was ({problem}); it was removed",
            hint="`ocickpt doctor` tells whether this host's criu supports its security module",
        )


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
