"""A checkpoint goes from one store into another."""

from __future__ import annotations

from contextlib import closing

from ocickpt.artifact import opening
from ocickpt.artifact.publishing import Counter
from ocickpt.model import Progress, Published, Stage
from ocickpt.store import Access, copy_blobs, open_store
from ocickpt.store.reference import Reference


def copy(source: Reference, reference: Reference, access: Access, progress: Progress) -> Published:
    """Copy the checkpoint `source` to the tag of `reference`: only what is not there yet is sent."""
    counter = Counter(progress)
    with (
        closing(open_store(source, access)) as origin,
        closing(open_store(reference, access, create=True)) as store,
    ):
        found = opening.open_artifact(origin, source)
        progress.stage(Stage.SENDING)
        blobs = (found.manifest.config, *found.manifest.layers)
        counter.expect(found.size)
        copy_blobs(origin, store, blobs, counter)
        descriptor = store.put_manifest(origin.resolve(found.descriptor.digest)[1], reference.tag)
    pinned = reference.with_digest(descriptor.digest)
    return Published(str(pinned), descriptor.digest, found.size, counter.sent, counter.found)
