"""Artifacts about others: what every store promises of them, and a registry that has no API for it, or lies."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ocickpt import names
from ocickpt.errors import ForeignError, IntegrityError, NotFoundError, OcickptError, RegistryError, UnsupportedError
from ocickpt.model import Descriptor, Manifest, digest_of
from ocickpt.store import CachedSource, Store, referrers
from ocickpt.store.layout import LayoutStore
from ocickpt.store.local import LocalStore
from ocickpt.store.registry import RegistryStore
from tests.store.conftest import FAST, MakeStore
from tests.store.material import TYPE, manifest_of, put_artifact
from tests.store.registry_server import INDEX_TYPE, Registry

SIGNATURE = "application/vnd.example.signature.v1"
STATEMENT = "application/vnd.example.statement+json"
NOBODY = "sha256:" + "5" * 64


def about(store: Store, subject: Descriptor, by: str, kind: str = SIGNATURE, tag: str = "") -> Descriptor:
    """Put an artifact of that kind about `subject`; how it is to be listed."""
    config = store.put_blob_bytes(TYPE, b"{}")
    data = Manifest(config, (), kind, {"by": by}, subject).to_bytes()
    put = store.put_manifest(data, tag)
    return Descriptor(put.media_type, put.digest, put.size, {"by": by}, kind)


def listed(store: Store, digest: str, kind: str = "") -> list[Descriptor]:
    return sorted(store.referrers(digest, kind), key=lambda each: each.digest)


def in_order(*found: Descriptor) -> list[Descriptor]:
    return sorted(found, key=lambda each: each.digest)


# What every store promises.


def nothing_is_about_what_nothing_is_about(store: Store) -> None:
    assert store.referrers(NOBODY) == []
    thing, _ = put_artifact(store, "1", b"{}")
    assert store.referrers(thing.digest) == []


def all_of_them_with_annotations_and_type(store: Store) -> None:
    thing, _ = put_artifact(store, "1", b"{}", b"content")
    other, _ = put_artifact(store, "2", b"{}", b"another")
    found = [about(store, thing, "a"), about(store, thing, "b", tag="signed"), about(store, thing, "c", STATEMENT)]
    apart = about(store, other, "a")
    assert listed(store, thing.digest) == in_order(*found)
    assert [each.annotations for each in listed(store, thing.digest)] == [each.annotations for each in in_order(*found)]
    assert listed(store, other.digest) == [apart]
    for each in found:
        assert store.resolve(each.digest)[0].digest == each.digest


def of_one_type(store: Store) -> None:
    thing, _ = put_artifact(store, "1", b"{}")
    signature, statement = about(store, thing, "a"), about(store, thing, "a", STATEMENT)
    assert store.referrers(thing.digest, SIGNATURE) == [signature]
    assert store.referrers(thing.digest, STATEMENT) == [statement]
    assert store.referrers(thing.digest, "application/vnd.example.other") == []


def the_type_is_that_of_the_config_where_there_is_no_other(store: Store) -> None:
    thing, _ = put_artifact(store, "1", b"{}")
    config = store.put_blob_bytes(STATEMENT, b"{}")
    value = json.loads(Manifest(config, (), "", {"by": "a"}, thing).to_bytes())
    del value["artifactType"]
    put = store.put_manifest(json.dumps(value).encode(), "")
    found = Descriptor(put.media_type, put.digest, put.size, {"by": "a"}, STATEMENT)
    assert store.referrers(thing.digest, STATEMENT) == store.referrers(thing.digest) == [found]


def what_comes_before_its_subject(store: Store) -> None:
    config = store.put_blob_bytes(TYPE, b"{}")
    data = manifest_of(config)
    early = about(store, Manifest.from_bytes(data).descriptor(), "early")
    assert store.referrers(digest_of(data)) == [early]
    assert store.put_manifest(data, "1").digest == digest_of(data)
    assert store.referrers(digest_of(data)) == [early]


def put_again_it_is_there_once(store: Store) -> None:
    thing, _ = put_artifact(store, "1", b"{}")
    first = about(store, thing, "a")
    assert [about(store, thing, "a"), about(store, thing, "a", tag="named")] == [first, first]
    assert store.referrers(thing.digest) == [first]


def several_at_once_lose_nothing(store: Store) -> None:
    thing, _ = put_artifact(store, "1", b"{}")
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda n: about(store, thing, str(n)), range(12)))
    assert listed(store, thing.digest) == in_order(*found)


def deleted_it_is_about_nothing(store: Store) -> None:
    thing, _ = put_artifact(store, "1", b"{}")
    kept, gone = about(store, thing, "a"), about(store, thing, "b")
    store.delete(gone.digest)
    assert store.referrers(thing.digest) == [kept]
    with pytest.raises(NotFoundError):
        store.resolve(gone.digest)


PROMISES = [
    nothing_is_about_what_nothing_is_about,
    all_of_them_with_annotations_and_type,
    of_one_type,
    the_type_is_that_of_the_config_where_there_is_no_other,
    what_comes_before_its_subject,
    put_again_it_is_there_once,
    several_at_once_lose_nothing,
    deleted_it_is_about_nothing,
]
promises = pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.__name__)


@promises
def test_every_store(store: Store, promise: Callable[[Store], None]) -> None:
    promise(store)


@promises
def test_a_registry_without_the_api(registry: Registry, promise: Callable[[Store], None]) -> None:
    registry.faults.no_referrers = True
    with RegistryStore(registry.host, "web", FAST, write=True) as store:
        promise(store)


@pytest.mark.parametrize("digest", ["", "1", "sha512:" + "0" * 128, "sha256:" + "0" * 63, "sha256:../../x"])
def test_what_is_no_digest(store: Store, digest: str) -> None:
    with pytest.raises(IntegrityError):
        store.referrers(digest)


def test_repositories_are_apart_but_on_this_host(make_store: MakeStore) -> None:
    one, two = make_store("one"), make_store("two")
    thing, _ = put_artifact(one, "1", b"{}")
    put_artifact(two, "1", b"{}")
    found = about(one, thing, "a")
    assert two.referrers(thing.digest) == ([found] if isinstance(two, LocalStore) else [])


def test_a_pulled_checkpoints_referrers_are_asked_of_where_it_came_from(registry: Registry) -> None:
    with RegistryStore(registry.host, "web", FAST, write=True) as store:
        thing, _ = put_artifact(store, "1", b"{}")
        found = about(store, thing, "a")
        with LocalStore() as local:
            assert CachedSource(store, local).referrers(thing.digest, SIGNATURE) == [found]


# Registries.


@pytest.fixture
def remote(registry: Registry) -> RegistryStore:
    return RegistryStore(registry.host, "web", FAST, write=True)


def test_pages_are_followed_at_this_registry(registry: Registry, remote: RegistryStore) -> None:
    thing, _ = put_artifact(remote, "1", b"{}")
    found = [about(remote, thing, str(n)) for n in range(5)]
    registry.faults.page = 2
    assert listed(remote, thing.digest) == in_order(*found)
    assert listed(remote, thing.digest, SIGNATURE) == in_order(*found)
    assert len(registry.asked("GET", "/referrers/")) == 6


def test_pages_without_end(registry: Registry, remote: RegistryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ocickpt.store.registry._MAX_PAGES", 20)
    registry.faults.endless_pages = True
    with pytest.raises(RegistryError, match="does not end"):
        remote.referrers(NOBODY)
    assert len(registry.asked("GET", "/referrers/")) == 20


def test_pages_that_are_too_much_together(
    registry: Registry, remote: RegistryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ocickpt.store.registry._MAX_LIST_BYTES", 1000)
    registry.faults.endless_pages = True
    with pytest.raises(IntegrityError, match="goes on after"):
        remote.referrers(NOBODY)


def test_a_list_that_breaks_off(registry: Registry, remote: RegistryStore) -> None:
    registry.faults.headers = {"Link": '</v2/web/nowhere>; rel="next"'}
    with pytest.raises(RegistryError, match="breaks off"):
        remote.referrers(NOBODY)


def test_a_filter_that_the_registry_does_not_apply(registry: Registry, remote: RegistryStore) -> None:
    thing, _ = put_artifact(remote, "1", b"{}")
    about(remote, thing, "a", STATEMENT)
    found = about(remote, thing, "a")
    registry.faults.no_filter = True
    assert remote.referrers(thing.digest, SIGNATURE) == [found]


def test_the_api_spares_the_tag(registry: Registry, remote: RegistryStore) -> None:
    thing, _ = put_artifact(remote, "1", b"{}")
    about(remote, thing, "a")
    assert remote.tags() == ["1"]
    assert not registry.asked("GET", "/manifests/sha256-")


def kept(registry: Registry, subject: str) -> dict[str, Any]:
    """The list under the fallback tag."""
    digest = registry.tags["web", subject.replace(":", "-")]
    media_type, data = registry.manifests["web", digest]
    assert media_type == INDEX_TYPE
    value: dict[str, Any] = json.loads(data)
    return value


def put_list(registry: Registry, subject: str, data: bytes, media_type: str = INDEX_TYPE) -> None:
    registry.manifests["web", digest_of(data)] = (media_type, data)
    registry.tags["web", subject.replace(":", "-")] = digest_of(data)


def test_the_list_is_as_the_specification_says(registry: Registry, remote: RegistryStore) -> None:
    registry.faults.no_referrers = True
    thing, _ = put_artifact(remote, "1", b"{}")
    found = about(remote, thing, "a")
    assert kept(registry, thing.digest) == {
        "schemaVersion": 2,
        "mediaType": INDEX_TYPE,
        "manifests": [found.to_json()],
    }
    assert found.to_json()["artifactType"] == SIGNATURE
    puts = len(registry.asked("PUT", "/manifests/sha256-"))
    about(remote, thing, "a")
    assert len(registry.asked("PUT", "/manifests/sha256-")) == puts == 1


def test_what_others_wrote_into_the_list_stays(registry: Registry, remote: RegistryStore) -> None:
    registry.faults.no_referrers = True
    thing, _ = put_artifact(remote, "1", b"{}")
    theirs: dict[str, Any] = {"mediaType": "application/x", "digest": "sha512:" + "a" * 128, "size": 3, "platform": {}}
    value = {"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": [theirs], "annotations": {"x": "y"}}
    put_list(registry, thing.digest, json.dumps(value).encode())
    found = about(remote, thing, "a")
    assert kept(registry, thing.digest) == value | {"manifests": [theirs, found.to_json()]}
    assert remote.referrers(thing.digest) == [found]
    remote.delete(found.digest)
    assert kept(registry, thing.digest) == value


@pytest.mark.parametrize("media_type", [names.MANIFEST_TYPE, INDEX_TYPE, "text/html"])
def test_a_tag_that_holds_something_else_is_left_alone(
    registry: Registry, remote: RegistryStore, media_type: str
) -> None:
    registry.faults.no_referrers = True
    thing, blobs = put_artifact(remote, "1", b"{}")
    data = manifest_of(blobs[0])
    put_list(registry, thing.digest, data, media_type)
    with pytest.raises(IntegrityError, match="not an image index"):
        about(remote, thing, "a")
    with pytest.raises(IntegrityError, match="not an image index"):
        remote.referrers(thing.digest)
    assert registry.tags["web", thing.digest.replace(":", "-")] == digest_of(data)


def test_a_full_list(registry: Registry, remote: RegistryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ocickpt.store.referrers.MAX_REFERRERS", 2)
    registry.faults.no_referrers = True
    thing, _ = put_artifact(remote, "1", b"{}")
    about(remote, thing, "a"), about(remote, thing, "b")
    with pytest.raises(UnsupportedError, match="is full"):
        about(remote, thing, "c")
    assert len(remote.referrers(thing.digest)) == 2


def entry(n: int = 0, **changes: object) -> dict[str, Any]:
    return {"mediaType": names.MANIFEST_TYPE, "digest": f"sha256:{n:064x}", "size": 10, **changes}


def index(*entries: object, **changes: object) -> bytes:
    return json.dumps({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": entries, **changes}).encode()


HOSTILE = {
    "nothing": b"",
    "no JSON": b"{",
    "no object": b"[]",
    "too deep": b"[" * 100_000,
    "no list": index(manifests={}),
    "no list at all": index(manifests=None),
    "a manifest": index(mediaType=names.MANIFEST_TYPE),
    "not its type": index(mediaType=7),
    "no descriptor": index("x"),
    "no digest": index(entry(digest=None)),
    "a digest that is a path": index(entry(digest="../../etc/passwd")),
    "a short digest": index(entry(digest="sha256:00")),
    "a size below zero": index(entry(size=-1)),
    "a size without bounds": index(entry(size=1 << 63)),
    "no size": index(entry(size=None)),
    "annotations that are no text": index(entry(annotations={"a": 1})),
    "a type that is no text": index(entry(artifactType=[1])),
    "too many": index(*map(entry, range(referrers.MAX_REFERRERS + 1))),
    "too many of another type": index(*(entry(n, artifactType="x") for n in range(referrers.MAX_REFERRERS + 1))),
    "too large": index(annotations={"a": "x" * (4 << 20)}),
}


@pytest.mark.parametrize("way", ["by the API", "by the tag"])
@pytest.mark.parametrize("name", HOSTILE)
def test_lists_that_are_refused(registry: Registry, remote: RegistryStore, name: str, way: str) -> None:
    if way == "by the API":
        registry.faults.answer = (200, HOSTILE[name])
        registry.faults.headers = {"Content-Type": INDEX_TYPE}
    else:
        registry.faults.no_referrers = True
        put_list(registry, NOBODY, HOSTILE[name])
    with pytest.raises(IntegrityError):
        remote.referrers(NOBODY, SIGNATURE)


def test_a_list_without_end(registry: Registry, remote: RegistryStore) -> None:
    registry.faults.no_referrers = registry.faults.endless = True
    put_list(registry, NOBODY, index())
    with pytest.raises(IntegrityError, match="goes on after"):
        remote.referrers(NOBODY)


@pytest.mark.parametrize("media_type", ["", "text/html", "application/json", names.MANIFEST_TYPE])
def test_an_answer_of_another_media_type(registry: Registry, remote: RegistryStore, media_type: str) -> None:
    registry.faults.answer = (200, index())
    registry.faults.headers = {"Content-Type": media_type}
    with pytest.raises(IntegrityError, match="not an image index"):
        remote.referrers(NOBODY)


@pytest.mark.parametrize("status", [400, 401, 403, 500])
def test_an_error_is_no_empty_list(registry: Registry, remote: RegistryStore, status: int) -> None:
    registry.faults.answer = (status, b"")
    with pytest.raises(RegistryError):
        remote.referrers(NOBODY)


def test_what_refers_to_nothing_is_passed_over(registry: Registry, remote: RegistryStore) -> None:
    good = entry(1, artifactType=SIGNATURE, annotations={"by": "a"})
    body = index(
        entry(2, mediaType="application/vnd.docker.distribution.manifest.v2+json"),
        entry(3, mediaType="application/octet-stream"),
        entry(4, digest="sha512:" + "0" * 128),
        good,
        good | {"annotations": {"by": "somebody else"}},
        entry(5, mediaType=INDEX_TYPE),
    )
    registry.faults.answer, registry.faults.headers = (200, body), {"Content-Type": f"{INDEX_TYPE}; charset=utf-8"}
    found = remote.referrers(NOBODY)
    assert [each.to_json() for each in found] == [good, entry(5, mediaType=INDEX_TYPE)]


def test_far_too_much_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ocickpt.store.referrers.MAX_ANNOTATIONS", 1000)
    found = referrers.Found("list", "")
    with pytest.raises(IntegrityError, match="too long"):
        for n in range(3):
            found.add(Descriptor(names.MANIFEST_TYPE, f"sha256:{n:064x}", 1, {"a": "x" * 400}))


# Layout directories.


def enter(store: LayoutStore, data: bytes, media_type: str, tag: str = "") -> Descriptor:
    """Put something into index.json as another tool would."""
    blob = store.put_blob_bytes(media_type, data)
    path = store.path / "index.json"
    value = json.loads(path.read_text())
    value["manifests"].append(blob.to_json() | ({"annotations": {names.ANNOTATION_REF_NAME: tag}} if tag else {}))
    path.write_text(json.dumps(value))
    return blob


@pytest.fixture
def layout(tmp_path: Path) -> LayoutStore:
    return LayoutStore(tmp_path / "layout", create=True)


def loose(store: Store, subject: Descriptor, by: str) -> Descriptor:
    """A referrer whose bytes are there, and nothing else."""
    data = Manifest(store.put_blob_bytes(TYPE, b"{}"), (), SIGNATURE, {"by": by}, subject).to_bytes()
    put = store.put_blob_bytes(names.MANIFEST_TYPE, data)
    return Descriptor(put.media_type, put.digest, put.size, {"by": by}, SIGNATURE)


def test_a_list_that_another_tool_keeps_in_a_layout(layout: LayoutStore) -> None:
    thing, _ = put_artifact(layout, "1", b"{}")
    other, _ = put_artifact(layout, "2", b"{}", b"x")
    found, apart = loose(layout, thing, "a"), loose(layout, other, "b")
    lie = found.to_json() | {"annotations": {"by": "nobody"}, "artifactType": "x"}
    enter(layout, index(lie, apart.to_json(), entry(7)), INDEX_TYPE, referrers.fallback_tag(thing.digest))
    assert layout.referrers(thing.digest) == [found]
    assert layout.referrers(thing.digest)[0].annotations == {"by": "a"}
    assert layout.referrers(other.digest) == [apart]
    layout.close()
    with LayoutStore(layout.path) as again:
        again.gc()
        assert again.referrers(thing.digest) == [found]


def test_an_image_index_may_be_about_something_too(layout: LayoutStore) -> None:
    thing, _ = put_artifact(layout, "1", b"{}")
    inner = index(subject=thing.to_json(), annotations={"a": "b"})
    nested = enter(layout, index(enter(layout, inner, INDEX_TYPE).to_json()), INDEX_TYPE)
    found = layout.referrers(thing.digest)
    assert [(each.digest, each.media_type, each.annotations) for each in found] == [
        (digest_of(inner), INDEX_TYPE, {"a": "b"})
    ]
    assert nested.digest != digest_of(inner)
    with pytest.raises(ForeignError):
        layout.resolve(digest_of(inner))


def test_a_referrer_with_other_bytes(layout: LayoutStore) -> None:
    thing, _ = put_artifact(layout, "1", b"{}")
    found = about(layout, thing, "a")
    path = layout.path / "blobs" / "sha256" / found.digest[7:]
    data = path.read_bytes()
    path.write_bytes(data.replace(b'"by":"a"', b'"by":"b"'))
    with pytest.raises(IntegrityError, match="other bytes"):
        layout.referrers(thing.digest)
    path.write_bytes(data[:-1])
    assert layout.referrers(thing.digest) == []
    path.unlink()
    assert layout.referrers(thing.digest) == []


@pytest.mark.parametrize("data", [b"{", b"[]", b"{}", index(manifests=7), index(entry(digest="x"), 5)])
def test_what_cannot_be_understood_in_a_layout_hides_nothing(layout: LayoutStore, data: bytes) -> None:
    thing, _ = put_artifact(layout, "1", b"{}")
    enter(layout, data, INDEX_TYPE)
    enter(layout, data + b" ", names.MANIFEST_TYPE)
    found = about(layout, thing, "a")
    assert layout.referrers(thing.digest) == [found]


def test_indexes_in_a_circle_and_too_many(layout: LayoutStore, monkeypatch: pytest.MonkeyPatch) -> None:
    many = index(*map(entry, range(50)))
    enter(layout, index(layout.put_blob_bytes(INDEX_TYPE, many).to_json(), *map(entry, range(50))), INDEX_TYPE)
    assert layout.referrers(NOBODY) == []
    monkeypatch.setattr("ocickpt.store.referrers.MAX_MANIFESTS", 40)
    with pytest.raises(IntegrityError, match="too many"):
        layout.referrers(NOBODY)


def test_a_subject_that_is_no_descriptor_is_none(store: Store) -> None:
    config = store.put_blob_bytes(TYPE, b"{}")
    for subject in ({}, {"digest": 7}, {"digest": "sha512:" + "0" * 128}):
        value = json.loads(manifest_of(config)) | {"subject": subject}
        assert referrers.subject_of(json.dumps(value).encode()) == ""
    for data in (b"", b"[]", b"{", b'{"subject": []}'):
        assert referrers.subject_of(data) == ""


def test_a_manifest_with_a_subject_comes_back() -> None:
    config = Descriptor(TYPE, NOBODY, 1)
    manifest = Manifest(config, (config,), SIGNATURE, {"a": "b"}, config)
    assert Manifest.from_bytes(manifest.to_bytes()) == manifest
    assert Manifest.from_bytes(manifest_of(config)).subject is None
    with pytest.raises(OcickptError):
        Manifest.from_bytes(manifest_of(config)[:-1] + b',"subject":{}}')
