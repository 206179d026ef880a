"""The config: round trip, what is refused, what is ignored."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
from msgspec import convert
from msgspec.structs import replace

from ocickpt import names
from ocickpt.description import (
    Amounts,
    Capabilities,
    ContainerInfo,
    Contents,
    Criu,
    Description,
    Engine,
    HostInfo,
    IdMap,
    ImageInfo,
    Options,
    Runtime,
    Seccomp,
    Security,
    SELinux,
    UserNamespace,
    VolumeInfo,
)
from ocickpt.errors import IntegrityError, OcickptError, UnsupportedError
from ocickpt.model import Kind
from tests import schema

DIGEST = "sha256:" + "ab" * 32
FULL = Description(
    created="2026-03-04T05:06:07Z",
    container=ContainerInfo("c" * 64, "db", "2026-03-01T00:00:00.123456789+01:00"),
    image=ImageInfo("docker.io/library/postgres:17", "d" * 64, DIGEST),
    engine=Engine("podman", "5.4.2"),
    runtime=Runtime("crun", "1.28"),
    criu=Criu("4.2.1"),
    host=HostInfo("amd64", "6.18.5", "v2", ("avx2", "sse4_2"), 4096, "debian 13"),
    options=Options(leave_running=True, tcp_established=True, file_locks=False, rootfs=True, volumes=False),
    security=Security(
        SELinux("system_u:system_r:container_t:s0:c1,c2", "system_u:object_r:container_file_t:s0:c1,c2"),
        "containers-default",
        Seccomp("filter", DIGEST),
        Capabilities(bounding=("CAP_CHOWN", "CAP_KILL"), effective=(), permitted=(), inheritable=(), ambient=()),
        no_new_privileges=True,
        user_namespace=UserNamespace((IdMap(0, 100000, 65536),), (IdMap(0, 100000, 65536),)),
        images_lsm="none",
    ),
    volumes=(VolumeInfo("data", "/var/lib/data"),),
    contents=Amounts.of({Kind.MEMORY: Contents(3, 1 << 30), Kind.BOOT: Contents(50, 1 << 20)}),
    parent=DIGEST,
)


def document() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(FULL.to_bytes())
    return found


def test_round_trip() -> None:
    assert Description.from_bytes(FULL.to_bytes()) == FULL
    other = replace(FULL, parent=None, volumes=(), contents=Amounts())
    assert Description.from_bytes(other.to_bytes()) == other


def test_shape() -> None:
    found = document()
    assert found["version"] == 1
    assert found["options"] == {
        "leaveRunning": True,
        "tcpEstablished": True,
        "fileLocks": False,
        "rootfs": True,
        "volumes": False,
    }
    assert found["contents"] == {"boot": {"files": 50, "bytes": 1 << 20}, "memory": {"files": 3, "bytes": 1 << 30}}
    assert found["security"]["userNamespace"]["uid"] == [{"container": 0, "host": 100000, "size": 65536}]
    assert found["host"]["cpuFeatures"] == ["avx2", "sse4_2"]


def test_unknown_members_are_ignored_and_not_written() -> None:
    found = document() | {"env": ["SECRET=1"]}
    found["security"]["new"] = {"a": 1}
    found["contents"]["gpu"] = {"files": 1}
    read = Description.from_bytes(json.dumps(found).encode())
    assert read == FULL
    assert read.to_bytes() == FULL.to_bytes()


def test_a_later_version_is_not_supported() -> None:
    with pytest.raises(UnsupportedError, match="version 2"):
        Description.from_bytes(b'{"version":2}')


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("version",), 0),
        (("version",), "1"),
        (("created",), "yesterday"),
        (("parent",), "sha256:12"),
        (("image", "digest"), "md5:12"),
        (("host", "cgroup"), "v3"),
        (("host", "cpuFeatures"), "avx"),
        (("container", "name"), "\x1b[2J"),
        (("container", "name"), "x" * 5000),
        (("container", "name"), "line\n"),
        (("container", "name"), "\ud800"),
        (("created",), "2026-03-04T05:06:07Z\n"),
        (("parent",), DIGEST + "\n"),
        (("image", "digest"), DIGEST + "\n"),
        (("options", "rootfs"), 1),
        (("contents", "boot"), {"files": -1, "bytes": 1}),
        (("security", "seccomp", "mode"), "off"),
        (("security", "capabilities", "ambient"), [1]),
        (("security", "userNamespace", "uid"), [{"container": 0}]),
        (("security", "imagesLsm"), "smack"),
    ],
)
def test_what_does_not_match_is_refused(path: tuple[str, ...], value: object) -> None:
    found = document()
    place = found
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = value
    with pytest.raises(IntegrityError):
        Description.from_bytes(json.dumps(found).encode())


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b"\xff", b" " * (names.MAX_CONFIG_BYTES + 1), b"[" * 100_000])
def test_what_is_not_a_config_is_refused(data: bytes) -> None:
    with pytest.raises(IntegrityError):
        Description.from_bytes(data)


@pytest.mark.parametrize(
    "wrong",
    [
        replace(FULL, created=""),
        replace(FULL, parent="sha256:12"),
        replace(FULL, container=ContainerInfo("c" * 64, "line\n", "")),
        replace(FULL, container=ContainerInfo("c" * 64, "\ud800", "")),
        replace(FULL, image=ImageInfo("x", "y", "\n")),
        replace(FULL, host=replace(FULL.host, page_size=1)),
        replace(FULL, host=replace(FULL.host, cpu_features=("x",) * 4097)),
        replace(FULL, contents=Amounts(boot=Contents(-1, 0))),
        replace(FULL, volumes=(VolumeInfo("x" * 4097, "/"),)),
        replace(FULL, security=replace(FULL.security, user_namespace=UserNamespace((IdMap(0, 0, -1),), ()))),
    ],
)
def test_what_would_be_refused_is_not_written(wrong: Description) -> None:
    with pytest.raises(IntegrityError):
        wrong.to_bytes()


# The two words on what a config is: the schema, which is public, and the types here, by which it is read.

SCHEMA: dict[str, Any] = json.loads(schema.text("checkpoint-config"))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
OTHERS: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    1,
    -1,
    1.0,
    4096.0,
    1.5,
    1e300,
    1 << 63,
    2**64 - 1,
    "",
    "x",
    [],
    {},
    [None],
    {"a": 1},
)
TEXTS = (
    "x\n",
    "\n",
    "\0",
    "\x1f",
    "\x7f",
    "\x9f",
    "\ud800",
    "\xa0",
    "\u2028",
    "é",
    "x" * 4096,
    "\U0001f40b" * 4096,
    "x" * 4097,
)
CONSTRAINTS = frozenset(
    {"type", "const", "enum", "pattern", "not", "required", "oneOf", "minimum", "maximum", "maxLength", "maxItems"}
)  # fmt: skip


def everything() -> dict[str, Any]:
    """A config that has each member that the schema knows, and something in each list."""
    found = document()
    found["contents"] = {kind.name.lower(): {"files": 1, "bytes": 1} for kind in Kind}
    found["security"]["capabilities"] = {name: ["CAP_KILL"] for name in found["security"]["capabilities"]}
    return found


def resolved(node: dict[str, Any]) -> dict[str, Any]:
    """A part of the schema with what it refers to."""
    for other in (node, *node.get("allOf", ())):
        if "$ref" in other:
            node = {**SCHEMA["$defs"][other["$ref"].rpartition("/")[2]], **node}
    return node


def variants(node: dict[str, Any], value: Any) -> Iterator[Any]:
    """`value` with one thing changed, for each thing that this part of the schema says something about."""
    node = resolved(node)
    yield from OTHERS
    yield from node.get("enum", ())
    for key, by in (("minimum", -1), ("maximum", 1)):
        if key in node:
            yield from (node[key], float(node[key]), node[key] + by, float(node[key]) + by)
    if isinstance(value, str):
        yield from (value + each for each in (*TEXTS[:5], "\r", " ", "0"))
        yield from (value[:-1], f" {value}", value.upper(), value.replace("0", "\u0660"), value.replace("2026", "x"))
        yield from TEXTS
    if isinstance(value, list):
        yield from ([*value, *value], [*value, None], value * (node["maxItems"] + 1), value * node["maxItems"])
        yield from ([each, *value[1:]] for each in variants(node["items"], value[0]))
    if isinstance(value, dict):
        yield {**value, "unknown": [1.5, None]}
        for name in value:
            yield {key: each for key, each in value.items() if key != name}
            inner = node["properties"][name]
            yield from ({**value, name: each} for each in variants(inner, value[name]))


def accepts(data: bytes) -> bool:
    try:
        Description.from_bytes(data)
    except OcickptError:
        return False
    return True


def test_both_words_on_what_a_config_is_are_one() -> None:
    """Each constraint of the schema is violated, and kept to the limit; msgspec and jsonschema say the same."""
    violated, good, bad = set[tuple[str | int, ...]](), 0, 0
    for made in variants(SCHEMA, everything()):
        errors = list(VALIDATOR.iter_errors(made))
        violated |= {tuple(each for each in error.schema_path if each != "$ref") for error in errors}
        data = json.dumps(made).encode()
        if len(data) > names.MAX_CONFIG_BYTES:
            continue
        assert accepts(data) == (not errors), (data[:3000], errors)
        good, bad = good + (not errors), bad + bool(errors)
    assert good > 300
    assert bad > 1000
    assert set(constraints(SCHEMA, ())) <= violated


def constraints(node: dict[str, Any], path: tuple[str | int, ...]) -> Iterator[tuple[str | int, ...]]:
    """Where the schema says something that can be violated, as jsonschema counts the way there, without references."""
    for key, value in node.items():
        if key in CONSTRAINTS:
            yield (*path, key)
        elif key == "$ref":
            yield from constraints(SCHEMA["$defs"][value.rpartition("/")[2]], path)
        elif key == "properties":
            for name, inner in value.items():
                yield from constraints(inner, (*path, key, name))
        elif key == "items":
            yield from constraints(value, (*path, key))
        elif key == "allOf":
            for number, inner in enumerate(value):
                yield from constraints(inner, (*path, key, number))


def test_every_constraint_of_the_schema_is_one_that_is_compared() -> None:
    """So that nobody adds, say, `uniqueItems` without thinking of the types."""
    known = CONSTRAINTS | {"$schema", "title", "description", "properties", "items", "$defs", "$ref", "allOf"}

    def keywords(node: Any) -> Iterator[str]:
        for key, value in node.items():
            yield key
            if key in ("properties", "$defs"):
                for inner in value.values():
                    yield from keywords(inner)
            elif key in ("allOf", "oneOf"):
                for inner in value:
                    yield from keywords(inner)
            elif key in ("items", "not"):
                yield from keywords(value)

    assert set(keywords(SCHEMA)) <= known


def test_the_types_know_what_the_schema_knows() -> None:
    """Without one more: what is written is in the schema."""
    assert VALIDATOR.is_valid(json.loads(convert_all().to_bytes()))
    assert json.loads(convert_all().to_bytes()) == everything()


def convert_all() -> Description:
    return convert(everything(), Description)


def test_no_restore_waits_for_jsonschema() -> None:
    code = (
        "import sys\nfrom ocickpt.description import Description\n"
        "Description.from_bytes(sys.stdin.buffer.read()).to_bytes()\nassert 'jsonschema' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], input=FULL.to_bytes(), check=True, timeout=60)
