"""What checkpoints there are, what is in one, and their removal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from ocickpt import artifact, names
from ocickpt.artifact.rebuild import Rebuilder
from ocickpt.asked import Asked
from ocickpt.description import Description
from ocickpt.engine.podman import roots
from ocickpt.errors import IntegrityError, NotFoundError, OcickptError, UnsupportedError, UsageError
from ocickpt.gate import verification
from ocickpt.model import Descriptor, Manifest, Progress, Silent
from ocickpt.operations import journal, pending
from ocickpt.store import Access, Store, open_source, open_store
from ocickpt.store.local import LocalStore
from ocickpt.store.reference import Reference

LIMIT = 1000
"""So many tags are looked at if nothing else is asked for."""


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
    own: int = 0
    """Of `size`, what no other checkpoint that is listed has: so much is free without it."""
    parent: str = ""
    """The digest of the checkpoint that it was built upon."""


@dataclass(frozen=True)
class Inspection:
    """Everything public about a checkpoint."""

    reference: str
    digest: str
    manifest: Manifest
    description: Description
    asks: tuple[Asked, ...] = ()
    """What a restore has to be allowed one by one, because podman gives it nobody unasked."""
    trouble: str = ""
    """Why no restore would take it, in which case nobody knows what it asks for."""
    lost: tuple[str, ...] = ()
    """What of the container no restore gives back, in sentences."""


@dataclass(frozen=True)
class Removed:
    """What a removal removed."""

    reference: str
    digest: str
    """Of its manifest; nothing for one that was not published."""
    freed: int
    """Bytes that are gone; a registry frees them when it collects its garbage."""


def list_checkpoints(
    repo: str | None, access: Access, limit: int = LIMIT, progress: Progress | None = None
) -> list[Listed]:
    """The checkpoints of a repository; without one those of the local store, the unpublished ones among them.

    Of more than `limit` tags the last by name are looked at, and a note says so. A checkpoint that is damaged, or made
    by a newer ocickpt, has a state that says so. Raises what keeps the store from saying what it has.
    """
    progress = progress or Silent()
    if limit < 1:
        raise UsageError(f"a limit of {limit} tags leaves nothing to list")
    if repo:
        reference = Reference.parse(repo)
        with closing(open_store(reference, access)) as store:
            named = {}
            for tag in store.tags():
                with suppress(UsageError):  # other tools' names in a layout, by which nothing can be asked for
                    named[tag] = reference.with_tag(tag)
            return list(_listed(store, _last(named, limit, progress)))
    found = list(_unpublished())
    with LocalStore() as local:
        names_there = (name.rpartition(":") for name, _ in local.references())
        named = {f"{name}:{tag}": Reference("local", "", name, tag) for name, _, tag in names_there if name and tag}
        found += _listed(local, _last(named, limit, progress))
    states = {pending.name_of(each): _state(each) for each in pending.waiting() if each.step == journal.UNPUBLISHED}
    return [replace(each, state=each.state or states.get(each.name, "")) for each in found]


def _last(named: Mapping[str, Reference], limit: int, progress: Progress) -> dict[str, Reference]:
    if len(named) > limit:
        progress.note(f"of {len(named)} tags the last {limit} by name were looked at; --limit changes how many")
    return {tag: named[tag] for tag in sorted(named)[-limit:]}


def _listed(store: Store, named: Mapping[str, Reference]) -> Iterator[Listed]:
    listed = list(artifact.manifests(store, list(named)))
    # Of one manifest with two tags nothing is the other's.
    whole = {descriptor.digest: manifest for _, (descriptor, manifest) in _whole(listed)}
    shared = Counter(blob.digest for manifest in whole.values() for blob in set(_blobs(manifest)))
    for tag, found in listed:
        if isinstance(found, OcickptError):
            yield Listed(str(named[tag]), "", "", "", "", 0, _trouble(found))
            continue
        descriptor, manifest = found
        told = manifest.annotations
        yield Listed(
            str(named[tag]),
            descriptor.digest,
            told.get(names.ANNOTATION_CREATED, ""),
            told.get(names.ANNOTATION_CONTAINER, ""),
            told.get(names.ANNOTATION_IMAGE_NAME, ""),
            sum(blob.size for blob in _blobs(manifest)),
            _damage(store, named[tag], manifest),
            sum(blob.size for blob in set(_blobs(manifest)) if shared[blob.digest] == 1),
            told.get(names.ANNOTATION_PARENT, ""),
        )


def _whole(
    listed: Iterable[tuple[str, tuple[Descriptor, Manifest] | OcickptError]],
) -> Iterator[tuple[str, tuple[Descriptor, Manifest]]]:
    return ((tag, found) for tag, found in listed if not isinstance(found, OcickptError))


def _blobs(manifest: Manifest) -> tuple[Descriptor, ...]:
    return (manifest.config, *manifest.layers)


def _trouble(error: OcickptError) -> str:
    return error.message if isinstance(error, UnsupportedError) else f"damaged: {error.message}"


def _damage(store: Store, reference: Reference, manifest: Manifest) -> str:
    """What is wrong with the blobs of a checkpoint. A registry is not asked: that would be a request for each."""
    if reference.transport == "docker":
        return ""
    try:
        artifact.config(store, reference, manifest)
    except (IntegrityError, NotFoundError, UnsupportedError) as error:
        return _trouble(error)
    gone = [layer for layer in manifest.layers if not store.has_blob(layer)]
    return f"damaged: {len(gone)} of its {len(manifest.layers)} blobs are gone, or not whole" if gone else ""


def _unpublished() -> Iterator[Listed]:
    for record in pending.waiting():
        if record.step != journal.UNPUBLISHED:
            state = f"being published as {record.reference}" if journal.is_busy(record) else _state(record)
            size = pending.size(Path(record.work))
            yield Listed(pending.name_of(record), "", "", record.name, "", size, state, size)


def _state(record: journal.Record) -> str:
    why = f": {record.reason}" if record.reason else ""
    return f"unpublished as {record.reference}{why}"


def inspect(ref: str, access: Access) -> Inspection:
    """Everything public about the checkpoint `ref`."""
    reference = Reference.parse(ref)
    with closing(open_source(reference, access)) as source:
        found = artifact.open(source, reference)
        asks, lost, trouble = tuple[Asked, ...](), tuple[str, ...](), ""
        try:
            rebuilder = Rebuilder(artifact.load_index(source, found.manifest), source, Silent())
            config, spec = verification.saved(rebuilder)
            # Where podman keeps things makes no difference to what it asks for.
            extras = rebuilder.extras()
            lost = tuple(map(str, extras.lost))
            asks = verification.imported_config(config, spec, extras, found.description, roots.USUAL).asked
        except (IntegrityError, NotFoundError, UnsupportedError) as error:
            trouble = error.message
    return Inspection(
        str(found.reference), found.descriptor.digest, found.manifest, found.description, asks, trouble, lost
    )


def remove(ref: str, access: Access, progress: Progress) -> Removed:
    """Remove the checkpoint `ref`, or what an operation that died left of one; what others share with it stays."""
    ended = pending.remove(ref, progress)
    if ended is not None:
        return Removed(ref, "", ended)
    reference = Reference.parse(ref)
    if not reference.target:
        raise UsageError(f"{ref} names no tag and no digest")
    with closing(open_store(reference, access)) as store:
        found = artifact.open(store, reference)
        deleted = store.delete(reference.target)
        blobs = (found.manifest.config, *found.manifest.layers)
        freed = sum(blob.size for blob in blobs if not store.has_blob(blob))
    return Removed(ref, deleted.digest, freed)
