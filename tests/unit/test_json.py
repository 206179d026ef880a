"""JSON from outside becomes typed values, or a sentence: whatever numbers and text it holds, and however deep it is."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocickpt.description import Description
from ocickpt.errors import AuthError, IntegrityError, OcickptError
from ocickpt.model import Manifest, digest_of, json_value, parse_json
from ocickpt.operations import journal
from ocickpt.store import credentials
from ocickpt.store.auth import Authenticator
from ocickpt.store.base import describe_manifest
from ocickpt.store.layout import LayoutStore
from tests.unit.test_description import FULL

DIGEST = digest_of(b"")
BAD_NUMBERS = ["1" * 400, "-" + "9" * 30, "1" * 5000, "1" * 100_000, "1e999", "-1e999", "NaN", "Infinity", "-Infinity"]
BAD_TEXT = ['"\\ud800"', '"\\uDFFF"', '"a\\udc80b"', '"\\ude00\\ud83d"', '{"\\ud800": 1}', '[["\\uD83D\\n"]]']
BAD_BYTES = [b'"\xed\xa0\x80"', b'"\xff"', '"\N{SNOWMAN}"'.encode("utf-16"), b"\xef\xbb\xbf1"]
DEEP = "[" * 100_000
BAD = [text.encode() for text in (*BAD_NUMBERS, *BAD_TEXT, DEEP)] + BAD_BYTES
AWKWARD = ["true", "-1", "1.5", "null", "[]", "{}", '"1"', "18446744073709551615", "-9223372036854775808", "1e300"]
ANY = [*BAD, *(text.encode() for text in AWKWARD)]


def shown(value: bytes) -> str:
    return f"{len(value)} bytes of {value[:12]!r}"


@pytest.mark.parametrize("value", BAD, ids=shown)
def test_what_is_no_value_is_refused_at_the_door(value: bytes) -> None:
    with pytest.raises(IntegrityError, match="the thing is not JSON"):
        parse_json(b'{"a": ' + value + b"}", "thing")


def test_with_file_names_text_stands_for_bytes() -> None:
    assert os.fsencode(json_value(b'"a\\udcff"', file_names=True)) == b"a\xff"
    with pytest.raises(ValueError, match="not Unicode"):
        json_value(b'"a\\ude00"', file_names=True)


def test_what_is_a_value_is_taken() -> None:
    text = (
        '{"a": "\\ud83d\\ude00 \\\\ud800", "b": [18446744073709551615, -9223372036854775808, 1.5e300, "\N{SNOWMAN}"]}'
    )
    assert parse_json(text.encode(), "thing") == json.loads(text)


@given(st.dictionaries(st.text(), st.text(alphabet=st.characters(categories=["L", "Cs"]))))
def test_text_that_came_in_can_be_written_again(value: dict[str, str]) -> None:
    try:
        found = parse_json(json.dumps(value).encode(), "thing")
    except IntegrityError:
        return
    assert json.loads(json.dumps(found, ensure_ascii=False).encode()) == found


@pytest.mark.parametrize("value", ANY, ids=shown)
@pytest.mark.parametrize(
    "path",
    [("version",), ("container", "name"), ("host", "pageSize"), ("contents", "boot"), ("options", "rootfs"), ("x",)],
)
def test_configs(path: tuple[str, ...], value: bytes) -> None:
    document = json.loads(FULL.to_bytes())
    place = document
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = "HERE"
    data = json.dumps(document).encode().replace(b'"HERE"', value)
    try:
        found = Description.from_bytes(data)
    except OcickptError as error:
        assert len(error.message) < 1000
        return
    assert Description.from_bytes(found.to_bytes()) == found


@pytest.mark.parametrize("value", ANY, ids=shown)
@pytest.mark.parametrize("member", ["mediaType", "digest", "size", "annotations", "artifactType"])
def test_descriptors(member: str, value: bytes) -> None:
    good = {"mediaType": "a/b", "digest": DIGEST, "size": 1}
    text = json.dumps({"schemaVersion": 2, "config": {**good, member: "HERE"}, "layers": []})
    data = text.encode().replace(b'"HERE"', value)
    try:
        found = Manifest.from_bytes(data)
    except IntegrityError:
        return
    assert Manifest.from_bytes(found.to_bytes()) == found


@pytest.mark.parametrize("value", ANY, ids=shown)
@pytest.mark.parametrize("member", ["schemaVersion", "mediaType", "artifactType", "annotations", "layers", "config"])
def test_manifests(member: str, value: bytes) -> None:
    good = {"schemaVersion": 2, "config": {"mediaType": "a/b", "digest": DIGEST, "size": 1}, "layers": []}
    data = json.dumps({**good, member: "HERE"}).encode().replace(b'"HERE"', value)
    for read in (lambda: describe_manifest(data, "web:1"), lambda: Manifest.from_bytes(data).to_bytes()):
        _may_refuse(read)


def _may_refuse(action: Callable[[], object]) -> None:
    try:
        action()
    except OcickptError as error:
        assert len(error.message) < 1000


@pytest.mark.parametrize("value", ANY, ids=shown)
def test_an_index_of_a_layout(tmp_path: Path, value: bytes) -> None:
    path = tmp_path / "layout"
    LayoutStore(path, create=True).close()
    for text in ('{"manifests": HERE}', '{"manifests": [HERE]}', '{"x": HERE}', '{"manifests": [{"size": HERE}]}'):
        (path / "index.json").write_bytes(text.encode().replace(b"HERE", value))
        with LayoutStore(path) as store:
            _may_refuse(store.tags)
            _may_refuse(lambda: store.resolve("1"))


@pytest.mark.parametrize("value", ANY, ids=shown)
@pytest.mark.parametrize("member", ["token", "access_token", "expires_in", "x"])
def test_tokens(member: str, value: bytes) -> None:
    answer = json.dumps({"token": "abc", "x": 1, member: "HERE"}).encode().replace(b'"HERE"', value)

    def fetch(method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> tuple[int, bytes]:
        return 200, answer

    made = Authenticator("reg.example", lambda: None, fetch, lambda realm: True)
    made.learn(['Bearer realm="https://t"'])
    try:
        assert made.header(("a",)).startswith("Bearer ")
    except AuthError as error:
        assert "no usable token" in error.message


@pytest.mark.parametrize("seconds", [b"1" * 18, b"18446744073709551615"])
def test_a_token_that_is_good_for_ages_is_taken(seconds: bytes) -> None:
    answer = b'{"token": "abc", "expires_in": ' + seconds + b"}"
    made = Authenticator("r", lambda: None, lambda *_: (200, answer), lambda realm: True)
    made.learn(['Bearer realm="https://t"'])
    assert made.header(()) == "Bearer abc"


@pytest.mark.parametrize("value", ANY, ids=shown)
@pytest.mark.parametrize("member", ["auths", "credHelpers", "credsStore"])
def test_credential_files(tmp_path: Path, member: str, value: bytes) -> None:
    path = tmp_path / "auth.json"
    for text in (
        '{"MEMBER": HERE}',
        '{"MEMBER": {"reg.example": HERE}}',
        '{"MEMBER": {"reg.example": {"auth": HERE}}}',
    ):
        path.write_bytes(text.replace("MEMBER", member).encode().replace(b"HERE", value))
        _may_refuse(lambda: credentials.find("reg.example", "web", path))


# Journals are our own files, and yet may have been damaged.

RECORD = journal.Checkpoint(key="k", container="c" * 64, name="web", reference="web:1")


@pytest.fixture
def journals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OCICKPT_STORE", str(tmp_path))
    journal.Journal.begin(RECORD).leave()
    return tmp_path / "journal"


@pytest.mark.parametrize("value", ANY, ids=shown)
@pytest.mark.parametrize("member", ["verb", "name", "podman_pid", "captured", "thaw", "options", "reason", "published"])
def test_journals(journals: Path, member: str, value: bytes) -> None:
    path = journals / "k.json"
    before = json.loads(path.read_text())
    path.write_bytes(json.dumps({**before, member: "HERE"}).encode().replace(b'"HERE"', value))
    for record in journal.records():
        assert type(getattr(record, member)) is type(getattr(RECORD, member))
        assert isinstance(record, journal.Checkpoint)
        journal.podman_runs(record)
    journal.unreadable()
    for each in journal.orphans():
        each.leave()


def test_a_journal_with_a_file_name_that_is_not_unicode(journals: Path) -> None:
    one = next(iter(journal.orphans()))
    one.step("podman", work="/var/lib/\udcff", lowers=("/\udc80",))
    assert journal.records()[0].work == "/var/lib/\udcff"
