"""Layout directories: what other tools and hostile hands put there, durability, garbage."""

from __future__ import annotations

import errno
import io
import json
import os
import subprocess
import threading
from pathlib import Path

import pytest

from ocickpt import names
from ocickpt.errors import (
    BusyError,
    IntegrityError,
    NotFoundError,
    OcickptError,
    StorageError,
    UnsupportedError,
)
from ocickpt.model import BlobSpool, Descriptor, Silent
from ocickpt.store import Reference, Store, open_store
from ocickpt.store.layout import LayoutStore
from ocickpt.store.registry import RegistryStore
from tests.store.conftest import FAST
from tests.store.material import TYPE, blob_of, data_of, manifest_of, put_artifact


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "layout"


@pytest.fixture
def store(path: Path) -> LayoutStore:
    return LayoutStore(path, create=True)


def blob_file(path: Path, blob: Descriptor) -> Path:
    return path / "blobs" / "sha256" / blob.digest.removeprefix("sha256:")


def index_of(path: Path) -> dict[str, list[dict[str, object]]]:
    found: dict[str, list[dict[str, object]]] = json.loads((path / "index.json").read_bytes())
    return found


def test_the_files_are_those_of_the_specification(store: LayoutStore, path: Path) -> None:
    described, _ = put_artifact(store, "1", b"{}")
    assert json.loads((path / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}
    assert sorted(entry.name for entry in path.iterdir()) == ["blobs", "index.json", "oci-layout"]
    entry = {**described.to_json(), "annotations": {names.ANNOTATION_REF_NAME: "1"}}
    assert index_of(path)["manifests"] == [entry]


def test_the_protocols(store: LayoutStore) -> None:
    spool: BlobSpool = store
    general: Store = store
    writer = spool.new_blob()
    writer.write(bytearray(b"con"))
    writer.write(memoryview(b"tent"))
    assert general.has_blob(writer.commit(TYPE))
    writer.discard()


def test_a_discarded_blob_leaves_nothing(store: LayoutStore, path: Path) -> None:
    before = sorted(path.rglob("*"))
    writer = store.new_blob()
    writer.write(b"content")
    writer.discard()
    writer.discard()
    assert sorted(path.rglob("*")) == before


def test_no_layout(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        open_store(Reference.parse(f"oci:{tmp_path}/nothing"))
    (tmp_path / "file").write_text("x")
    with pytest.raises(NotFoundError):
        LayoutStore(tmp_path / "file")
    with pytest.raises(NotFoundError, match="not an OCI layout"):
        LayoutStore(tmp_path)
    with pytest.raises(StorageError, match="other files"):
        LayoutStore(tmp_path, create=True)


def test_another_version(store: LayoutStore, path: Path) -> None:
    (path / "oci-layout").write_text('{"imageLayoutVersion": "2.0.0"}')
    with pytest.raises(UnsupportedError):
        LayoutStore(path)


def test_made_by_many_at_once(path: Path) -> None:
    failures: list[BaseException] = []

    def make(number: int) -> None:
        try:
            with LayoutStore(path, create=True) as store:
                put_artifact(store, f"t{number}", b"{}", b"%d" % number)
        except BaseException as error:  # noqa: BLE001 - reported below
            failures.append(error)

    threads = [threading.Thread(target=make, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    with LayoutStore(path) as store:
        assert len(store.tags()) == 12


# Hostile layouts.


@pytest.mark.parametrize("kind", ["symlink", "fifo", "directory"])
def test_blobs_that_are_no_files(store: LayoutStore, path: Path, tmp_path: Path, kind: str) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"content")
    blob = blob_of(b"content")
    place = blob_file(path, blob)
    if kind == "symlink":
        place.symlink_to(secret)
    elif kind == "fifo":
        os.mkfifo(place)
    else:
        place.mkdir()
    for read in (lambda: store.read_at(blob, 0, 7), lambda: store.open_blob(blob).read(), lambda: store.has_blob(blob)):
        with pytest.raises(IntegrityError, match="not a regular file"):
            read()
    with pytest.raises(IntegrityError):
        store.resolve(blob.digest)


@pytest.mark.parametrize("name", ["index.json", "oci-layout"])
def test_files_that_are_links(store: LayoutStore, path: Path, tmp_path: Path, name: str) -> None:
    (path / name).rename(tmp_path / "moved")
    (path / name).symlink_to(tmp_path / "moved")
    with pytest.raises(IntegrityError, match="not a regular file"):
        LayoutStore(path).tags()


@pytest.mark.parametrize("name", ["blobs", "blobs/sha256"])
def test_directories_that_are_links(store: LayoutStore, path: Path, tmp_path: Path, name: str) -> None:
    (path / name).rename(tmp_path / "moved")
    (path / name).symlink_to(tmp_path / "moved")
    with pytest.raises(StorageError):
        LayoutStore(path)


@pytest.mark.parametrize("change", [b"", b"conten", b"content!", b"CONTENT"])
def test_changed_blobs(store: LayoutStore, path: Path, change: bytes) -> None:
    blob = store.put_blob_bytes(TYPE, b"content")
    blob_file(path, blob).write_bytes(change)
    with pytest.raises(IntegrityError), store.open_blob(blob) as stream:
        stream.read()
    store.put_blob(blob, lambda: io.BytesIO(b"content"), Silent())
    if len(change) != 7:
        assert store.open_blob(blob).read() == b"content"


def test_a_huge_manifest(store: LayoutStore, path: Path) -> None:
    described, _ = put_artifact(store, "1", b"{}")
    with blob_file(path, described).open("wb") as file:
        file.truncate(5 << 20)
    with pytest.raises(IntegrityError, match="larger than"):
        store.resolve("1")


@pytest.mark.parametrize(
    "index",
    [
        b"",
        b"[]",
        b'{"manifests": 1}',
        b'{"manifests": [1]}',
        b'{"manifests": [{"digest": "sha256:../../x", "size": 1, "mediaType": "x"}]}',
        b"[" * 100_000,
    ],
)
def test_an_index_that_is_none(store: LayoutStore, path: Path, index: bytes) -> None:
    (path / "index.json").write_bytes(index)
    for ask in (store.tags, lambda: store.resolve("1"), lambda: store.delete("1"), store.gc):
        with pytest.raises(IntegrityError):
            ask()


def test_digests_that_are_paths(store: LayoutStore) -> None:
    for digest in ("sha256:../../../etc/passwd", "sha512:" + "0" * 64, "sha256:" + "A" * 64):
        with pytest.raises(OcickptError):
            store.has_blob(Descriptor(TYPE, digest, 1))
        with pytest.raises(OcickptError):
            store.resolve(digest)


# Other tools.


def test_what_others_wrote_stays(store: LayoutStore, path: Path) -> None:
    described, _ = put_artifact(store, "1", b"{}")
    index = index_of(path)
    index["manifests"][0]["platform"] = {"os": "linux"}
    foreign = index | {"x-tool": [{"a": "b"}]}
    (path / "index.json").write_text(json.dumps(foreign))
    put_artifact(store, "2", b"{}")
    assert index_of(path)["x-tool"] == [{"a": "b"}]
    assert index_of(path)["manifests"][0]["platform"] == {"os": "linux"}
    assert store.resolve("1")[0] == described


def _skopeo(*arguments: str) -> str:
    command = ["skopeo", "--insecure-policy", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.mark.lab
def test_skopeo_reads_and_writes_the_same_directories(
    store: LayoutStore, path: Path, tmp_path: Path, docker_registry: str
) -> None:
    described, blobs = put_artifact(store, "1", b"{}", data_of(100_000))
    there = f"{docker_registry}/skopeo/{tmp_path.name.replace('_', '-').lower()}:x"
    _skopeo("copy", "--dest-tls-verify=false", f"oci:{path}:1", f"docker://{there}")
    _skopeo("copy", "--src-tls-verify=false", f"docker://{there}", f"oci:{path}:2")
    _skopeo("copy", f"oci:{path}:1", f"oci:{tmp_path}/made:x")
    assert store.resolve("2")[0] == described
    with LayoutStore(tmp_path / "made") as made:
        assert made.resolve("x")[0] == described
        assert made.open_blob(blobs[1]).read() == data_of(100_000)
    reference = Reference.parse(there)
    with RegistryStore(reference.registry, reference.repository, FAST) as registry:
        assert registry.resolve("x")[0] == described


# Garbage.


def test_garbage_is_collected(store: LayoutStore, path: Path) -> None:
    put_artifact(store, "1", b"{}", b"kept")
    _, blobs = put_artifact(store, "2", b"{}", b"garbage")
    store.untag("2")
    (path / ".ocickpt-0123456789abcdef").write_bytes(b"stale")
    freed = store.gc()
    assert freed == len(manifest_of(blobs[0], blobs)) + len(b"garbage") + len(b"stale")
    assert [store.has_blob(blob) for blob in blobs] == [True, False]
    assert store.gc() == 0


def test_what_is_to_be_kept_is_kept(store: LayoutStore) -> None:
    described, blobs = put_artifact(store, "1", b"{}", b"content")
    store.untag("1")
    assert store.gc(keep=[described.digest]) == 0
    assert all(store.has_blob(blob) for blob in blobs)


def test_nested_indexes_and_docker_manifests_are_followed(store: LayoutStore, path: Path) -> None:
    described, blobs = put_artifact(store, "1", b"{}", b"content")
    inner = json.dumps({"schemaVersion": 2, "manifests": [described.to_json()]}).encode()
    store.untag("1")
    with store.writing():
        nested = store.put_blob_bytes(names.IMAGE_INDEX_TYPE, inner)
        index = index_of(path)
        index["manifests"].append(nested.to_json())
        (path / "index.json").write_text(json.dumps(index))
    store.close()
    with LayoutStore(path) as again:
        again.gc()
        assert all(again.has_blob(blob) for blob in [described, *blobs])


def test_unknown_manifests_stop_the_collection(store: LayoutStore, path: Path) -> None:
    put_artifact(store, "1", b"{}", b"content")
    strange = store.put_blob_bytes("application/x", b'{"unknown": true}')
    index = index_of(path)
    index["manifests"].append(strange.to_json())
    (path / "index.json").write_text(json.dumps(index))
    store.close()
    with LayoutStore(path) as again:
        loose = put_artifact(again, "2", b"{}", b"loose")[1][1]
        again.untag("2")
        with pytest.raises(UnsupportedError):
            again.gc()
        assert again.has_blob(loose)
        again.delete("1")


def test_nothing_is_collected_while_somebody_writes(store: LayoutStore, path: Path) -> None:
    with LayoutStore(path) as other:
        blob = other.put_blob_bytes(TYPE, b"content")
        for one in (store, other):
            with pytest.raises(BusyError):
                one.gc()
        other.put_manifest(manifest_of(blob, [blob]), "1")
        assert store.gc() == 0
        writer = other.new_blob()
        with pytest.raises(BusyError):
            store.gc()
        writer.discard()
        with other.writing(), pytest.raises(BusyError):
            store.gc()
        assert store.gc() == 0


def test_what_was_found_there_is_not_collected_before_the_manifest(store: LayoutStore, path: Path) -> None:
    _, blobs = put_artifact(store, "1", b"{}", b"content")
    with LayoutStore(path) as other:
        other.put_blob(blobs[1], lambda: pytest.fail("was read"), Silent())
        store.delete("1")
        assert other.has_blob(blobs[1])


def test_a_writer_that_died_is_cleaned_up(store: LayoutStore, path: Path) -> None:
    with LayoutStore(path) as other:
        other.put_blob_bytes(TYPE, b"content")
        dead = other.new_blob()
        dead.write(b"half")
        os.close(dead._fd)
    assert store.gc() == len(b"content" + b"half")


# Full disks.


def test_a_full_disk(store: LayoutStore, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, data: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(StorageError, match=f"there is no space left for {path}"):
        store.put_blob_bytes(TYPE, b"content")
    monkeypatch.undo()
    assert not store.has_blob(blob_of(b"content"))
    assert not list(path.glob(".ocickpt-*"))


def test_a_read_only_layout_can_be_read(store: LayoutStore, path: Path) -> None:
    described, blobs = put_artifact(store, "1", b"{}", b"content")
    for folder in [path, *path.rglob("*")]:
        folder.chmod(0o555 if folder.is_dir() else 0o444)
    with LayoutStore(path) as again:
        assert again.resolve("1")[0] == described
        assert again.open_blob(blobs[1]).read() == b"content"
    for folder in [path, *path.rglob("*")]:
        folder.chmod(0o755)
