"""The config: round trip, what is refused, what is ignored."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from ocickpt import names
from ocickpt.description import (
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
from ocickpt.errors import IntegrityError, UnsupportedError
from ocickpt.model import Kind

DIGEST = "sha256:" + "ab" * 32
FULL = Description(
    created="2026-03-04T05:06:07Z",
    container=ContainerInfo("c" * 64, "db", "2026-03-01T00:00:00.123456789+01:00"),
    image=ImageInfo("docker.io/library/postgres:17", "d" * 64, DIGEST),
    engine=Engine("podman", "5.4.2"),
    runtime=Runtime("crun", "1.28"),
    criu=Criu("4.2.1"),
    host=HostInfo("amd64", "6.18.5", "v2", ("avx2", "sse4_2"), 4096, "debian 13"),
    options=Options(leave_running=True, tcp_established=True, volumes=False),
    security=Security(
        SELinux("system_u:system_r:container_t:s0:c1,c2", "system_u:object_r:container_file_t:s0:c1,c2"),
        "containers-default",
        Seccomp("filter", DIGEST),
        capabilities(bounding=("CAP_CHOWN", "CAP_KILL")),
        no_new_privileges=True,
        user_namespace=UserNamespace((IdMap(0, 100000, 65536),), (IdMap(0, 100000, 65536),)),
        images_lsm="none",
    ),
    volumes=(VolumeInfo("data", "/var/lib/data"),),
    contents={Kind.MEMORY: Contents(3, 1 << 30), Kind.BOOT: Contents(50, 1 << 20)},
    parent=DIGEST,
)


def document() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(FULL.to_bytes())
    return found


def test_round_trip() -> None:
    assert Description.from_bytes(FULL.to_bytes()) == FULL
    other = dataclasses.replace(FULL, parent=None, volumes=(), contents={})
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


@pytest.mark.parametrize("value", [None, 1, "x", True, [], ["x"], [None], {}, {"a": 1}])
@pytest.mark.parametrize("member", ["created", "container", "host", "options", "security", "volumes", "contents"])
def test_before_the_check_only_types_are_certain(member: str, value: object) -> None:
    """What was not checked yet can be worked with, and trips nothing up."""
    found = document() | {member: value}
    try:
        read = Description.unchecked(json.dumps(found).encode())
    except IntegrityError:
        return
    assert isinstance(read.created, str)
    assert all(isinstance(each, VolumeInfo) for each in read.volumes)
    assert all(isinstance(each, Contents) for each in read.contents.values())
    assert (member, value) in (("created", "x"), ("volumes", []), ("contents", {}), ("contents", {"a": 1}))


@pytest.mark.parametrize("member", sorted(document()))
def test_every_member_is_required(member: str) -> None:
    found = document()
    del found[member]
    with pytest.raises(IntegrityError):
        Description.from_bytes(json.dumps(found).encode())


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b"\xff", b" " * (names.MAX_CONFIG_BYTES + 1), b"[" * 100_000])
def test_what_is_not_a_config_is_refused(data: bytes) -> None:
    with pytest.raises(IntegrityError):
        Description.from_bytes(data)


def test_what_would_be_refused_is_not_written() -> None:
    with pytest.raises(IntegrityError):
        dataclasses.replace(FULL, created="").to_bytes()
