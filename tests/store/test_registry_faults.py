"""A registry that loses connections, is busy, lies, or leads elsewhere."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from ocickpt import names
from ocickpt.errors import IntegrityError, NotFoundError, OcickptError, RegistryError, UnsupportedError
from ocickpt.model import Descriptor
from ocickpt.store import Access, Retry, copy_blobs
from ocickpt.store.registry import RegistryStore
from tests.store.conftest import FAST, Counted
from tests.store.material import TYPE, blob_of, data_of, manifest_of, put_artifact
from tests.store.registry_server import Registry, serve


@pytest.fixture
def store(registry: Registry) -> RegistryStore:
    return RegistryStore(registry.host, "web", FAST)


def read(store: RegistryStore, blob: Descriptor) -> bytes:
    with store.open_blob(blob) as stream:
        return stream.read()


# Busy and unreachable.


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_busy_for_a_while(registry: Registry, store: RegistryStore, status: int) -> None:
    blob = store.put_blob_bytes(TYPE, b"content")
    registry.faults.answers = [(status, ""), (status, "0"), (status, "Fri, 01 Jan 2016 00:00:00 GMT")]
    assert store.read_at(blob, 0, 7) == b"content"


def test_busy_for_ever(registry: Registry, store: RegistryStore) -> None:
    registry.faults.answers = [(503, "1000000")] * 100
    with pytest.raises(RegistryError, match=r"answers 503 for the tags of .*: slow.\[31m down") as caught:
        store.tags()
    assert "\x1b" not in caught.value.message
    assert len(registry.faults.answers) == 100 - FAST.retry.attempts


def test_other_errors_are_not_repeated(registry: Registry, store: RegistryStore) -> None:
    registry.faults.answers = [(418, "")]
    with pytest.raises(RegistryError, match="answers 418"):
        store.tags()


def test_unreachable() -> None:
    with RegistryStore("127.0.0.1:1", "web", FAST) as store, pytest.raises(RegistryError) as caught:
        store.tags()
    assert caught.value.message == "127.0.0.1:1 cannot be reached: Connection refused"


def test_no_such_host() -> None:
    with RegistryStore("registry.invalid", "web", FAST) as store, pytest.raises(RegistryError) as caught:
        store.tags()
    assert caught.value.message.startswith("registry.invalid cannot be reached: ")


# Uploads.


def test_a_cut_upload_goes_on_where_it_broke(registry: Registry, store: RegistryStore, counted: Counted) -> None:
    data = data_of(5_000_000)
    registry.faults.drop_upload_after = [1_000_000, 2_000_000]
    store.put_blob(blob_of(data), lambda: io.BytesIO(data), counted)
    assert read(store, blob_of(data)) == data
    ranges = [seen.headers.get("Content-Range") for seen in registry.asked("PATCH", "")]
    assert ranges == [None, "1000000-4999999", "3000000-4999999"]
    assert len(registry.asked("POST", "")) == 1
    assert counted.advanced == len(data)


def test_a_cut_upload_starts_over_when_the_session_is_gone(
    registry: Registry, store: RegistryStore, counted: Counted
) -> None:
    data = data_of(5_000_000)
    registry.faults.drop_upload_after = [1_000_000]
    registry.faults.forget_sessions = True
    store.put_blob(blob_of(data), lambda: io.BytesIO(data), counted)
    assert read(store, blob_of(data)) == data
    assert len(registry.asked("POST", "")) == 2
    assert counted.advanced == len(data)


def test_an_upload_that_is_always_cut(registry: Registry, store: RegistryStore, counted: Counted) -> None:
    data = data_of(1_000_000)
    registry.faults.drop_upload_after = [1] * 1000
    with pytest.raises(RegistryError, match=r"connection .* lost"):
        store.put_blob(blob_of(data), lambda: io.BytesIO(data), counted)
    assert len(registry.asked("PATCH", "")) == FAST.retry.attempts


def test_an_upload_whose_answer_is_lost(registry: Registry, store: RegistryStore, counted: Counted) -> None:
    registry.faults.lose_answer = 1
    store.put_blob(blob_of(b"content"), lambda: io.BytesIO(b"content"), counted)
    assert len(registry.asked("PUT", "")) == 1
    assert counted.advanced == 7


def test_busy_during_an_upload(registry: Registry, store: RegistryStore, counted: Counted) -> None:
    assert store.tags() == []
    for before in range(4):
        content = f"content {before}".encode()
        registry.faults.answers = [(503, "0")]
        store.put_blob(blob_of(content), lambda content=content: io.BytesIO(content), counted)  # type: ignore[misc]
        assert read(store, blob_of(content)) == content


def test_stored_otherwise(registry: Registry, store: RegistryStore) -> None:
    _, blobs = put_artifact(store, "1", b"{}")
    registry.faults.wrong_digest = True
    with pytest.raises(IntegrityError, match="other bytes"):
        store.put_blob_bytes(TYPE, b"content")
    with pytest.raises(IntegrityError, match="another manifest"):
        store.put_manifest(manifest_of(blobs[0]), "2")


def test_an_unreadable_source_is_not_a_lost_connection(registry: Registry, store: RegistryStore) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise OSError(5, "Input/output error")

    with pytest.raises(OcickptError, match="Input/output error"):
        store.put_blob(blob_of(b"content"), Broken, Counted())
    assert len(registry.asked("PATCH", "")) <= 1


def test_mounting(registry: Registry, store: RegistryStore, counted: Counted) -> None:
    blob = store.put_blob_bytes(TYPE, b"content")
    with RegistryStore(registry.host, "other", FAST) as other:
        copy_blobs(store, other, [blob], counted)
        assert read(other, blob) == b"content"
    assert (counted.advanced, counted.there) == (0, 7)
    assert len(registry.asked("PATCH", "")) == 1


def test_where_nothing_is_mounted_it_is_copied(registry: Registry, store: RegistryStore, counted: Counted) -> None:
    blob = store.put_blob_bytes(TYPE, b"content")
    registry.faults.no_mount = True
    with RegistryStore(registry.host, "other", FAST) as other:
        copy_blobs(store, other, [blob], counted)
        assert read(other, blob) == b"content"
    assert counted.advanced == 7
    assert registry.sessions == {}


# Downloads.


def test_a_cut_download_goes_on_where_it_broke(registry: Registry, store: RegistryStore) -> None:
    data = data_of(3_000_000)
    blob = store.put_blob_bytes(TYPE, data)
    registry.faults.drop_download_after = [1_500_000, 0, 10]
    assert read(store, blob) == data
    registry.faults.drop_download_after = [100, 0]
    assert store.read_at(blob, 1000, 2000) == data[1000:3000]


def test_a_cut_download_without_ranges(registry: Registry, store: RegistryStore) -> None:
    data = data_of(3_000_000)
    blob = store.put_blob_bytes(TYPE, data)
    registry.faults.no_ranges = True
    registry.faults.drop_download_after = [2_500_000]
    assert read(store, blob) == data


def test_a_download_that_is_always_cut(registry: Registry, store: RegistryStore) -> None:
    blob = store.put_blob_bytes(TYPE, data_of(100_000))
    registry.faults.drop_download_after = [0] * 1000
    with pytest.raises(RegistryError, match="lost while reading"):
        read(store, blob)
    with pytest.raises(RegistryError, match="lost while reading"):
        store.read_at(blob, 0, 10)


def test_a_download_a_few_bytes_at_a_time(registry: Registry, store: RegistryStore) -> None:
    blob = store.put_blob_bytes(TYPE, data_of(100_000))
    registry.faults.drop_download_after = [100] * 1000
    with pytest.raises(RegistryError, match="lost while reading"):
        read(store, blob)
    assert len(registry.asked("GET", "/blobs/")) <= FAST.retry.attempts


def test_a_long_download_may_break_often(registry: Registry, store: RegistryStore) -> None:
    data = data_of(12_000_000)
    blob = store.put_blob_bytes(TYPE, data)
    registry.faults.drop_download_after = [1_200_000] * 9
    assert read(store, blob) == data


def test_everything_instead_of_a_range(registry: Registry, store: RegistryStore) -> None:
    data = data_of(3_000_000)
    blob = store.put_blob_bytes(TYPE, data)
    registry.faults.no_ranges = True
    for offset in (2_000_000, 0, 2_999_990, 1_000_000):
        assert store.read_at(blob, offset, 10) == data[offset : offset + 10]
    # Remembered: the first answer shows it, the second fetches the blob, the others need nothing.
    assert len(registry.asked("GET", "/blobs/")) == 2
    store.close()


def test_another_range(registry: Registry, store: RegistryStore) -> None:
    blob = store.put_blob_bytes(TYPE, data_of(10_000))
    registry.faults.other_ranges = True
    with pytest.raises(IntegrityError, match="another range"):
        store.read_at(blob, 10, 10)


def test_changed_bodies(registry: Registry, store: RegistryStore) -> None:
    described, blobs = put_artifact(store, "1", b"{}", data_of(10_000))
    registry.faults.change = b"["
    with pytest.raises(IntegrityError, match="other bytes"):
        read(store, blobs[1])
    for target in ("1", described.digest):
        with pytest.raises(IntegrityError):
            store.resolve(target)


def test_endless_bodies(registry: Registry, store: RegistryStore) -> None:
    _, blobs = put_artifact(store, "1", b"{}", data_of(10_000))
    registry.faults.endless = True
    with pytest.raises(IntegrityError, match="longer than"):
        read(store, blobs[1])
    with pytest.raises(IntegrityError, match="larger than 4 MiB"):
        store.resolve("1")
    assert store.read_at(blobs[1], 10, 10) == data_of(10_000)[10:20]


# Redirects.


def test_redirects_do_not_carry_credentials(registry: Registry, store: RegistryStore, home: object) -> None:
    blob = store.put_blob_bytes(TYPE, b"content")
    with serve() as elsewhere:
        elsewhere.blobs = registry.blobs
        registry.faults.redirect_to = elsewhere.url
        assert read(store, blob) == b"content"
        assert store.read_at(blob, 2, 3) == b"nte"
        assert [seen.headers.get("Range") for seen in elsewhere.asked("GET", "/blobs/")] == [None, "bytes=2-4"]
        assert all("Authorization" not in seen.headers for seen in elsewhere.log)


@pytest.mark.parametrize(
    "location", ["=ftp://elsewhere/x", "=file:///etc/passwd", "=http://[x", "=http://a b\x01/", "=http://\xe4\xe4:x/"]
)
def test_redirects_to_something_else(registry: Registry, store: RegistryStore, location: str) -> None:
    blob = store.put_blob_bytes(TYPE, b"content")
    registry.faults.redirect_to = location
    with pytest.raises(RegistryError):
        read(store, blob)


def test_redirects_in_circles(registry: Registry, store: RegistryStore) -> None:
    blob = store.put_blob_bytes(TYPE, b"content")
    registry.faults.redirect_to = registry.url
    with pytest.raises(RegistryError, match="in circles"):
        read(store, blob)
    assert len(registry.asked("GET", "/blobs/")) <= 10


# Manifests and tags.


def test_manifests_of_other_kinds(registry: Registry, store: RegistryStore) -> None:
    put_artifact(store, "1", b"{}")
    docker = "application/vnd.docker.distribution.manifest.v2+json"
    kinds: list[tuple[str, dict[str, Any], str]] = [
        (names.IMAGE_INDEX_TYPE, {"manifests": []}, "image index"),
        (docker, {"config": {}, "layers": [], "mediaType": docker}, "docker image manifest"),
        ("application/x", {"layers": []}, "not an OCI image manifest"),
    ]
    for number, (media_type, value, sentence) in enumerate(kinds):
        data = json.dumps({"schemaVersion": 2, **value}).encode()
        digest = blob_of(data).digest
        registry.manifests["web", digest] = (media_type, data)
        registry.tags["web", f"x{number}"] = digest
        with pytest.raises(UnsupportedError, match=sentence):
            store.resolve(f"x{number}")


def test_tags_in_pages(registry: Registry, store: RegistryStore) -> None:
    for number in range(7):
        put_artifact(store, f"t{number}", b"{}")
    registry.faults.page = 3
    assert store.tags() == [f"t{number}" for number in range(7)]
    assert len(registry.asked("GET", "tags/list")) == 3


def test_tags_without_end(registry: Registry, store: RegistryStore) -> None:
    put_artifact(store, "1", b"{}")
    registry.faults.endless_pages = True
    with pytest.raises(RegistryError, match="does not end"):
        store.tags()


def test_deleting_forbidden(registry: Registry, store: RegistryStore) -> None:
    put_artifact(store, "1", b"{}")
    registry.faults.no_delete = True
    with pytest.raises(UnsupportedError, match="does not allow deleting") as caught:
        store.delete("1")
    assert "storage.delete.enabled" in caught.value.hint


def test_a_deadline() -> None:
    hurry = Access(tls_verify=False, retry=Retry(attempts=1000, base=0.05, ceiling=0.05, total=0.2))
    with serve() as registry, RegistryStore(registry.host, "web", hurry) as store:
        registry.faults.answers = [(503, "")] * 1000
        with pytest.raises(RegistryError, match="503"):
            store.tags()
        assert len(registry.faults.answers) > 900


def test_a_gone_blob(registry: Registry, store: RegistryStore) -> None:
    with pytest.raises(NotFoundError, match="does not have blob sha256:"):
        read(store, blob_of(b"content"))
