"""A store whose blobs are read from the local store when they are there.

What was pulled is not fetched again. Tags are always asked of the store itself, so that a restore gets
what the tag means now.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import BinaryIO

from ocickpt.model import Descriptor, Silent
from ocickpt.store.access import Access
from ocickpt.store.base import Store
from ocickpt.store.local import LocalStore
from ocickpt.store.open import open_store
from ocickpt.store.reference import Reference


class CachedSource:
    """The reading half of a Store: blobs from the local store, else from `origin`; manifests from `origin`."""

    def __init__(self, origin: Store, local: LocalStore) -> None:
        self._origin = origin
        self._local = local

    @property
    def name(self) -> str:
        """As `origin` is called in messages."""
        return self._origin.name

    def resolve(self, target: str) -> tuple[Descriptor, bytes]:
        """As in `Store.resolve`."""
        return self._origin.resolve(target)

    def referrers(self, digest: str, artifact_type: str = "") -> list[Descriptor]:
        """As in `Store.referrers`."""
        return self._origin.referrers(digest, artifact_type)

    def read_at(self, blob: Descriptor, offset: int, length: int) -> bytes:
        """As in `BlobSource.read_at`."""
        return self._holder(blob).read_at(blob, offset, length)

    def open_blob(self, blob: Descriptor) -> AbstractContextManager[BinaryIO]:
        """As in `BlobSource.open_blob`."""
        return self._holder(blob).open_blob(blob)

    def fetch(self, blobs: Iterable[Descriptor], jobs: int = 4) -> None:
        """Bring `blobs` into the local store: each once, however many processes want it at the same time.

        They stay there until this is closed, and as long as nobody collects garbage.
        """

        def fetch(blob: Descriptor) -> None:
            with self._local.alone(blob):
                self._local.put_blob(blob, lambda: self._origin.open_blob(blob).__enter__(), Silent())

        with ThreadPoolExecutor(jobs, "fetch") as pool:
            for _ in pool.map(fetch, blobs):
                pass

    def close(self) -> None:
        """Close both."""
        self._origin.close()
        self._local.close()

    def _holder(self, blob: Descriptor) -> Store:
        return self._local if self._local.has_blob(blob) else self._origin


def open_source(reference: Reference, access: Access) -> CachedSource:
    """Where the blobs of `reference` are read. Raises what `open_store` raises."""
    return CachedSource(open_store(reference, access), LocalStore())
