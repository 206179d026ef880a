"""Blobs and manifests to be stored."""

from __future__ import annotations

import random
from collections.abc import Iterable

from ocickpt.model import Descriptor, Manifest, digest_of
from ocickpt.store import Store

TYPE = "application/vnd.example.thing.v1"


def data_of(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def blob_of(data: bytes) -> Descriptor:
    return Descriptor(TYPE, digest_of(data), len(data))


def manifest_of(config: Descriptor, layers: Iterable[Descriptor] = ()) -> bytes:
    return Manifest(config, tuple(layers), TYPE).to_bytes()


def put_artifact(store: Store, tag: str, *contents: bytes) -> tuple[Descriptor, list[Descriptor]]:
    """An artifact of these blobs; the first one is the config as well."""
    blobs = [store.put_blob_bytes(TYPE, content) for content in contents]
    return store.put_manifest(manifest_of(blobs[0], blobs), tag), blobs
