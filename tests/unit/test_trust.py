"""How a container is confined, by its specification; and whether a process is, by what the kernel says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ocickpt import oci
from ocickpt.description import Capabilities, IdMap, Seccomp, Security, SELinux, UserNamespace
from ocickpt.errors import IntegrityError
from ocickpt.trust import security
from ocickpt.trust.capabilities import capability_mask

PROFILE = {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW"}]}
SPEC: dict[str, Any] = {
    "process": {
        "args": ["secret"],
        "env": ["PASSWORD=secret"],
        "capabilities": {"bounding": ["CAP_CHOWN", "CAP_KILL"], "effective": ["CAP_KILL"], "ambient": None},
        "noNewPrivileges": True,
        "apparmorProfile": "containers-default",
        "selinuxLabel": "u:r:container_t:s0:c1,c2",
    },
    "linux": {
        "seccomp": PROFILE,
        "mountLabel": "u:object_r:container_file_t:s0:c1,c2",
        "uidMappings": [{"containerID": 0, "hostID": 100000, "size": 65536}],
        "gidMappings": [{"containerID": 0, "hostID": 200000, "size": 65536}],
    },
}


def capabilities(**given: tuple[str, ...]) -> Capabilities:
    sets = dict.fromkeys(("bounding", "effective", "permitted", "inheritable", "ambient"), ())
    return Capabilities(**{**sets, **given})


def summary(spec: dict[str, Any], *more: Any, **named: Any) -> Security:
    return security.summary(oci.read(spec, "specification"), *more, **named)


def test_a_specification_is_summed_up() -> None:
    found = summary(SPEC, "selinux")
    assert found == Security(
        selinux=SELinux("u:r:container_t:s0:c1,c2", "u:object_r:container_file_t:s0:c1,c2"),
        apparmor="containers-default",
        seccomp=Seccomp("filter", found.seccomp.digest),
        capabilities=capabilities(bounding=("CAP_CHOWN", "CAP_KILL"), effective=("CAP_KILL",)),
        no_new_privileges=True,
        user_namespace=UserNamespace((IdMap(0, 100000, 65536),), (IdMap(0, 200000, 65536),)),
        images_lsm="selinux",
    )
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", found.seccomp.digest)
    assert "secret" not in json.dumps(msgspec.to_builtins(found))


def test_podmans_labels_come_before_the_specifications() -> None:
    found = summary(SPEC, labels=SELinux("u:r:spc_t:s0", ""))
    assert found.selinux == SELinux("u:r:spc_t:s0", "u:object_r:container_file_t:s0:c1,c2")
    assert found.images_lsm == "unknown"


def test_a_profile_is_known_by_what_it_says() -> None:
    other = {"syscalls": PROFILE["syscalls"], "defaultAction": PROFILE["defaultAction"]}
    digests = [
        summary({"linux": {"seccomp": profile}}).seccomp.digest
        for profile in (PROFILE, other, PROFILE | {"defaultAction": "SCMP_ACT_KILL"})
    ]
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize("spec", [{}, {"process": None, "linux": None}, {"linux": {"seccomp": {}}}])
def test_a_container_that_is_not_confined(spec: dict[str, Any]) -> None:
    found = summary(spec)
    assert found.seccomp == Seccomp("none", "")
    assert found.capabilities == capabilities()
    assert not found.no_new_privileges
    assert found.user_namespace == UserNamespace((), ())


@pytest.mark.parametrize(
    "spec",
    [
        {"process": ["x"]},
        {"linux": "x"},
        {"process": {"capabilities": ["CAP_CHOWN"]}},
        {"process": {"apparmorProfile": 7}},
        {"process": {"noNewPrivileges": "yes"}},
        {"linux": {"seccomp": {"syscalls": [{"names": ["read"]}]}}},
        {"process": {"selinuxLabel": ["x"]}},
        {"linux": {"uidMappings": [{"containerID": 0}]}},
        {"linux": {"uidMappings": [7]}},
        {"linux": {"gidMappings": [{"containerID": "x", "hostID": 0, "size": 1}]}},
    ],
)
def test_a_specification_that_is_none(spec: dict[str, Any]) -> None:
    with pytest.raises(IntegrityError):
        summary(spec)


def test_capabilities_by_name() -> None:
    assert capability_mask(("CAP_CHOWN", "chown", "CAP_KILL")) == 0b100001
    assert capability_mask(("CAP_CHECKPOINT_RESTORE",)) == 1 << 40
    assert capability_mask(("CAP_OF_A_LATER_KERNEL",)) == 0
    # Two spellings of one are not the next one.
    assert capability_mask(("CAP_SYS_PACCT", "SYS_PACCT", "sys_pacct")) == 1 << 20
    header = Path("/usr/include/linux/capability.h")
    if header.exists():
        bits = dict(re.findall(r"^#define CAP_(\w+)\s+(\d+)$", header.read_text(), re.MULTILINE))
        assert bits
        assert {name: capability_mask((name,)) for name in bits} == {name: 1 << int(bit) for name, bit in bits.items()}
