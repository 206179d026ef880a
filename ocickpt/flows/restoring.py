"""An artifact becomes the running container it was made from, or a copy of it.

begun       the journal is written: what this restore will make
guarded     a lazy restore only: what brings the memory later is there, and waits
podman      podman is at work; the shim asks before the runtime restores
unverified  podman has returned: the container runs, nobody knows yet whether it is confined
running     it is confined as it was
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from concurrent.futures import wait
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from ocickpt import config, proc, shim
from ocickpt.engine import criu, crun, libpod, podman
from ocickpt.errors import (
    CommandError,
    ExistsError,
    IntegrityError,
    NotFoundError,
    OcickptError,
    PrerequisiteError,
    StorageError,
)
from ocickpt.flows import artifact, confine, images, lazy, made, operation, preflight, recover, setup
from ocickpt.flows import contents as parts
from ocickpt.flows.bundle import make_mount_points
from ocickpt.flows.journal import RESTORE, Journal, Record
from ocickpt.flows.rebuild import Rebuilder
from ocickpt.flows.restore import Aside, Restored, RestoreOptions
from ocickpt.model import Kind, Progress, parse_json
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
        found = artifact.load(source, reference)
        told = found.description
        name = options.name or told.container.name
        known = preflight.ask(aside.pool, told.image.id, name, *(() if options.name else (told.container.id,)))
        index = artifact.load_index(source, found.manifest)
        here = aside.facts.result()
        preflight.check_host(told, here)
        rebuilder = Rebuilder(index, source, progress)
        roots = aside.roots.result()
        imported = _import(rebuilder, found, roots)
        for record in finished:
            # This very restore had been interrupted when all but saying so was done.
            if record.verb == RESTORE and (record.name, record.reference) == (name, str(found.reference)):
                return Restored(record.container, name, record.reference, found.descriptor.digest)
        preflight.check_container(
            imported,
            options.name,
            known,
            ignore_volumes=options.ignore_volumes,
            host_access=options.host_access,
            progress=progress,
        )
        rebuilder.check_space(roots.graph)
        key = secrets.token_hex(16)
        record = Record(
            RESTORE,
            key,
            "" if options.name else imported.id,
            name,
            str(found.reference),
            work=str(roots.graph / "ocickpt" / key),
            runtime=imported.runtime,
            volumes=() if options.ignore_volumes else tuple(imported.volumes),
            health_interval=imported.health_interval,
            created_by=("ocickpt", "restore", "--name", name, str(found.reference), f"# {key}"),
        )
        with operation.undisturbed():
            journal = Journal.begin(record)
        try:
            follow = None
            if options.lazy and not (trouble := lazy.unsupported(imported.runtime, here)):
                follow = _helpers(journal, lazy.plan(found, access, here.criu, config.load().patience))
            elif options.lazy:
                progress.note(f"{trouble}: all memory is fetched first")
            work = operation.make_directory(Path(journal.record.work))
            with _early_filter(imported, aside, work) as early:
                subject = _restore(rebuilder, imported, options, journal, progress, aside=aside, follow=follow)
                confine.complete(subject, images.mountpoints(rebuilder), work, early)
            _check_confined(subject, found)
            journal.step("running")
        except KeyboardInterrupt:
            with operation.undisturbed():
                if made.settle(journal, progress):
                    progress.note(f"container {name!r} was restored already: it runs")
            raise
        except BaseException:
            with operation.undisturbed():
                made.take_back(journal, failed=journal.record.step == "podman")
            raise
        with operation.undisturbed():
            made.resume_healthcheck(subject.id, imported.health_interval, progress)
            made.end(journal, subject)
    return Restored(subject.id, name, str(found.reference), found.descriptor.digest)


def _import(rebuilder: Rebuilder, found: artifact.Artifact, roots: podman.Roots) -> libpod.Imported:
    """The container's configuration, once it says the same as the description everybody sees."""
    told = found.description
    configuration, spec = images.saved(rebuilder, told)
    imported = libpod.import_config(configuration, spec, roots.graph, roots.volumes)
    if (imported.id, imported.name, imported.image_id, imported.runtime) != (
        told.container.id,
        told.container.name,
        told.image.id,
        told.runtime.name,
    ):
        raise IntegrityError("the checkpoint holds another container than its description shows")
    return imported


@contextmanager
def _early_filter(imported: libpod.Imported, aside: Aside, work: Path) -> Iterator[confine.EarlyFilter | None]:
    """crun's filter, compiled while podman is at work; that has ended when the block has."""
    if imported.runtime != "crun" or not crun.profile_of(imported.spec):
        yield None
        return
    early = confine.EarlyFilter.begin(aside.pool, imported.spec, work)
    try:
        yield early
    finally:
        wait([early.compiled])


