"""Parts become an artifact in a store: packed into the local spool, uploaded while packing goes on."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace

from ocickpt import artifact, failpoint, names
from ocickpt.artifact import origin
from ocickpt.artifact.marked import Marked
from ocickpt.artifact.parts import Parts
from ocickpt.description import Description, Options, Origin
from ocickpt.errors import BusyError, IntegrityError, NotFoundError, OcickptError, UnsupportedError
from ocickpt.model import Descriptor, Manifest, Packed, Progress, Published, Silent, Stage
from ocickpt.pack import format as fmt
from ocickpt.pack.inherited import Inherited
from ocickpt.pack.packer import Packer, chunk_size_for, pack_size_for
from ocickpt.store import Store
from ocickpt.store.local import LocalStore
from ocickpt.store.reference import Reference

_UPLOADS = 2
_CANDIDATES = 32


class Counter(Silent):
    """Counts what was sent and what was there, and passes everything on."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.sent = 0
        self.found = 0

    def expect(self, size: int) -> None:
        """Passed on."""
        self._progress.expect(size)

    def advance(self, size: int) -> None:
        """Counted as sent."""
        self.sent += size
        self._progress.advance(size)

    def present(self, size: int) -> None:
        """Counted as found."""
        self.found += size
        self._progress.present(size)


def _find_parent(
    store: Store, tag: str, container: str, marked: Marked, progress: Progress
) -> tuple[str, Inherited] | None:
    """The digest of the checkpoint under `tag`, else of that container's newest one, and its content."""
    try:
        found = next(iter(_good(store, [tag], progress)), None) or _newest(store, container, progress)
        if found is None:
            return None
        descriptor, manifest = found
        index = artifact.load_index(store, manifest)
        # The root's digest, against which all of the index was verified: a registry may say any of the blob.
        verified = fmt.Place.of(artifact.index_of(manifest)).digest
        return descriptor.digest, Inherited(index, marked.of(index, verified))
    except (IntegrityError, NotFoundError, UnsupportedError) as error:
        progress.note(f"the earlier checkpoint cannot be built upon: {error.message}")
        return None


def _newest(store: Store, container: str, progress: Progress) -> tuple[Descriptor, Manifest] | None:
    found = _good(store, store.tags()[-_CANDIDATES:], progress)
    of_it = (each for each in found if each[1].annotations.get(names.ANNOTATION_CONTAINER) == container)
    return max(of_it, key=lambda each: _created(each[1]), default=None)


def _good(store: Store, tags: Sequence[str], progress: Progress) -> Iterator[tuple[Descriptor, Manifest]]:
    for tag, found in artifact.manifests(store, tags):
        if isinstance(found, OcickptError):
            progress.note(f"{tag} cannot be built upon: {found.message}")
        else:
            yield found


def _created(manifest: Manifest) -> str:
    return manifest.annotations.get(names.ANNOTATION_CREATED, "")


def check_writable(store: Store) -> None:
    """Find out before a container is touched whether the store takes blobs from us at all."""
    store.put_blob_bytes("application/vnd.oci.empty.v1+json", b"{}", {})


def sweep() -> None:
    """Drop what the spool holds and no checkpoint of the local store refers to; who is writing there does it later."""
    with LocalStore() as local, suppress(BusyError):
        local.gc()


