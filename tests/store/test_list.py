"""What `ocickpt list` makes of a repository: how often it asks, what it leaves out, and what it says is wrong."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ocickpt import artifact, names
from ocickpt.artifact import publishing
from ocickpt.errors import AuthError, RegistryError, UsageError
from ocickpt.library import catalog
from ocickpt.library.catalog import Listed, list_checkpoints
from ocickpt.model import Descriptor, Manifest, Silent, digest_of
from ocickpt.store import Store, open_store
from ocickpt.store.local import LocalStore
from ocickpt.store.reference import Reference
from ocickpt.store.registry import RegistryStore
from tests.store.conftest import FAST
from tests.store.material import TYPE
from tests.store.registry_server import Registry
from tests.unit.test_description import FULL

INDEX = b"an index"


def put(store: Store, tag: str, *, kind: str = names.ARTIFACT_TYPE, config: str = names.CONFIG_TYPE) -> Manifest:
    """A checkpoint as far as it is looked at here."""
    blob = store.put_blob_bytes(config, FULL.to_bytes())
    index = store.put_blob_bytes(names.INDEX_TYPE, INDEX)
    annotations = {
        names.ANNOTATION_CREATED: FULL.created,
        names.ANNOTATION_CONTAINER: FULL.container.name,
        names.ANNOTATION_IMAGE_NAME: FULL.image.name,
    }
    manifest = Manifest(blob, (index,), kind, annotations)
    store.put_manifest(manifest.to_bytes(), tag)
    return manifest


class Noted(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture(params=["registry", "oci", "local", "whole local store"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, str | None, Store]]:
    """The medium, what `list` is asked for, and the repository to write to."""
    medium = request.param
    if medium == "registry":
        repo = f"{request.getfixturevalue('registry').host}/web"
    else:
        repo = f"oci:{tmp_path / 'layout'}" if medium == "oci" else "web"
    store = open_store(Reference.parse(repo), FAST, create=True)
    yield medium, None if medium == "whole local store" else repo, store
    store.close()


def listed(repo: str | None) -> dict[str, Listed]:
    return {each.name.rpartition(":")[2]: each for each in list_checkpoints(repo, FAST)}


def test_all_that_is_shown(place: tuple[str, str | None, Store]) -> None:
    _, repo, store = place
    manifest = put(store, "1")
    found = listed(repo)["1"]
    size = len(FULL.to_bytes()) + len(INDEX)
    shown = (found.digest, found.created, found.container, found.image, found.size, found.state)
    assert shown == (manifest.descriptor().digest, FULL.created, FULL.container.name, FULL.image.name, size, "")


def test_what_is_no_checkpoint_is_left_out(place: tuple[str, str | None, Store]) -> None:
    medium, repo, store = place
    put(store, "checkpoint")
    put(store, "signature", kind="application/vnd.dev.cosign.artifact.sig.v1+json", config="application/x")
    put(store, "image", kind="", config="application/vnd.oci.image.config.v1+json")
    if medium == "oci":
        path = Path(str(repo).removeprefix("oci:"))
        index = json.loads((path / "index.json").read_text())
        several = json.dumps({"schemaVersion": 2, "mediaType": names.IMAGE_INDEX_TYPE, "manifests": []}).encode()
        (path / "blobs" / "sha256" / digest_of(several)[7:]).write_bytes(several)
        described = {"mediaType": names.IMAGE_INDEX_TYPE, "digest": digest_of(several), "size": len(several)}
        index["manifests"].append(described | {"annotations": {names.ANNOTATION_REF_NAME: "several"}})
        index["manifests"].append(index["manifests"][0] | {"annotations": {names.ANNOTATION_REF_NAME: "no tag/at all"}})
        (path / "index.json").write_text(json.dumps(index))
    assert list(listed(repo)) == ["checkpoint"]


def test_what_is_newer_or_damaged_is_said_to_be(place: tuple[str, str | None, Store]) -> None:
    _, repo, store = place
    later = "application/vnd.ocickpt.checkpoint."
    put(store, "newer", kind=f"{later}v2", config=f"{later}config.v2+json")
    config = store.put_blob_bytes(names.CONFIG_TYPE, FULL.to_bytes())
    store.put_manifest(Manifest(config, (), names.ARTIFACT_TYPE).to_bytes(), "damaged")
    put(store, "good")
    found = listed(repo)
    assert found["newer"].state.endswith("newer was made by a newer ocickpt")
    assert found["damaged"].state == "damaged: a checkpoint has one index, this one 0"
    assert found["good"].state == ""


@pytest.mark.parametrize("place", ["oci", "local", "whole local store"], indirect=True)
@pytest.mark.parametrize("damage", ["manifest", "manifest gone", "config", "config gone", "index", "index gone"])
def test_what_is_damaged_on_this_host_does_not_disappear(place: tuple[str, str | None, Store], damage: str) -> None:
    _, repo, store = place
    manifest = put(store, "1")
    what = {"manifest": manifest.descriptor(), "config": manifest.config, "index": manifest.layers[0]}
    path = store.path / "blobs" / "sha256" / what[damage.split(maxsplit=1)[0]].digest[7:]  # type: ignore[attr-defined]
    if damage.endswith("gone"):
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-1])
    assert listed(repo)["1"].state.startswith("damaged: ")


def test_a_manifest_of_a_registry_that_is_none(registry: Registry) -> None:
    with RegistryStore(registry.host, "web", FAST, write=True) as store:
        put(store, "1")
    registry.faults.change = b"["
    assert listed(f"{registry.host}/web")["1"].state.startswith("damaged: ")


@pytest.mark.parametrize(("status", "error"), [(503, RegistryError), (500, RegistryError), (403, AuthError)])
def test_a_registry_that_fails_is_not_empty(registry: Registry, status: int, error: type[Exception]) -> None:
    with RegistryStore(registry.host, "web", FAST, write=True) as store:
        for tag in ("1", "2", "3"):
            put(store, tag)

    class Later(list[tuple[int, str]]):
        """Nothing for the list of tags, then this."""

        def __bool__(self) -> bool:
            return bool(registry.asked("GET", "tags/list")) and bool(registry.asked("GET", "manifests"))

    registry.faults.answers = Later([(status, "")] * 1000)
    with pytest.raises(error, match=str(status) if status != 403 else "does not permit"):
        list_checkpoints(f"{registry.host}/web", FAST)


def test_a_tag_that_goes_meanwhile_is_left_out(registry: Registry) -> None:
    with RegistryStore(registry.host, "web", FAST, write=True) as store:
        put(store, "1")
        other = put(store, "2")
    registry.tags["web", "2"] = digest_of(b"gone")
    assert list(listed(f"{registry.host}/web")) == ["1"]
    assert other


def test_a_request_a_tag_and_several_at_a_time(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    count = 40
    with RegistryStore(registry.host, "web", FAST, write=True) as store:
        for number in range(count):
            put(store, f"{number:03}")
    registry.log.clear()
    together = threading.Barrier(4, timeout=10)
    real = artifact.index_of
    waited = iter(range(4))

    def index_of(manifest: Manifest) -> Descriptor:
        if next(waited, None) is not None:
            together.wait()
        return real(manifest)

    monkeypatch.setattr(artifact, "index_of", index_of)
    noted = Noted()
    found = list_checkpoints(f"{registry.host}/web", FAST, 30, noted)
    assert [each.name[-3:] for each in found] == [f"{number:03}" for number in range(10, count)]
    assert noted.notes == ["of 40 tags the last 30 by name were looked at; --limit changes how many"]
    assert len(registry.log) == 1 + 1 + 30  # /v2/, the list of tags, a manifest each


def test_a_thousand_if_nothing_is_said(registry: Registry) -> None:
    with RegistryStore(registry.host, "web", FAST, write=True) as store:
        manifest = put(store, "00000")
    for number in range(1, 1200):
        registry.tags["web", f"{number:05}"] = manifest.descriptor().digest
    assert len(list_checkpoints(f"{registry.host}/web", FAST)) == catalog.LIMIT == 1000


def test_the_newest_to_build_upon_is_found_beside_what_is_damaged(registry: Registry) -> None:
    with RegistryStore(registry.host, "web", FAST, write=True) as store:
        config = store.put_blob_bytes(names.CONFIG_TYPE, FULL.to_bytes())
        store.put_manifest(Manifest(config, (), names.ARTIFACT_TYPE).to_bytes(), "damaged")
        store.put_manifest(Manifest(config, (), TYPE).to_bytes(), "image")
        good = put(store, "good")
        noted = Noted()
        found = publishing._newest(store, FULL.container.name, noted)
    assert found
    assert found[0] == good.descriptor()
    assert noted.notes == ["damaged cannot be built upon: a checkpoint has one index, this one 0"]


def test_a_limit_of_nothing_makes_no_sense(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        list_checkpoints(f"oci:{tmp_path / 'layout'}", FAST, 0)


def test_names_in_the_local_store_that_look_like_registries(tmp_path: Path) -> None:
    """Other tools may write there, and nobody is asked for anything because of it."""
    with LocalStore() as local:
        put(local, "127.0.0.1:1/web:1")
        put(local, "Some thing:1")
    assert sorted(each.name for each in list_checkpoints(None, FAST)) == ["127.0.0.1:1/web:1", "Some thing:1"]


def test_what_is_a_checkpoints_own(place: tuple[str, str | None, Store]) -> None:
    """What others have too is not: not what a second tag of the same manifest has, either."""
    _, repo, store = place
    config = store.put_blob_bytes(names.CONFIG_TYPE, FULL.to_bytes())
    index = store.put_blob_bytes(names.INDEX_TYPE, INDEX)
    shared, own = (
        store.put_blob_bytes("application/vnd.ocickpt.pack.v1.memory+zstd", data) for data in (b"x" * 9, b"y")
    )
    annotations = {names.ANNOTATION_PARENT: f"sha256:{'0' * 64}"}
    first = Manifest(config, (index, shared), names.ARTIFACT_TYPE).to_bytes()
    second = Manifest(config, (index, shared, own), names.ARTIFACT_TYPE, annotations).to_bytes()
    for tag, data in (("1", first), ("2", second), ("again", second)):
        store.put_manifest(data, tag)
    found = listed(repo)
    assert [(found[tag].own, found[tag].parent) for tag in ("1", "2", "again")] == [
        (0, ""),
        (1, annotations[names.ANNOTATION_PARENT]),
        (1, annotations[names.ANNOTATION_PARENT]),
    ]
