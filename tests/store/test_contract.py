"""What every store promises (`ocickpt.store.base.Store`), asked of every medium."""

from __future__ import annotations

import io
import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from ocickpt import names
from ocickpt.errors import IntegrityError, NotFoundError, OcickptError, UnsupportedError
from ocickpt.model import Descriptor, Manifest
from ocickpt.store import Store, copy_blobs
from ocickpt.store.registry import RegistryStore
from tests.store.conftest import Counted, MakeStore
from tests.store.material import TYPE, blob_of, data_of, manifest_of, put_artifact


@pytest.mark.parametrize("size", [0, 1, 65536, 3_000_001])
def test_a_blob_comes_back_whole(store: Store, counted: Counted, size: int) -> None:
    data = data_of(size)
    blob = blob_of(data)
    assert not store.has_blob(blob)
    store.put_blob(blob, lambda: io.BytesIO(data), counted)
    assert store.has_blob(blob)
    assert (counted.advanced, counted.there) == (size, 0)
    with store.open_blob(blob) as stream:
        assert stream.read() == data


def test_a_blob_is_put_once(store: Store, counted: Counted) -> None:
    blob = store.put_blob_bytes(TYPE, b"content")
    store.put_blob(blob, lambda: pytest.fail("was read again"), counted)
    assert (counted.advanced, counted.there) == (0, 7)


@pytest.mark.parametrize("wrong", [b"", b"conten", b"content!", b"CONTENT"])
def test_other_bytes_are_not_stored(store: Store, counted: Counted, wrong: bytes) -> None:
    blob = blob_of(b"content")
    with pytest.raises(IntegrityError):
        store.put_blob(blob, lambda: io.BytesIO(wrong), counted)
    assert not store.has_blob(blob)


def test_the_source_is_closed(store: Store, counted: Counted) -> None:
    stream = io.BytesIO(b"content")
    store.put_blob(blob_of(b"content"), lambda: stream, counted)
    assert stream.closed


def test_annotations_are_described(store: Store) -> None:
    blob = store.put_blob_bytes(TYPE, b"content", {"a": "b"})
    assert blob == Descriptor(TYPE, blob_of(b"content").digest, 7, {"a": "b"})


@pytest.mark.parametrize(("offset", "length"), [(0, 1), (0, 100_000), (99_999, 1), (4096, 65536), (7, 0), (100_000, 0)])
def test_ranges(store: Store, offset: int, length: int) -> None:
    data = data_of(100_000)
    blob = store.put_blob_bytes(TYPE, data)
    assert store.read_at(blob, offset, length) == data[offset : offset + length]


@pytest.mark.parametrize(("offset", "length"), [(0, 8), (7, 1), (-1, 2), (3, -1)])
def test_ranges_outside_the_blob_are_refused(store: Store, offset: int, length: int) -> None:
    blob = store.put_blob_bytes(TYPE, b"content")
    with pytest.raises(IntegrityError):
        store.read_at(blob, offset, length)


def test_ranges_from_many_threads(store: Store) -> None:
    data = data_of(1_000_000)
    blob = store.put_blob_bytes(TYPE, data)
    offsets = range(0, 999_000, 9_000)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda offset: store.read_at(blob, offset, 1_000), offsets))
    assert found == [data[offset : offset + 1_000] for offset in offsets]


def test_a_missing_blob(store: Store) -> None:
    store.put_blob_bytes(TYPE, b"another")
    with pytest.raises(NotFoundError):
        store.read_at(blob_of(b"content"), 0, 1)
    with pytest.raises(NotFoundError), store.open_blob(blob_of(b"content")) as stream:
        stream.read()


@pytest.mark.parametrize("size", [6, 8])
def test_a_descriptor_with_another_size(store: Store, size: int) -> None:
    true = store.put_blob_bytes(TYPE, b"content")
    false = Descriptor(true.media_type, true.digest, size)
    assert not store.has_blob(false)
    with pytest.raises(IntegrityError), store.open_blob(false) as stream:
        stream.read()


def test_a_manifest_by_tag_and_by_digest(store: Store) -> None:
    described, blobs = put_artifact(store, "1", b"{}", b"content")
    data = manifest_of(blobs[0], blobs)
    assert described == Manifest.from_bytes(data).descriptor()
    assert store.resolve("1") == (described, data)
    assert store.resolve(described.digest) == (described, data)
    assert store.tags() == ["1"]