def _restore(
    rebuilder: Rebuilder,
    imported: libpod.Imported,
    options: RestoreOptions,
    journal: Journal,
    progress: Progress,
    *,
    aside: Aside,
    follow: lazy.Helpers | None,
) -> podman.Running:
    work = Path(journal.record.work)
    flags = _prepare(rebuilder, imported, options, journal, progress, follow=follow)
    told: dict[str, Any] = {}

    def answer(message: dict[str, Any]) -> operation.Answer:
        if message.get("event") != "restore":
            return {"error": "this is a restore"}
        try:
            _fill(rebuilder, imported, options, message, work)
            extra = lazy.arm(imported.runtime, Path(message["bundle"]), work) if follow else {}
        except OSError as error:
            raise StorageError(f"the container's files cannot be put in place: {error}") from error
        if follow:
            follow.wait()
            aside.pool.submit(lazy.accompany, follow.pid, message["conmon"], Path(message["bundle"]))
        told.update(message)
        return {"ok": True, **extra}

    with operation.operation(journal.record.key) as op:
        command = podman.restore_command(imported.runtime, work / made.IMPORT, flags, work)
        journal.step("podman", podman_pid=command.pid, podman_start=proc.start_time(command.pid) or 0)
        progress.stage("restoring")
        command.go()
        result = op.serve(command, answer)
    if follow:
        follow.give_way()
    name = options.name or imported.name
    if result.returncode:
        raise _explain(result, name)
    container_id = result.stdout.split()[-1] if result.stdout.split() else ""
    subject = _running(container_id, name, imported, told) if told else podman.container(container_id or name).running
    if follow:
        lazy.disarm(subject.bundle, work)
    journal.step("unverified", container=subject.id)
    return subject


def _prepare(
    rebuilder: Rebuilder,
    imported: libpod.Imported,
    options: RestoreOptions,
    journal: Journal,
    progress: Progress,
    *,
    follow: lazy.Helpers | None,
) -> list[str]:
    """Fetch what podman or CRIU will need, and write the archive that podman imports; podman's options."""
    work = Path(journal.record.work)
    archive = work / made.IMPORT
    with_shim = setup.installed(imported.runtime)
    if follow and not with_shim:
        raise PrerequisiteError("a lazy restore needs the runtime shim", hint="`ocickpt setup` puts it in place")
    members = imported.members(journal.record.created_by)
    if not options.tcp_established:
        # CRIU refuses a checkpoint with connections then: there are none to protect.
        members[parts.INVENTORY] = criu.without_network_lock(rebuilder.file(parts.INVENTORY))
    flags = _flags(options)
    progress.stage("fetching")
    if with_shim:
        rebuilder.expect(Kind.STATE, Kind.ROOTFS, Kind.VOLUME, *(() if follow else (Kind.MEMORY,)))
        members[f"checkpoint/{shim.MARKER}"] = journal.record.key.encode()
        (work / "pages").mkdir()
        rebuilder.pages(work / "pages", lazy=bool(follow))
        if follow:
            _start(follow, rebuilder, work, progress)
        rebuilder.skeleton(archive, members, work)
        return [*flags, "--ignore-volumes"]
    progress.note("the runtime shim is not set up (`ocickpt setup`): podman unpacks an archive, which is slower")
    rebuilder.expect(Kind.STATE, Kind.MEMORY, Kind.ROOTFS, Kind.VOLUME)
    image = podman.image(imported.image_id)
    rebuilder.check_deletions(image.layers if image else ())
    rebuilder.whole(archive, members, work, rootfs=not options.ignore_rootfs, volumes=not options.ignore_volumes)
    return [*flags, "--ignore-volumes"] if options.ignore_volumes else flags


def _helpers(journal: Journal, plan: dict[str, Any]) -> lazy.Helpers:
    def began(process: proc.Background) -> None:
        journal.step("guarded", guard_pid=process.pid, guard_start=proc.start_time(process.pid) or 0)

    plan["journal"] = [str(path) for path in journal.paths()]
    return lazy.Helpers(Path(journal.record.work), plan, began)


def _start(helpers: lazy.Helpers, rebuilder: Rebuilder, work: Path, progress: Progress) -> None:
    """Start the helpers of a lazy restore, with images of their own: podman's are not there yet."""
    later, first = rebuilder.divided()
    progress.note(f"{first / 1e6:.1f} MB of memory are fetched first, {later / 1e6:.1f} MB follow")
    (work / "images").mkdir()
    rebuilder.images(work / "images")
    for pages in (work / "pages").iterdir():
        os.link(pages, work / "images" / pages.name)
    helpers.start(later)


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


def _fill(
    rebuilder: Rebuilder,
    imported: libpod.Imported,
    options: RestoreOptions,
    message: dict[str, Any],
    work: Path,
) -> None:
    """Bring memory and files to where the runtime, which waits, will look for them."""
    bundle, image_path = Path(message["bundle"]), Path(message["image_path"])
    spec = parse_json((bundle / "config.json").read_bytes(), "bundle's config.json")
    if not options.ignore_rootfs:
        rebuilder.tree(Kind.ROOTFS, Path(spec["root"]["path"]))
    if not options.ignore_volumes:
        for volume, place in imported.volumes.items():
            rebuilder.tree(Kind.VOLUME, Path(place), volume)
    make_mount_points(spec, bundle)
    for pages in (work / "pages").iterdir():
        pages.rename(image_path / pages.name)
    (image_path / shim.MARKER).unlink()


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
