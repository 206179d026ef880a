"""A podman checkpoint archive, a checkpoint of the local store, or a dump that nobody could publish yet, goes into a
store."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from ocickpt.description import Options
from ocickpt.errors import NotFoundError, UsageError
from ocickpt.flows import artifact, pending, publish, recover, unpublished
from ocickpt.flows.contents import Contents
from ocickpt.flows.journal import UNPUBLISHED, Journal
from ocickpt.flows.publish import Counter, Published
from ocickpt.model import Kind, Progress, Stage
from ocickpt.store import Access, copy_blobs, open_store
from ocickpt.store.local import LocalStore
from ocickpt.store.reference import Reference


def push(source: str, ref: str | None, access: Access, progress: Progress) -> Published:
    """Push `source` to `ref`.

    `source` is the path of an archive, a reference into the local store, or the name of a container whose
    checkpoint waits to be published; only that needs no `ref`.
    """
    if ref and Reference.parse(ref).digest:
        raise UsageError(f"{ref} names a digest: a checkpoint is pushed under a tag")
    if ref and Path(source).exists():
        return _push_archive(Path(source), Reference.parse(ref), access, progress)
    recover.recover(progress)
    waiting = pending.find(source)
    if waiting and waiting.record.step == UNPUBLISHED:
        return _push_unpublished(waiting, ref, access, progress)
    if waiting:
        return pending.push(waiting, ref, access, progress)
    if not ref:
        raise NotFoundError(
            f"no checkpoint of {source!r} waits to be published",
            hint="`ocickpt list` shows those that do; for any other say where it is to go",
        )
    if "/" in source and not source.startswith("oci:"):
        raise NotFoundError(f"there is no file {source!r}")
    return _push_artifact(Reference.parse(source), Reference.parse(ref), access, progress)


def _push_unpublished(waiting: Journal, ref: str | None, access: Access, progress: Progress) -> Published:
    record = waiting.record
    reference = Reference.parse(ref or record.reference)
    try:
        published = _push_artifact(Reference.parse(unpublished.local_name(record)), reference, access, progress)
    except BaseException:
        waiting.leave()
        raise
    unpublished.forget(waiting)
    return published


def _push_archive(path: Path, reference: Reference, access: Access, progress: Progress) -> Published:
    contents = Contents(path)

    def options() -> Options:
        return Options(
            leave_running=False,
            tcp_established=False,
            file_locks=False,
            rootfs=contents.files[Kind.ROOTFS] > 0,
            volumes=contents.files[Kind.VOLUME] > 0,
        )

    with closing(open_store(reference, access, create=True)) as store, LocalStore() as local:
        published = publish.publish(
            contents,
            "",
            options,
            image_digest="",
            store=store,
            reference=reference,
            local=local,
            progress=progress,
            made=None,
        )
    publish.sweep()
    return published


def _push_artifact(source: Reference, reference: Reference, access: Access, progress: Progress) -> Published:
    counter = Counter(progress)
    with (
        closing(open_store(source, access)) as origin,
        closing(open_store(reference, access, create=True)) as store,
    ):
        found = artifact.load(origin, source)
        progress.stage(Stage.SENDING)
        blobs = (found.manifest.config, *found.manifest.layers)
        counter.expect(found.size)
        copy_blobs(origin, store, blobs, counter)
        descriptor = store.put_manifest(origin.resolve(found.descriptor.digest)[1], reference.tag)
    pinned = reference.with_digest(descriptor.digest)
    return Published(str(pinned), descriptor.digest, found.size, counter.sent, counter.found)
