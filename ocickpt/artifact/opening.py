"""An artifact of ours in a store, told from everything else that may lie there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ocickpt import names
from ocickpt.artifact import allowed_files
from ocickpt.errors import ForeignError, IntegrityError, NotFoundError, OcickptError, UnsupportedError
from ocickpt.model import BlobSource, Descriptor, Manifest
from ocickpt.pack.index import Index
from ocickpt.store import CachedSource, Store
from ocickpt.store.reference import Reference

if TYPE_CHECKING:
    from ocickpt.description import Description

_FAMILY = "application/vnd.ocickpt.checkpoint."
_AT_A_TIME = 8


@dataclass(frozen=True)
class Artifact:
    """A checkpoint: its manifest and config, verified."""

    reference: Reference
    """As it was asked for, pinned to the digest that was found."""
    descriptor: Descriptor
    manifest: Manifest
    description: Description

    @property
    def index(self) -> Descriptor:
        """The index layer."""
        return index_of(self.manifest)

    @property
    def size(self) -> int:
        """Bytes of all its blobs."""
        return sum(blob.size for blob in (self.manifest.config, *self.manifest.layers))


def open_artifact(
    source: Store | CachedSource, reference: Reference, found: Callable[[Reference], None] = lambda _: None
) -> Artifact:
    """The checkpoint that `reference` names: the one way in, and where a policy on who made it is to be asked.

    `found` is called with its digest as soon as that is known, which is a request earlier. Raises NotFoundError;
    UnsupportedError for another kind of artifact or a future version of ours; IntegrityError for one that is not what
    it says.
    """
    descriptor, manifest = resolve(source, reference)
    pinned = reference.with_digest(descriptor.digest)
    found(pinned)
    return Artifact(pinned, descriptor, manifest, config(source, reference, manifest))


def config(store: Store | CachedSource, reference: Reference, manifest: Manifest) -> Description:
    """The description of the checkpoint `reference` names. Errors as of `open_artifact`."""
    from ocickpt.description import Description  # not for a page server, which needs none

    if manifest.config.size > names.MAX_CONFIG_BYTES:
        raise IntegrityError(f"the config of {reference} is {manifest.config.size} bytes long, more than there can be")
    with store.open_blob(manifest.config) as stream:
        return Description.from_bytes(stream.read())


def resolve(store: Store | CachedSource, reference: Reference) -> tuple[Descriptor, Manifest]:
    """Only the manifest of the checkpoint `reference` names, for who was told of it by somebody that has opened it.

    Errors as of `open_artifact`.
    """
    descriptor, data = store.resolve(reference.target)
    manifest = Manifest.from_bytes(data)
    _check_kind(manifest, str(reference))
    return descriptor, manifest


def load_index(source: BlobSource, manifest: Manifest) -> Index:
    """The whole index of a checkpoint, whose packs the manifest lists and whose files are those of a checkpoint."""
    index = Index.load(source, index_of(manifest))
    index.check_layers(manifest.layers)
    allowed_files.check(index.files)
    return index


def manifests(store: Store, tags: Sequence[str]) -> Iterator[tuple[str, tuple[Descriptor, Manifest] | OcickptError]]:
    """Each of `tags`, in order, with its manifest or what is wrong with it; a request each, several at a time.

    What is no checkpoint of ours, and a tag that is gone meanwhile, are left out. Raises what keeps the store from
    saying (RegistryError, StorageError).
    """

    def look(tag: str) -> tuple[Descriptor, Manifest] | OcickptError | None:
        try:
            descriptor, data = store.resolve(tag)
            manifest = Manifest.from_bytes(data)
            _check_kind(manifest, tag)
            index_of(manifest)
        except (NotFoundError, ForeignError):
            return None
        except (IntegrityError, UnsupportedError) as error:
            return error
        return descriptor, manifest

    with ThreadPoolExecutor(_AT_A_TIME, "manifests") as pool:
        try:
            for tag, found in zip(tags, pool.map(look, tags), strict=True):
                if found is not None:
                    yield tag, found
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def index_of(manifest: Manifest) -> Descriptor:
    """The one index layer of a checkpoint."""
    found = [layer for layer in manifest.layers if layer.media_type == names.INDEX_TYPE]
    if len(found) != 1:
        raise IntegrityError(f"a checkpoint has one index, this one {len(found)}")
    return found[0]


def _check_kind(manifest: Manifest, what: str) -> None:
    kinds = {manifest.artifact_type or names.ARTIFACT_TYPE, manifest.config.media_type}
    if kinds == {names.ARTIFACT_TYPE, names.CONFIG_TYPE}:
        if len(manifest.layers) > names.MAX_LAYERS + 1:
            raise IntegrityError(f"{what} has {len(manifest.layers)} layers, more than there can be")
        return
    if all(kind.startswith(_FAMILY) for kind in kinds):
        raise UnsupportedError(f"{what} was made by a newer ocickpt", hint="upgrade ocickpt on this host")
    other = manifest.artifact_type or manifest.config.media_type
    raise ForeignError(
        f"{what} is not a checkpoint of ocickpt but {other[:100]!r}",
        hint="a podman checkpoint image is restored with `podman container restore`",
    )
