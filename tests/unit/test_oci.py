"""What is read of an OCI specification, and what of it is written again."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from ocickpt import oci
from ocickpt.errors import IntegrityError

PROFILE = {"defaultAction": "SCMP_ACT_ERRNO", "listenerPath": "/run/x", "syscalls": None}


def test_null_and_absent_are_the_same() -> None:
    nulls = {"root": None, "mounts": None, "process": {"user": None, "capabilities": {"bounding": None}}, "linux": None}
    found = oci.read(nulls, "specification")
    assert (found.mounts, found.root, found.process.user) == ((), oci.Root(), oci.User())
    assert oci.plain(found) == {"process": {"capabilities": {}}}
    assert oci.plain(oci.read({}, "specification")) == {}


@pytest.mark.parametrize(
    ("value", "where"),
    [
        ([], "expected `object`, got `array`"),
        ({"process": {"oomScoreAdj": "1"}}, "at process.oomScoreAdj: expected `int | null`, got `str`"),
        ({"process": {"noNewPrivileges": 1}}, "at process.noNewPrivileges: expected `bool`, got `int`"),
        ({"mounts": [{"type": "bind"}]}, "at mounts[0]: object missing required field `destination`"),
        ({"mounts": [None]}, "at mounts[0]: expected `object`, got `null`"),
        ({"linux": {"sysctl": {"a": None}}}, "at linux.sysctl[...]: expected `str`, got `null`"),
        ({"linux": {"maskedPaths": "/x"}}, "at linux.maskedPaths: expected `array`, got `str`"),
    ],
)
def test_what_is_of_another_form_is_named(value: Any, where: str) -> None:
    with pytest.raises(IntegrityError) as raised:
        oci.read(value, "specification")
    assert raised.value.message == f"the specification is not of the right form: {where}"


def test_a_profile_of_another_form_is_named() -> None:
    with pytest.raises(IntegrityError, match=r"seccomp profile is not of the right form: at syscalls\[0\]: .*`action`"):
        oci.read({"linux": {"seccomp": {"syscalls": [{"names": ["read"]}]}}}, "specification")


def test_the_digest_is_of_the_profile_as_it_stands() -> None:
    found = oci.read({"linux": {"seccomp": PROFILE}}, "specification").linux.seccomp
    assert found
    canonical = json.dumps(PROFILE, sort_keys=True, separators=(",", ":")).encode()
    assert found.digest() == f"sha256:{hashlib.sha256(canonical).hexdigest()}"


def test_what_a_bundle_has_more_is_not_the_checkpoints() -> None:
    value = {
        "hooks": {"createRuntime": [{"path": "/x", "args": ["x"]}]},
        "annotations": {"run.oci.handler": "krun", "io.container.manager": "libpod"},
        "linux": {"seccomp": PROFILE, "intelRdt": {"closID": "x"}},
        "vm": {},
    }
    bundle = oci.read_bundle(value, "specification")
    assert bundle.hooks.create_runtime == (oci.Hook("/x"),)
    assert bundle.annotations["run.oci.handler"] == "krun"
    assert oci.plain(oci.read(value, "specification")) == {
        "annotations": {"run.oci.handler": "krun", "io.container.manager": "libpod"},
        "linux": {"seccomp": {"defaultAction": "SCMP_ACT_ERRNO"}},
    }


def test_the_root_is_in_the_bundle_unless_it_is_elsewhere() -> None:
    for path, place in (("", "/b/rootfs"), ("other", "/b/other"), ("/merged", "/merged")):
        assert oci.Spec(root=oci.Root(path)).root_in(Path("/b")) == Path(place)
