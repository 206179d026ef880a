"""The grammar of references."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocickpt.errors import UsageError
from ocickpt.store.reference import Reference

DIGEST = "sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("reg.example/a", Reference("docker", "reg.example", "a", "latest")),
        ("reg.example/a/b:1", Reference("docker", "reg.example", "a/b", "1")),
        ("docker://localhost/a", Reference("docker", "localhost", "a", "latest")),
        ("localhost:5000/a:v1.2_x-y", Reference("docker", "localhost:5000", "a", "v1.2_x-y")),
        ("[::1]:5000/a", Reference("docker", "[::1]:5000", "a", "latest")),
        (f"10.0.0.1:5000/a__b/c--d@{DIGEST}", Reference("docker", "10.0.0.1:5000", "a__b/c--d", "", DIGEST)),
        (f"reg.example/a:1@{DIGEST}", Reference("docker", "reg.example", "a", "1", DIGEST)),
        ("web", Reference("local", "", "web", "latest")),
        ("my.app:1", Reference("local", "", "my.app", "1")),
        ("web:5000", Reference("local", "", "web", "5000")),
        ("team/Web_1", Reference("local", "", "team/Web_1", "latest")),
        (f"web@{DIGEST}", Reference("local", "", "web", "", DIGEST)),
        ("oci:/srv/backup", Reference("oci", "", "/srv/backup", "latest")),
        ("oci:../x:1", Reference("oci", "", "../x", "1")),
        (f"oci:/a@b:1@{DIGEST}", Reference("oci", "", "/a@b", "1", DIGEST)),
        (f"oci:/a@{DIGEST}", Reference("oci", "", "/a", "", DIGEST)),
    ],
)
def test_parsing(text: str, expected: Reference) -> None:
    assert Reference.parse(text) == expected
    assert Reference.parse(str(expected)) == expected
    assert expected.target == (expected.digest or expected.tag)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "not a reference"),
        (" web", "not a reference"),
        ("web\n", "not a reference"),
        ("web\x1b[31m", "not a reference"),
        ("https://reg.example/a", "is a URL"),
        ("docker-archive:x.tar", "transport is not supported"),
        ("docker://web", "does not name a registry"),
        ("docker://team/web", "does not name a registry"),
        ("reg.example/A", "not a repository name"),
        ("reg.example/a//b", "not a repository name"),
        ("reg.example/", "not a repository name"),
        ("reg.example/" + "a" * 256, "longer than 255"),
        ("reg_.example/a", "HOST"),
        ("reg.example:port/a", "HOST"),
        ("web:", "not a tag"),
        ("web:-x", "not a tag"),
        ("web:" + "x" * 129, "not a tag"),
        ("web@", "not a digest"),
        ("web@sha256:12", "not a digest"),
        ("web@sha512:" + "0" * 128, "not a digest"),
        ("oci", "names a transport"),
        (f"dir@{DIGEST}", "names a transport"),
        ("oci:", "names no directory"),
        ("oci:/x:", "not a tag"),
        ("oci:/x:a/b", "not a tag"),
        ("-web", "not a name"),
        ("../web", "HOST"),
        ("./web", "HOST"),
        ("/web", "not a name"),
        ("a/../b", "not a name"),
        ("wéb", "not a name"),
    ],
)
def test_refusing(text: str, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        Reference.parse(text)


def test_deriving() -> None:
    web = Reference.parse("reg.example/web:1")
    assert str(web.with_tag("2")) == "reg.example/web:2"
    assert str(web.with_digest(DIGEST)) == f"reg.example/web:1@{DIGEST}"
    assert web.with_digest(DIGEST).with_tag("2").target == "2"
    with pytest.raises(UsageError):
        web.with_tag("no tag")
    with pytest.raises(UsageError):
        web.with_digest("no digest")


component = st.from_regex(r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+){0,2}", fullmatch=True)
repository = st.lists(component, min_size=1, max_size=3).map("/".join).filter(lambda text: len(text) < 200)
tag = st.from_regex(r"[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,20}", fullmatch=True)
host = st.from_regex(r"([a-z0-9]([a-z0-9-]{0,5}[a-z0-9])?\.){1,2}[a-z]{2,4}(:[0-9]{1,5})?", fullmatch=True)
digest = st.one_of(st.just(""), st.just(DIGEST))


@given(host=host, repository=repository, tag=tag, digest=digest)
def test_registries_round_trip(host: str, repository: str, tag: str, digest: str) -> None:
    reference = Reference("docker", host, repository, tag, digest)
    assert Reference.parse(str(reference)) == reference
    assert Reference.parse(f"docker://{reference}") == reference


@given(text=st.text(max_size=60))
def test_whatever_is_parsed_round_trips(text: str) -> None:
    for prefix in ("", "oci:", "docker://", "a.b/"):
        try:
            reference = Reference.parse(prefix + text)
        except UsageError as error:
            assert error.message.isprintable()
            continue
        assert Reference.parse(str(reference)) == reference
        assert reference.target
