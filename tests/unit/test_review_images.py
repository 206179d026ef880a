"""What CRIU's images may not have CRIU do. The images are decoded by a stand-in: pycriu is not on every machine."""

from __future__ import annotations

import json
import sys
import types
from typing import Any

import pytest

from ocickpt.description import Capabilities, Seccomp, Security, SELinux, UserNamespace
from ocickpt.engine import criu
from ocickpt.errors import IntegrityError, OcickptError, UnsupportedError
from ocickpt.model import Confinement
from ocickpt.trust import process


@pytest.fixture(autouse=True)
def _pycriu(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("pycriu")
    module.images = types.SimpleNamespace(load=lambda file: {"entries": json.load(file)})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pycriu", module)


def image(*entries: Any) -> bytes:
    return json.dumps(entries).encode()


def core(**creds: Any) -> bytes:
    return image({"thread_core": {"creds": creds, "seccomp_mode": "filter"}})


def security(**changes: Any) -> Security:
    found: dict[str, Any] = {
        "selinux": SELinux("", ""),
        "apparmor": "",
        "seccomp": Seccomp("filter", ""),
        "capabilities": Capabilities(bounding=("CAP_CHOWN",)),
        "no_new_privileges": False,
        "user_namespace": UserNamespace(),
        "images_lsm": "none",
    }
    return Security(**{**found, **changes})


def test_a_thread_is_read() -> None:
    found = criu.confinement(core(cap_bnd=[1, 2], cap_amb=[4, 0], no_new_privs=1, lsm_profile="a:b:c:d"))
    assert found == Confinement(1 | 2 << 32 | 4, True, True, "a:b:c:d")
    assert criu.confinement(image({"tc": {"task_state": 2}})) is None
    old = image({"tc": {"old_seccomp_mode": 2}, "thread_core": {"creds": {"cap_prm": [1]}}})
    assert criu.confinement(old) == Confinement(1, True, False, "")


def test_only_a_thread_may_leave_its_filter_to_the_first() -> None:
    thread, leader = image({"thread_core": {"creds": {}}}), image({"tc": {}, "thread_core": {"creds": {}}})
    assert criu.confinement(thread, synchronized=True) == Confinement(0, True, False, "")
    assert criu.confinement(leader, synchronized=True) == Confinement(0, False, False, "")
    assert criu.confinement(thread) == Confinement(0, False, False, "")
    assert criu.synchronized(image({"seccomp_filters": [{"flags": 1}]}))
    assert not criu.synchronized(image({"seccomp_filters": [{"flags": 1}, {}]}))


@pytest.mark.parametrize(
    "data", [b"x", image(), image(1), image({"thread_core": 1}), core(cap_bnd=7), core(cap_bnd=["x"])]
)
def test_a_damaged_core_image_is_refused(data: bytes) -> None:
    with pytest.raises(IntegrityError):
        criu.confinement(data)


def test_a_thread_that_may_do_more_is_found() -> None:
    fine = Confinement(1, True, False, "")
    assert process.weaker(fine, security()) == ""
    assert "capabilities" in process.weaker(Confinement(3, True, False, ""), security())
    assert "seccomp" in process.weaker(Confinement(1, False, False, ""), security())
    assert "no_new_privs" in process.weaker(fine, security(no_new_privileges=True))


def test_a_thread_with_another_label_is_found() -> None:
    selinux = security(selinux=SELinux("u:r:container_t:s0:c1", ""), images_lsm="selinux")
    assert process.unlabelled(Confinement(0, True, False, "u:r:container_t:s0:c2"), selinux) == ""
    assert "unconfined_t" in process.unlabelled(Confinement(0, True, False, "u:r:unconfined_t:s0"), selinux)
    apparmor = security(apparmor="containers-default", images_lsm="apparmor")
    assert process.unlabelled(Confinement(0, True, False, "containers-default (enforce)"), apparmor) == ""
    assert "nothing" in process.unlabelled(Confinement(0, True, False, ""), apparmor)
    assert process.unlabelled(Confinement(0, True, False, ""), security()) == ""


ROOT = {"fstype": 17, "mountpoint": "/", "root_dev": 9}


def test_a_containers_mounts_pass() -> None:
    criu.check_mounts(
        [
            image(
                ROOT,
                {"fstype": 1, "mountpoint": "/proc"},
                {"fstype": "TMPFS", "mountpoint": "/dev"},
                {"fstype": 0, "mountpoint": "/data", "ext_key": "/data"},
            ),
            image(ROOT),
        ]
    )


@pytest.mark.parametrize(
    "mount",
    [
        {"fstype": 17, "mountpoint": "/host", "options": "lowerdir=/:/etc"},
        {"fstype": 16, "mountpoint": "/host", "source": "/dev/sda1", "fsname": "ext4"},
        {"fstype": "DEBUGFS", "mountpoint": "/x"},
        {"fstype": 17, "mountpoint": "/", "root_dev": 10},
        {"fstype": 17, "mountpoint": "/", "root_dev": 9, "with_plugin": True},
    ],
)
def test_a_mount_of_the_host_is_refused(mount: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedError):
        criu.check_mounts([image(ROOT), image(mount)])


def test_no_mounts_are_no_image() -> None:
    with pytest.raises(OcickptError):
        criu.check_mounts([image()])
