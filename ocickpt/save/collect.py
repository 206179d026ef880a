"""A dump that podman asked for by itself is put together into a checkpoint of ours, beside podman's own result.

    begun        the parts are being brought into the work directory
    frozen       the container stands still meanwhile (how to thaw it is known)
    dumped       all parts are there; podman's result is not needed any more
    unpublished  the checkpoint is in the local store, for it could not be published
    published

Neither the container nor what podman has of its dump is ever touched: pages are linked, not moved, into a work
directory on the same filesystem. podman is never asked, for it holds the container's lock. What becomes of
the checkpoint is in `unpublished`.
"""

from __future__ import annotations

import os
import re
import secrets
import time
from datetime import UTC, datetime
from pathlib import Path

from ocickpt import names, oci, rendezvous
from ocickpt.artifact import origin, parts
from ocickpt.config import Config
from ocickpt.description import Options
from ocickpt.engine import criu
from ocickpt.engine.files import archive, capture, tree
from ocickpt.engine.podman import database
from ocickpt.errors import StorageError, UsageError
from ocickpt.model import Kind, parse_json
from ocickpt.operations import workdir
from ocickpt.operations.journal import Intercept, Journal
from ocickpt.save import extras, unrestorable
from ocickpt.store.local import LocalStore
from ocickpt.store.reference import Reference

_STATISTICS = "stats-dump"
_PAGES = "pages-*.img"
_PAGEMAP = re.compile(r"pagemap-(\d+)\.img", re.ASCII)


def wanted(found: database.Recorded, host: Config) -> tuple[str, bool]:
    """Where a checkpoint of that container is to go, nothing when nobody said so; whether the container itself says."""
    what = "container's OCI specification"
    if asked := oci.annotations_of(parse_json(found.spec.read_bytes(), what), what).get(names.ANNOTATION_PUSH):
        return asked, True
    return f"{host.repository}/{found.container.name.lower()}:{stamp()}" if host.repository else "", False


def stamp(nanoseconds: int | None = None) -> str:
    """A tag that says when (now), in UTC to the millisecond."""
    return datetime.fromtimestamp((nanoseconds or time.time_ns()) / 1e9, UTC).strftime("%Y%m%dT%H%M%S.%f")[:-3] + "Z"


def begin(found: database.Recorded, text: str, options: Options, *, running: bool) -> Journal[Intercept]:
    """The journal of a checkpoint to go to the reference `text`, with an empty work directory; whether it is `running`
    still.

    Raises what says that it cannot be: UsageError, UnsupportedError, PrerequisiteError, StorageError.
    """
    subject, reference = found.container, Reference.parse(text)
    if reference.digest:
        raise UsageError(f"{text[:300]} names a digest: a new checkpoint goes under a tag")
    unrestorable.check_recorded(subject, found.config, processes=running)
    criu.pycriu_images()  # the description needs it
    LocalStore().close()  # made where there is none; the journal lies in it
    key = f"{time.time_ns():016x}{secrets.token_hex(8)}"
    work = rendezvous.work_directory(subject.graph_root, key)
    journal = Journal.begin(
        Intercept(
            key=key,
            container=subject.id,
            name=subject.name,
            reference=str(reference),
            work=str(work),
            image_path=str(subject.image_path),
            started=subject.started,
            captured=True,
            lowers=tuple(str(layer) for layer in subject.lowers),
            image_digest=subject.image_digest,
            runtime=subject.runtime,
            options=options,
            origin=origin.here(subject.runtime),
        )
    )
    try:
        workdir.check_space(workdir.make(work), subject.shm)
    except StorageError:
        workdir.remove(work)
        journal.close()
        raise
    return journal


def made_at(record: Intercept) -> int:
    """When a checkpoint was made, in nanoseconds: its key begins with that."""
    return int(record.key[:16], 16)


def take_files(found: database.Recorded, work: Path) -> None:
    """Copy what the container changed in its root filesystem, its volumes and its /dev/shm; nothing of it may run."""
    subject = found.container
    (work / "volumes").mkdir(mode=0o700)
    trees = [(volume.source, work / "volumes" / volume.name) for volume in extras.with_content(subject)]
    if subject.shm.is_mount():
        trees.append((subject.shm, work / "devshm"))
    for source, target in trees:
        capture.capture(source, target)
    if subject.upper:
        capture.capture(subject.upper, work / "rootfs", subject.merged)


def take_images(found: database.Recorded, work: Path) -> None:
    """Link the pages of a whole dump, and write what else podman's own export would hold."""
    bundle, images = found.container.bundle, found.container.image_path
    try:
        for pages in sorted(images.glob(_PAGES)):
            os.link(pages, work / pages.name)
        with archive.ArchiveWriter(work / rendezvous.EXPORT) as export:
            export.add_bytes(parts.CONFIG, found.config)
            export.add_file(parts.SPEC, found.spec)
            if found.network:
                export.add_bytes(parts.NETWORK, found.network)
            if found.log:
                export.add_file(parts.LOG, found.log)
            if (bundle / _STATISTICS).is_file():
                export.add_file(_STATISTICS, bundle / _STATISTICS)
            if (work / "devshm").is_dir():
                archive.tree_tar(work / parts.DEVSHM, tree.walk(work / "devshm", Kind.STATE))
                export.add_file(parts.DEVSHM, work / parts.DEVSHM)
            for image in _small_images(images):
                export.add_file(f"checkpoint/{image.name}", image)
        (work / rendezvous.CAPTURED).touch()
        mark_taken(found)
    except OSError as error:
        raise StorageError(f"the dump cannot be packaged: {error.filename}: {error.strerror}") from error


def _small_images(images: Path) -> list[Path]:
    """What there is beside pages; without the memory of processes that an earlier dump, which lies there too, had."""
    dumped = criu.processes((images / "pstree.img").read_bytes())
    small = [image for image in sorted(images.iterdir()) if image.is_file() and not image.match(_PAGES)]
    named = {image: _PAGEMAP.fullmatch(image.name) for image in small}
    return [image for image, found in named.items() if found is None or int(found[1]) in dumped]


def mark_taken(found: database.Recorded) -> None:
    """Write down that the dump in the bundle needs no packaging any more."""
    (found.container.bundle / rendezvous.TAKEN).write_text(_identity(found.container.image_path), "ascii")


def was_taken(found: database.Recorded) -> bool:
    """Whether the dump that is in the bundle was packaged before."""
    try:
        return (found.container.bundle / rendezvous.TAKEN).read_text("ascii") == _identity(found.container.image_path)
    except OSError:
        return False


def _identity(images: Path) -> str:
    status = (images / "inventory.img").stat()
    return f"{status.st_ino} {status.st_mtime_ns}"