def publish(
    contents: Parts,
    container: str,
    options: Callable[[], Options],
    *,
    image_digest: str,
    store: Store,
    reference: Reference,
    local: LocalStore,
    progress: Progress,
    made: Origin | None,
    goes_on: bool = False,
) -> Published:
    """Pack `contents`, put everything into `store`, and last of all the tag.

    The description shows `options`, which are asked for when all content has gone by. `container` is the name of the
    one whose earlier checkpoints may be built upon, beside that which `reference` replaces. Without a word
    on where it was `made`, nothing is said of that but what the images tell. Marks are kept for a later checkpoint
    where there was an earlier one, or the container `goes_on`: they take a tenth of all the time.
    """
    marked, slots = Marked(local.path, progress), chunk_size_for(mmap.PAGESIZE) // mmap.PAGESIZE
    parent, inherited = _find_parent(store, reference.tag, container, marked, progress) or (None, None)
    counter = Counter(progress)
    if reference.transport == "docker":
        progress.note("the container's memory is stored in clear: whoever can read the repository can read it")
    progress.stage(Stage.PACKING)
    line = slots if goes_on or parent else 0
    with local.writing(), _Uploader(local, store, counter) as uploader, marked.writing(line) as marks:
        with Packer(
            local,
            page_size=mmap.PAGESIZE,
            pack_size=pack_size_for(contents.size()),
            inherited=inherited,
            marks=marks,
            on_pack=uploader.send,
        ) as packer:
            for content in contents:
                packer.add(content)
                uploader.check()
            packed = packer.finish()
        del inherited  # its memory is wanted for what follows
        failpoint.reached("publish.packed")
        description = origin.describe(
            contents.kept,
            packed,
            contents.files,
            options(),
            image_digest=image_digest,
            parent=parent,
            made=made or origin.of_images(contents.core),
        )
        uploader.send(packed.index)
        taken = sum(pack.size for pack in packed.packs if pack not in packed.new)
        counter.expect(taken)
        counter.present(taken)
        uploader.wait()
        failpoint.reached("publish.sent")
        config = store.put_blob_bytes(names.CONFIG_TYPE, description.to_bytes(), {})
        manifest = _manifest(config, packed, description)
        data = manifest.to_bytes()
        if len(data) > names.MAX_MANIFEST_BYTES:
            raise UnsupportedError(f"the manifest would be {len(data)} bytes long, more than registries take")
        descriptor = store.put_manifest(data, reference.tag)
        marked.keep(marks)
    failpoint.reached("publish.tagged")
    total = sum(blob.size for blob in (config, *manifest.layers))
    pinned = reference.with_digest(descriptor.digest)
    return Published(str(pinned), descriptor.digest, total, counter.sent, counter.found)


def _manifest(config: Descriptor, packed: Packed, description: Description) -> Manifest:
    annotations = {
        names.ANNOTATION_CREATED: description.created,
        names.ANNOTATION_BASE_NAME: description.image.name,
        names.ANNOTATION_BASE_DIGEST: description.image.digest,
        names.ANNOTATION_ENGINE: description.engine.name,
        names.ANNOTATION_ENGINE_VERSION: description.engine.version,
        names.ANNOTATION_CONTAINER: description.container.name,
        names.ANNOTATION_IMAGE_NAME: description.image.name,
        names.ANNOTATION_IMAGE_ID: description.image.id,
        names.ANNOTATION_RUNTIME: description.runtime.name,
        names.ANNOTATION_PARENT: description.parent or "",
    }
    return Manifest(
        config,
        tuple(_titled(packed)),
        names.ARTIFACT_TYPE,
        {name: value for name, value in annotations.items() if value},
    )


def _titled(packed: Packed) -> Iterator[Descriptor]:
    """The layers, each with a name to be a file under: `oras pull` leaves out those that have none."""
    numbers: dict[str, int] = {}
    for layer in (packed.index, *packed.packs):
        kind = layer.media_type.removeprefix(names.PACK_TYPE_PREFIX).removesuffix("+zstd")
        number = numbers[kind] = numbers.get(kind, 0) + 1
        title = "index" if layer is packed.index else f"{kind}-{number}.zst"
        yield replace(layer, annotations={**layer.annotations, names.ANNOTATION_TITLE: title})


class _Uploader:
    """Sends blobs of the local store to `store` from threads; the first error surfaces at the next call."""

    def __init__(self, local: LocalStore, store: Store, progress: Progress) -> None:
        self._local = local
        self._store = store
        self._progress = progress
        self._same = isinstance(store, LocalStore)
        self._pool = ThreadPoolExecutor(_UPLOADS, "upload")
        self._futures: list[Future[None]] = []

    def __enter__(self) -> _Uploader:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def send(self, blob: Descriptor) -> None:
        """Begin to send one blob."""
        self._progress.expect(blob.size)
        if self._same:
            self._progress.advance(blob.size)
            return
        self._futures.append(self._pool.submit(self._send, blob))

    def _send(self, blob: Descriptor) -> None:
        self._store.put_blob(blob, lambda: self._local.open_blob(blob), self._progress)
        failpoint.reached("publish.blob")

    def check(self) -> None:
        """Raise the error of an upload that failed."""
        for future in self._futures:
            if future.done():
                future.result()
        self._futures = [future for future in self._futures if not future.done()]

    def wait(self) -> None:
        """Wait until everything is sent."""
        for future in self._futures:
            future.result()
