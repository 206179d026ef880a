"""An OCI image layout directory (image-spec, image-layout.md) as a store and as a spool.

    oci-layout      {"imageLayoutVersion": "1.0.0"}
    index.json      an image index; tags are annotations `org.opencontainers.image.ref.name`
    blobs/sha256/   blobs and manifests by digest

New files are written under a temporary name, hashed, fsynced and renamed. Two flock(2) locks, both on
directories, so that nothing is added to the layout: on the root while index.json is read and replaced;
on `blobs/sha256`, shared, while this object has put blobs there that no manifest refers to yet, and
exclusive (never waited for) while garbage is collected. Take them in the order blobs, root.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final, Self

from ocickpt import names
from ocickpt.errors import BusyError, IntegrityError, NotFoundError, UnsupportedError
from ocickpt.model import Descriptor, Progress, digest_of
from ocickpt.store import garbage, referrers
from ocickpt.store.base import NO_ANNOTATIONS, describe_manifest, is_digest
from ocickpt.store.files import Directory, storage_error, storage_errors
from ocickpt.store.layout_files import INDEX_FILE, check_version, create_layout, read_index, ref_name_of
from ocickpt.store.verify import verified

_COPY_BYTES: Final = 1 << 20


class LayoutStore:
    """One layout directory; `base.Store` and `model.BlobSpool`. Threads may share it.

    Opening raises NotFoundError when there is no layout at `path` (with `create`, one is made there,
    unless the directory holds something else: StorageError), and UnsupportedError for another version.
    """

    def __init__(self, path: Path, *, create: bool = False, mode: int = 0o755) -> None:
        self.path = path
        if create:
            create_layout(path, mode)
        try:
            self._root = Directory.open(path)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise NotFoundError(f"there is no OCI layout directory at {path}") from error
        except OSError as error:
            raise storage_error(error, str(path)) from error
        self._lock = threading.Lock()
        self._held = -1
        self._holders = 0
        self._pending: set[str] = set()
        try:
            check_version(self._root)
            with contextlib.closing(self._root.child("blobs")) as blobs:
                self._blobs = blobs.child("sha256")
            self._temporary = self._open_temporary()
        except BaseException:
            self._root.close()
            raise

    def _open_temporary(self) -> Directory:
        return self._root

    @property
    def name(self) -> str:
        """The layout as users write it."""
        return f"oci:{self.path}"

    def _where(self, target: str) -> str:
        return f"{self.name}{'@' if is_digest(target) else ':'}{target}"

    def _ref_name(self, tag: str) -> str:
        """The annotation that stands for `tag`."""
        return tag

    def _tag(self, ref_name: str) -> str | None:
        """The tag that annotation stands for; None when it belongs to another repository."""
        return ref_name

    # Blobs.

    def read_at(self, blob: Descriptor, offset: int, length: int) -> bytes:
        """See `model.BlobSource.read_at`."""
        if offset < 0 or length < 0 or offset + length > blob.size:
            raise IntegrityError(f"blob {blob.digest} has {blob.size} bytes, {length} at {offset} were asked for")
        fd = self._open(blob)
        try:
            parts = []
            while length:
                with storage_errors(f"blob {blob.digest} in {self.name}"):
                    data = os.pread(fd, length, offset)
                if not data:
                    raise IntegrityError(f"blob {blob.digest} in {self.name} is cut short")
                parts.append(data)
                offset, length = offset + len(data), length - len(data)
        finally:
            os.close(fd)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def open_blob(self, blob: Descriptor) -> BinaryIO:
        """See `model.BlobSource.open_blob`."""
        return verified(os.fdopen(self._open(blob), "rb", buffering=0), blob, self.name)

    def _open(self, blob: Descriptor) -> int:
        found = self._blobs.regular(_file_name(blob.digest))
        if found is None:
            raise NotFoundError(f"{self.name} has no blob {blob.digest}")
        fd, size = found
        if size != blob.size:
            os.close(fd)
            raise IntegrityError(f"blob {blob.digest} in {self.name} has {size} bytes instead of {blob.size}")
        return fd

    def has_blob(self, blob: Descriptor) -> bool:
        """See `base.Store.has_blob`."""
        found = self._blobs.regular(_file_name(blob.digest))
        if found is None:
            return False
        os.close(found[0])
        return found[1] == blob.size

    def new_blob(self) -> BlobFile:
        """An empty blob under a temporary name (`model.BlobSpool`)."""
        self._hold()
        try:
            return BlobFile(self)
        except BaseException:
            self._release()
            raise

    def put_blob(self, blob: Descriptor, source: Callable[[], BinaryIO], progress: Progress) -> None:
        """See `base.Store.put_blob`."""
        with self.writing():
            self._pending.add(blob.digest)
            if self.has_blob(blob):
                progress.present(blob.size)
                return
            writer = self.new_blob()
            try:
                with source() as stream:
                    while data := stream.read(_COPY_BYTES):
                        if writer.size + len(data) > blob.size:
                            raise IntegrityError(f"blob {blob.digest} is longer than {blob.size} bytes")
                        writer.write(data)
                        progress.advance(len(data))
                writer.commit(blob.media_type, expect=blob.digest)
            finally:
                writer.discard()

    def put_blob_bytes(
        self, media_type: str, data: bytes, annotations: Mapping[str, str] = NO_ANNOTATIONS
    ) -> Descriptor:
        """See `base.Store.put_blob_bytes`."""
        writer = self.new_blob()
        try:
            writer.write(data)
            return writer.commit(media_type, annotations)
        finally:
            writer.discard()

    def mount_blob(self, blob: Descriptor, from_repository: str) -> bool:  # noqa: ARG002 - a Store's signature
        """Nothing to mount from; whether the blob is here."""
        return self.has_blob(blob)

    # Manifests.

    def resolve(self, target: str) -> tuple[Descriptor, bytes]:
        """See `base.Store.resolve`. A digest may name any manifest whose blob is here."""
        where, digest, media_type = self._where(target), target, ""
        if not is_digest(target):
            entry = self._find(self._entries(), target)
            if entry is None:
                raise NotFoundError(f"{self.name} has no tag {target}")
            digest, media_type = Descriptor.from_json(entry).digest, entry["mediaType"]
        data = self._blobs.read(_file_name(digest), names.MAX_MANIFEST_BYTES)
        if data is None and media_type:
            if self._find(self._entries(), target) != entry:
                return self.resolve(target)  # somebody has just changed it
            raise IntegrityError(f"the manifest of {where} is gone: {self.name} has no blob {digest}")
        if data is None:
            raise NotFoundError(f"{self.name} has no manifest {digest}")
        return describe_manifest(data, where, media_type=media_type, digest=digest), data

    def put_manifest(self, data: bytes, tag: str) -> Descriptor:
        """See `base.Store.put_manifest`. Blobs it refers to are from now on kept."""
        described = describe_manifest(data, self._where(tag or digest_of(data)))
        with self.writing():
            self.put_blob_bytes(described.media_type, data)
            self._enter(described, tag)
            with self._lock:
                self._pending -= garbage.children(data) | {described.digest}
        return described

    def referrers(self, digest: str, artifact_type: str = "") -> list[Descriptor]:
        """See `base.Store.referrers`. Those of the whole directory, whatever repository they were put into."""
        found = referrers.Found(f"list of what is about {digest} in {self.name}", artifact_type)
        return referrers.in_layout(digest, found, referrers.descriptors(self._entries()), self._manifest)

    def _manifest(self, each: Descriptor) -> bytes | None:
        """Its bytes as they are; None when it is not there, or has another size."""
        found = self._blobs.regular(_file_name(each.digest))
        if found is None:
            return None
        with os.fdopen(found[0], "rb") as file, storage_errors(f"{self.name}: {each.digest}"):
            good = found[1] == each.size <= names.MAX_MANIFEST_BYTES
            return file.read(each.size) if good else None

    def _enter(self, described: Descriptor, tag: str) -> None:
        """Write `described` into index.json under `tag`; without one, unless its digest stands there."""
        entry = described.to_json()
        with self._index() as entries:
            if not tag:
                if all(old.get("digest") != described.digest for old in entries):
                    entries.append(entry)
                return
            old = self._find(entries, tag)
            if old is not None:
                entries.remove(old)
            entry["annotations"] = {names.ANNOTATION_REF_NAME: self._ref_name(tag)}
            entries.append(entry)

    def tags(self) -> list[str]:
        """See `base.Store.tags`."""
        found = (self._tag(name) for name in map(ref_name_of, self._entries()) if name)
        return sorted({tag for tag in found if tag})

    def untag(self, tag: str) -> None:
        """See `base.Store.untag`. What only that tag referred to is garbage from now on."""
        with self._index() as entries:
            entry = self._find(entries, tag)
            if entry is None:
                raise NotFoundError(f"{self.name} has no tag {tag}")
            entries.remove(entry)

    def delete(self, target: str) -> Descriptor:
        """See `base.Store.delete`."""
        with self._index() as entries:
            if is_digest(target):
                gone = [entry for entry in entries if entry.get("digest") == target]
            else:
                gone = [entry for entry in [self._find(entries, target)] if entry is not None]
            if not gone:
                raise NotFoundError(f"{self.name} has no {'manifest' if is_digest(target) else 'tag'} {target}")
            described = Descriptor.from_json(gone[0])
            entries[:] = [entry for entry in entries if entry not in gone]
        with contextlib.suppress(BusyError, UnsupportedError):
            self.gc()
        return Descriptor(described.media_type, described.digest, described.size, artifact_type=described.artifact_type)

    def gc(self, keep: Iterable[str] = ()) -> int:
        """Remove blobs that nothing in index.json or `keep` (digests) leads to, and stale temporary files.

        Returns the bytes that were freed. BusyError when anybody, this object included, has put blobs
        that no manifest refers to yet; UnsupportedError when something in index.json is of a kind
        whose blobs cannot be told (nothing was removed then).
        """
        with self._blobs.locked(wait=False), self._root.locked():
            roots = [str(entry.get("digest")) for entry in read_index(self._root)["manifests"]]
            return garbage.collect(self._blobs, self._temporary, [*roots, *keep])

    # index.json.

    def _entries(self) -> list[dict[str, Any]]:
        """The descriptors in index.json, as they are: other tools' fields must survive a rewrite."""
        entries: list[dict[str, Any]] = read_index(self._root)["manifests"]
        return entries

    @contextlib.contextmanager
    def _index(self) -> Iterator[list[dict[str, Any]]]:
        """The descriptors in index.json, to be changed in place; written back at the end."""
        with self._root.locked():
            index = read_index(self._root)
            yield index["manifests"]
            self._root.replace(INDEX_FILE, json.dumps(index, indent=2).encode() + b"\n")

    def _find(self, entries: list[dict[str, Any]], tag: str) -> dict[str, Any] | None:
        wanted = self._ref_name(tag)
        return next((entry for entry in entries if ref_name_of(entry) == wanted), None)

    # The lock that keeps garbage collection away.

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Keep every blob from being collected until the end of the block, whoever refers to it."""
        self._hold()
        try:
            yield
        finally:
            self._release()

    def _hold(self) -> None:
        with self._lock:
            if self._held < 0:
                self._held = self._blobs.lock(exclusive=False, wait=True)
            self._holders += 1

    def _release(self) -> None:
        with self._lock:
            self._holders -= 1
            if not self._holders and not self._pending:
                self._let_go()

    def _let_go(self) -> None:
        if self._held >= 0:
            held, self._held = self._held, -1
            os.close(held)

    def close(self) -> None:
        """See `base.Store.close`. Blobs that no manifest refers to may be collected from now on."""
        with self._lock:
            self._pending.clear()
            self._let_go()
        for directory in (self._temporary, self._blobs, self._root):
            directory.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class BlobFile:
    """A blob being written into a layout (`model.BlobWriter`). One thread at a time."""

    def __init__(self, store: LayoutStore) -> None:
        self._store = store
        self._directory = store._temporary
        self._fd, self._temporary = self._directory.temporary()
        self._hash = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Append; the number of bytes in `data`."""
        view = memoryview(data).cast("B")
        self._hash.update(view)
        written = 0
        with storage_errors(self._directory.shown):
            while written < len(view):
                written += os.write(self._fd, view[written:])
        self.size += written
        return written

    def commit(
        self, media_type: str, annotations: Mapping[str, str] = NO_ANNOTATIONS, *, expect: str = ""
    ) -> Descriptor:
        """Make it durable under its digest and describe it; IntegrityError if that is not `expect`."""
        store, digest = self._store, "sha256:" + self._hash.hexdigest()
        if expect and digest != expect:
            raise IntegrityError(f"blob {expect} has other bytes than its digest says")
        with storage_errors(self._directory.shown):
            os.fsync(self._fd)
        with store._lock:
            store._pending.add(digest)
        self._directory.move(self._temporary, store._blobs, _file_name(digest))
        self._temporary = ""
        self._finish()
        return Descriptor(media_type, digest, self.size, annotations)

    def discard(self) -> None:
        """Forget it; nothing is left. Harmless after commit."""
        if self._temporary:
            name, self._temporary = self._temporary, ""
            self._directory.remove(name)
        self._finish()

    def _finish(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)
            self._store._release()


def _file_name(digest: str) -> str:
    algorithm, _, name = digest.partition(":")
    if algorithm != "sha256" or len(name) != 64 or name.strip("0123456789abcdef"):
        raise IntegrityError(f"{digest[:100]!r} is not a sha256 digest")
    return name