def test_a_tag_moves(store: Store) -> None:
    first, _ = put_artifact(store, "1", b"{}", b"first")
    second, _ = put_artifact(store, "1", b"{}", b"second")
    assert first != second
    assert store.resolve("1")[0] == second
    assert store.tags() == ["1"]


def test_a_manifest_without_a_tag(store: Store) -> None:
    described, _ = put_artifact(store, "", b"{}")
    assert store.resolve(described.digest)[0] == described
    assert store.tags() == []


def test_many_tags(store: Store) -> None:
    for tag in ("b", "a_1", "A.2-x"):
        put_artifact(store, tag, b"{}")
    assert store.tags() == ["A.2-x", "a_1", "b"]


def test_nothing_there(store: Store) -> None:
    assert store.tags() == []
    for target in ("1", blob_of(b"x").digest):
        with pytest.raises(NotFoundError):
            store.resolve(target)
        with pytest.raises(NotFoundError):
            store.delete(target)


def test_only_manifests_are_put(store: Store) -> None:
    for data in (b"", b"[]", b"{}", b'{"schemaVersion":1}', b"{" * 100_000):
        with pytest.raises((IntegrityError, UnsupportedError)):
            store.put_manifest(data, "1")
    index = {"schemaVersion": 2, "mediaType": names.IMAGE_INDEX_TYPE, "manifests": []}
    with pytest.raises(UnsupportedError, match="image index"):
        store.put_manifest(json.dumps(index).encode(), "1")
    assert store.tags() == []


def test_deleting(store: Store) -> None:
    described, _ = put_artifact(store, "1", b"{}", b"content")
    other, blobs = put_artifact(store, "2", b"{}", b"other")
    assert store.delete("1") == described
    with pytest.raises(NotFoundError):
        store.resolve("1")
    assert store.delete(other.digest).digest == other.digest
    with pytest.raises(NotFoundError):
        store.resolve("2")
    if not isinstance(store, RegistryStore):
        assert not any(store.has_blob(blob) for blob in blobs)


def test_deleting_keeps_what_others_share(store: Store) -> None:
    put_artifact(store, "1", b"{}", b"shared")
    _, blobs = put_artifact(store, "2", b"{}", b"shared", b"own")
    store.delete("1")
    assert store.tags() == ["2"]
    assert all(store.has_blob(blob) for blob in blobs)


def test_untagging(store: Store) -> None:
    described, _ = put_artifact(store, "1", b"{}", b"content")
    put_artifact(store, "2", b"{}", b"content")
    try:
        store.untag("1")
    except UnsupportedError as error:
        assert isinstance(store, RegistryStore)
        assert "does not allow" in error.message
        return
    assert store.tags() == ["2"]
    assert store.resolve("2")[0] == described
    with pytest.raises(NotFoundError):
        store.untag("1")


def test_repositories_are_apart(make_store: MakeStore) -> None:
    one, two = make_store("one"), make_store("two/three")
    put_artifact(one, "1", b"{}")
    assert two.tags() == []
    with pytest.raises(NotFoundError):
        two.resolve("1")


def test_copying(make_store: MakeStore, counted: Counted) -> None:
    one, two = make_store("one"), make_store("two")
    contents = [b"{}", *(data_of(200_000, seed) for seed in range(9))]
    _, blobs = put_artifact(one, "1", *contents)
    two.put_blob_bytes(TYPE, contents[3])
    copy_blobs(one, two, [*blobs, blobs[4]], counted)
    _, manifest = one.resolve("1")
    assert two.put_manifest(manifest, "9") == one.resolve("1")[0]
    for blob, content in zip(blobs, contents, strict=True):
        with two.open_blob(blob) as stream:
            assert stream.read() == content
    assert counted.advanced + counted.there == sum(map(len, contents))


def test_copying_what_is_not_there(make_store: MakeStore, counted: Counted) -> None:
    one, two = make_store("one"), make_store("two")
    blob = one.put_blob_bytes(TYPE, b"content")
    with pytest.raises(NotFoundError):
        copy_blobs(one, two, [blob, blob_of(b"missing")], counted)


def test_names_are_for_people(store: Store) -> None:
    assert "web" in store.name
    with pytest.raises(OcickptError, match="web"):
        store.resolve("1")


def test_closing_twice(make_store: MakeStore) -> None:
    store = make_store("web")
    store.put_blob_bytes(TYPE, b"content")
    store.close()
    store.close()
