"""A checkpoint comes from a registry into the local store."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass

from ocickpt import artifact
from ocickpt.model import Progress, Stage
from ocickpt.store import Access, copy_blobs, open_store
from ocickpt.store.local import LocalStore
from ocickpt.store.reference import Reference


@dataclass(frozen=True)
class Pulled:
    """Where a checkpoint is now: a reference into the local store, or the path of an archive."""

    reference: str
    digest: str
    path: str | None


def pull(reference: Reference, access: Access, progress: Progress) -> Pulled:
    """Pull a checkpoint into the local store."""
    with closing(open_store(reference, access)) as origin, _local(reference) as local:
        found = artifact.open(origin, reference)
        progress.stage(Stage.FETCHING)
        progress.expect(found.size)
        with local.writing():
            copy_blobs(origin, local, (found.manifest.config, *found.manifest.layers), progress)
            tag = reference.tag or reference.digest.removeprefix("sha256:")[:12]
            local.put_manifest(origin.resolve(found.descriptor.digest)[1], tag)
        return Pulled(f"{local.repository}:{tag}", found.descriptor.digest, None)


def _local(reference: Reference) -> LocalStore:
    """The local store under the last part of the repository's name."""
    return LocalStore(repository=reference.repository.rstrip("/").rpartition("/")[2])
