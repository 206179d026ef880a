"""What checkpoints there are, what is in one, and their removal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace

from ocickpt.description import Description
from ocickpt.errors import OcickptError, UsageError
from ocickpt.flows import artifact, journal, pending, unpublished
from ocickpt.model import Manifest, Progress
from ocickpt.store import Access, Store, open_store
from ocickpt.store.local import LocalStore
from ocickpt.store.reference import Reference


@dataclass(frozen=True)
class Listed:
    """One line of a listing."""

    name: str
    digest: str
    created: str
    container: str
    image: str
    size: int
    state: str = ""


@dataclass(frozen=True)
class Inspection:
    """Everything public about a checkpoint."""

    reference: str
    digest: str
    manifest: Manifest
    description: Description


@dataclass(frozen=True)
class Removed:
    """What a removal removed."""

    reference: str
    digest: str
    """Of its manifest; nothing for one that was not published."""
    freed: int
    """Bytes that are gone; a registry frees them when it collects its garbage."""


def list_checkpoints(repo: str | None, access: Access) -> list[Listed]:
    """The checkpoints of a repository; without one those of the local store, the unpublished ones among them."""
    if repo:
        reference = Reference.parse(repo)
        with closing(open_store(reference, access)) as store:
            return list(_listed(store, reference))
    found = list(_unpublished())
    with LocalStore() as local:
        for name in sorted({name.partition(":")[0] for name, _ in local.references()}):
            reference = Reference.parse(name)
            with closing(open_store(reference, access)) as store:
                found += _listed(store, reference)
    states = {unpublished.local_name(each): _state(each) for each in unpublished.kept()}
    return [replace(each, state=states.get(each.name, each.state)) for each in found]


def _listed(store: Store, reference: Reference) -> Iterator[Listed]:
    for tag in store.tags():
        try:
            found = artifact.load(store, reference.with_tag(tag))
        except OcickptError:
            # A repository may hold images, signatures and other things beside checkpoints.
            continue
        told = found.description
        yield Listed(
            str(reference.with_tag(tag)),
            found.descriptor.digest,
            told.created,
            told.container.name,
            told.image.name,
            found.size,
        )


def _unpublished() -> Iterator[Listed]:
    for record in pending.waiting():
        if record.step != journal.UNPUBLISHED:
            state = f"being published as {record.reference}" if journal.is_busy(record) else _state(record)
            yield Listed(pending.name_of(record), "", "", record.name, "", pending.size(record), state)


def _state(record: journal.Record) -> str:
    why = f": {record.reason}" if record.reason else ""
    return f"unpublished as {record.reference}{why}"


def inspect(ref: str, access: Access) -> Inspection:
    """Everything public about the checkpoint `ref`."""
    reference = Reference.parse(ref)
    with closing(open_store(reference, access)) as store:
        found = artifact.load(store, reference)
    return Inspection(str(found.reference), found.descriptor.digest, found.manifest, found.description)


def remove(ref: str, access: Access, progress: Progress) -> Removed:
    """Remove the checkpoint `ref`, or what an operation that died left of one; what others share with it stays."""
    ended = pending.remove(ref, progress)
    if ended is not None:
        return Removed(ref, "", ended)
    reference = Reference.parse(ref)
    if not reference.target:
        raise UsageError(f"{ref} names no tag and no digest")
    with closing(open_store(reference, access)) as store:
        found = artifact.load(store, reference)
        deleted = store.delete(reference.target)
        blobs = (found.manifest.config, *found.manifest.layers)
        freed = sum(blob.size for blob in blobs if not store.has_blob(blob))
    return Removed(ref, deleted.digest, freed)
