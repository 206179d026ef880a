"""Every finding of the doctor, on hosts that are made up."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ocickpt import config, libraries
from ocickpt.engine import host
from ocickpt.engine.criu import configuration
from ocickpt.engine.runtime import table
from ocickpt.errors import StorageError
from ocickpt.hostsetup import doctor
from ocickpt.hostsetup.doctor import Check
from ocickpt.operations import launcher, pending
from ocickpt.operations.pending import Left

Facts = Callable[..., None]

GOOD: dict[str, Any] = {
    "podman_version": lambda: "5.4.2",
    "criu_version": lambda: "4.2.1",
    "criu_check": lambda *_: "",
    "kernel": lambda: "6.18.5",
    "pycriu_version": lambda: "4.2.1",
    "skopeo_version": lambda: "1.18.0",
    "runtime_version": lambda _: "1.28",
    "runtime_checkpoints": lambda _: True,
    "runtime_path": lambda name: str(launcher.LAUNCHERS / name),
    "program": lambda name: f"/usr/bin/{name}",
    "cgroup": lambda: "v2",
    "v1_hierarchies": lambda: (),
    "lsm": lambda: "none",
    "criu_knows_selinux": lambda: False,
}


@pytest.fixture
def facts(monkeypatch: pytest.MonkeyPatch) -> Facts:
    """A host where all is well, and a way to make something else of it."""

    def change(**changes: Any) -> None:
        for name, value in changes.items():
            monkeypatch.setattr(host, name, value if callable(value) else lambda *_, value=value: value)

    change(**GOOD)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(pending, "left", list)
    monkeypatch.setattr(
        launcher, "states", lambda: [launcher.State(name, f"/usr/bin/{name}", "") for name in table.NAMES]
    )
    return change


def check(name: str) -> Check:
    found = [each for each in doctor.examine() if each.name == name]
    assert len(found) == 1, f"{len(found)} findings named {name!r}"
    return found[0]


def test_a_bad_configuration_is_told(facts: Facts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "PATH", tmp_path / "config.toml")
    assert check("configuration") == Check("configuration", "ok", "none")
    config.PATH.write_text("[restore-on-start]\nallow = ['r.example/ck']\n")
    assert "restored on start from r.example/ck" in check("configuration").found
    config.PATH.write_text("push = 7\n")
    assert check("configuration").state == "failed"


def test_a_host_where_all_is_well(facts: Facts) -> None:
    assert {each.state for each in doctor.examine()} == {"ok"}
    assert all(each.found for each in doctor.examine())


def test_whatever_is_not_ok_has_a_remedy(facts: Facts, monkeypatch: pytest.MonkeyPatch) -> None:
    facts(
        **{name: "" for name in GOOD if name.endswith(("_version", "runtime_path"))},
        runtime_checkpoints=False,
        lsm="selinux",
        v1_hierarchies=("cpu",),
    )
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(pending, "left", lambda: [Left("checkpoint of 'web' stopped", "wait")])
    bad = [each for each in doctor.examine() if each.state != "ok"]
    assert {"permissions", "podman", "runtime", "criu", "pycriu", "skopeo", "operations"} <= {each.name for each in bad}
    assert all(each.remedy for each in bad)


def test_only_root_may(facts: Facts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert check("permissions") == Check(
        "permissions", "failed", "uid 1000", "checkpoint and restore need root: use sudo"
    )


@pytest.mark.parametrize(("version", "state"), [("", "failed"), ("4.3.1", "warning"), ("5.0.0", "ok"), ("6.1", "ok")])
def test_podman(facts: Facts, version: str, state: str) -> None:
    facts(podman_version=version)
    assert check("podman").state == state


def test_one_runtime_is_enough(facts: Facts) -> None:
    facts(runtime_version=lambda name: "1.28" if name == "crun" else "")
    names = [each.name for each in doctor.examine()]
    assert "crun" in names
    assert "runc" not in names
    assert "runtime" not in names
    facts(runtime_version="")
    assert check("runtime").state == "failed"


def test_a_runtime_that_cannot_checkpoint(facts: Facts) -> None:
    facts(runtime_checkpoints=lambda name: name == "runc")
    assert check("runc").state == "ok"
    assert check("crun").state == "warning"
    assert "cannot checkpoint" in check("crun").found


@pytest.mark.parametrize(
    ("criu", "kernel", "state", "found"),
    [
        ("", "6.18.5", "failed", "not installed"),
        ("3.17.1", "6.18.5", "failed", "3.17.1 cannot start on Linux 6.18.5"),
        ("3.17.1", "6.16.0", "failed", "3.17.1 cannot start on Linux 6.16.0"),
        ("3.17.1", "6.1.0-13-amd64", "warning", "3.17.1 cannot dump a frozen container"),
        ("4.1.1", "6.18.5", "failed", "4.1.1 cannot dump a process with a TCP socket on Linux 6.18.5"),
        ("4.1.1", "6.16.0-rc1", "failed", "4.1.1 cannot dump a process with a TCP socket on Linux 6.16.0-rc1"),
        ("4.1.1", "6.12.0", "ok", "4.1.1"),
        ("4.2.1", "6.18.5", "ok", "4.2.1"),
        ("4.3", "6.18.5", "warning", "4.3 may write images this ocickpt refuses"),
    ],
)
def test_the_traps_of_criu(facts: Facts, criu: str, kernel: str, state: str, found: str) -> None:
    facts(criu_version=criu, kernel=kernel)
    assert (check("criu").state, check("criu").found) == (state, found)


def test_criu_check_is_asked(facts: Facts, monkeypatch: pytest.MonkeyPatch) -> None:
    facts(criu_check=lambda *arguments: "" if arguments else "no such kernel")
    assert check("criu check") == Check(
        "criu check", "failed", "no such kernel", "`criu check` says what the kernel or its permissions lack"
    )
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "criu check" not in [each.name for each in doctor.examine()]


@pytest.mark.parametrize(
    ("pycriu", "criu", "state"),
    [("", "4.2.1", "failed"), ("4.2", "4.2.1", "ok"), ("4.1.1", "4.2.1", "warning"), ("unknown", "4.2.1", "ok")],
)
def test_pycriu(facts: Facts, pycriu: str, criu: str, state: str) -> None:
    facts(pycriu_version=pycriu, criu_version=criu)
    assert check("pycriu").state == state


def test_kernel_features(facts: Facts) -> None:
    facts(criu_check=lambda *arguments: "off" if "mem_dirty_track" in arguments else "")
    assert check("mem_dirty_track").state == "warning"
    assert check("uffd-noncoop").state == "ok"
    facts(criu_check=lambda *arguments: "Unknown feature x" if arguments else "")
    assert "mem_dirty_track" not in [each.name for each in doctor.examine()]


def test_libraries(facts: Facts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libraries, "LIBRARIES", {"click": "click", "no_such_library": "such-a-library"})
    found = check("python libraries")
    assert (found.state, found.found) == (
        "failed",
        "no_such_library: ModuleNotFoundError: No module named 'no_such_library'",
    )
    assert found.remedy.startswith("install the distribution's package, python3-such-a-library (Debian)")


def test_old_cgroups_beside_the_new(facts: Facts, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(configuration, "CONFIGURATION", tmp_path)
    facts(v1_hierarchies=("name=systemd", "cpu"))
    found = check("cgroups")
    assert found.state == "warning"
    assert f"{tmp_path}/runc.conf and {tmp_path}/crun.conf" in found.remedy
    (tmp_path / "runc.conf").write_text("manage-cgroups ignore\n")
    (tmp_path / "crun.conf").write_text("tcp-close\nmanage-cgroups=ignore\n")
    assert f"unless `manage-cgroups=ignore` stands in {tmp_path}/runc.conf" in check("cgroups").remedy
    assert "crun.conf" not in check("cgroups").remedy
    (tmp_path / "runc.conf").write_text("manage-cgroups=ignore\n")
    assert check("cgroups").state == "ok"
    facts(cgroup="v1")
    assert check("cgroups") == Check("cgroups", "ok", "v1")


@pytest.mark.parametrize(("knows", "state"), [(True, "ok"), (False, "failed"), (None, "warning")])
def test_selinux_needs_a_criu_that_knows_it(facts: Facts, knows: bool | None, state: str) -> None:
    facts(lsm="selinux", criu_knows_selinux=knows)
    assert check("security module").state == state
    facts(lsm="apparmor")
    assert check("security module") == Check("security module", "ok", "apparmor")


def test_the_local_store(facts: Facts, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OCICKPT_STORE", str(tmp_path / "a" / "b"))
    assert check("local store").state == "ok"
    assert not (tmp_path / "a").exists()
    usage = shutil.disk_usage(tmp_path)._replace(free=10_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    assert (check("local store").state, check("local store").found) == (
        "warning",
        f"{tmp_path / 'a' / 'b'}, 0.0 GB free",
    )
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert check("local store").state == "failed"


def test_a_shim_that_is_not_set_up(facts: Facts, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(launcher, "DROP_IN", tmp_path / "50.conf")
    monkeypatch.setattr(launcher, "states", lambda: [launcher.State("runc", "", "there is no launcher")])
    found = check("runtime shim")
    assert (found.state, found.found) == ("warning", "not set up")
    (tmp_path / "50.conf").touch()
    assert check("shim of runc").found == "there is no launcher"


def test_a_shim_that_does_not_work(facts: Facts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher, "states", lambda: [launcher.State("runc", "/usr/bin/runc", "it wants a python")])
    assert check("shim of runc") == Check("shim of runc", "warning", "it wants a python", "run `ocickpt setup` again")
    monkeypatch.setattr(launcher, "states", lambda: [launcher.State("runc", "/usr/bin/runc", "")])
    facts(runtime_path="/usr/bin/runc")
    assert check("shim of runc").found == "podman runs /usr/bin/runc instead"


def test_a_runtime_that_is_not_there_needs_no_shim(facts: Facts, monkeypatch: pytest.MonkeyPatch) -> None:
    states = [launcher.State("runc", "", "there is no launcher"), launcher.State("crun", "/usr/bin/crun", "")]
    monkeypatch.setattr(launcher, "states", lambda: states)
    facts(program=lambda name: "" if name == "runc" else f"/usr/bin/{name}")
    assert check("shim of crun").state == "ok"
    assert "shim of runc" not in [each.name for each in doctor.examine()]


def test_unfinished_operations(facts: Facts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pending, "left", lambda: [Left("one", "end it"), Left("two", "wait")])
    found = [each for each in doctor.examine() if each.name == "operations"]
    assert [(each.state, each.found, each.remedy) for each in found] == [
        ("warning", "one", "end it"), ("warning", "two", "wait"),
    ]  # fmt: skip


def test_a_check_that_fails_is_a_finding(facts: Facts, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> list[Left]:
        raise StorageError("the journal cannot be read", hint="look at it")

    monkeypatch.setattr(pending, "left", broken)
    facts(cgroup=lambda: 1 // 0)
    assert check("operations") == Check("operations", "failed", "the journal cannot be read", "look at it")
    assert check("cgroups").found == "could not be examined: ZeroDivisionError: integer division or modulo by zero"
    assert len(doctor.examine()) > 10


@pytest.mark.lab
def test_a_lab_host() -> None:
    found = {each.name: each for each in doctor.examine()}
    failed = [each for each in found.values() if each.state == "failed"]
    assert not failed
    assert found["cgroups"].state == "ok"
