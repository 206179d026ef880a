"""Facts about a host, from files and programs that are stood in for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ocickpt.engine import host
from ocickpt.engine.runtime import table
from ocickpt.versions import numbers

Programs = dict[str, str]

CRIU = "Version: 4.2.1\nGitID: v4.2.1\n"
CRUN = "crun version 1.28\ncommit: 54f16ffb\nrundir: /run/crun\nspec: 1.0.0\n+SYSTEMD +CRIU +JSON_C\n"
RUNC = "runc version 1.3.6+ds1\ncommit: 1.3.6+ds1-1\nspec: 1.2.1\ngo: go1.26.5\nlibseccomp: 2.6.0\n"


@pytest.fixture
def bin_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only directory where programs are found."""
    made = tmp_path / "bin"
    made.mkdir()
    monkeypatch.setenv("PATH", str(made))
    monkeypatch.setattr(host, "_SYSTEM_PATH", "")
    return made


def program(directory: Path, name: str, script: str) -> None:
    path = directory / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def answers(text: str) -> str:
    return f"printf '%s' '{text}'"


def test_versions(bin_dir: Path) -> None:
    for name, text in {
        "criu": CRIU,
        "crun": CRUN,
        "runc": RUNC,
        "podman": "podman version 5.4.2\n",
        "skopeo": "skopeo version 1.18.0 commit: x\n",
    }.items():
        program(bin_dir, name, f'[ "$*" = --version ] && {answers(text)}')
    assert host.criu_version() == "4.2.1"
    assert host.podman_version() == "5.4.2"
    assert host.skopeo_version() == "1.18.0"
    assert host.runtime_version("crun") == "1.28"
    assert host.runtime_version("runc") == "1.3.6+ds1"
    assert host.runtime_version(str(bin_dir / "runc")) == "1.3.6+ds1"
    found = host.facts()
    assert found.criu == "4.2.1"


def test_what_is_missing_is_empty(bin_dir: Path) -> None:
    assert host.facts().criu == ""
    assert host.runtime_version("/nowhere/runc") == ""
    assert host.runtime_path("runc") == ""
    assert not host.runtime_checkpoints("runc")
    assert host.criu_knows_selinux() is None
    assert host.criu_check() != ""
    assert host.program("runc") == ""


def test_a_program_that_fails_or_raves_is_no_version(bin_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(bin_dir, "criu", "echo what?; exit 3")
    assert host.criu_version() == ""
    program(bin_dir, "podman", "printf '\\377\\376'")
    assert host.podman_version() == ""
    (bin_dir / "crun").write_text("not a program")
    (bin_dir / "crun").chmod(0o755)
    assert host.runtime_version("crun") == ""
    monkeypatch.setattr(host, "_PATIENCE", 0.1)
    program(bin_dir, "runc", "exec /bin/sleep 10")
    assert host.runtime_version("runc") == ""


def test_the_runtime_podman_would_run(bin_dir: Path) -> None:
    wanted = "--runtime runc info --format {{.Host.OCIRuntime.Path}}"
    program(bin_dir, "podman", f'[ "$*" = "{wanted}" ] && echo /usr/bin/runc')
    assert host.runtime_path("runc") == "/usr/bin/runc"
    assert host.runtime_path("crun") == ""


def test_the_probe_of_podman(bin_dir: Path) -> None:
    program(bin_dir, "runc", '[ "$*" = "checkpoint --help" ]')
    program(bin_dir, "crun", "exit 1")
    assert host.runtime_checkpoints("runc")
    assert not host.runtime_checkpoints("crun")


@pytest.mark.parametrize(
    ("script", "objection"),
    [
        ("echo Looks good.", ""),
        (
            "echo 'Warn  (criu/cr-check.c:824): Dirty tracking is OFF. Memory snapshot will not work.' >&2; exit 1",
            "Dirty tracking is OFF. Memory snapshot will not work.",
        ),
        ("echo 'Error (criu/x.c:1): one'; echo 'Error (criu/y.c:2): two'; echo last; exit 1", "two"),
        ("echo something; exit 1", "something"),
        ("exit 1", "it said nothing"),
    ],
)
def test_criu_check(bin_dir: Path, script: str, objection: str) -> None:
    program(bin_dir, "criu", script)
    assert host.criu_check("--feature", "x") == objection


@pytest.mark.parametrize(
    ("content", "answer"),
    [(b"\x7fELF..libselinux.so.1..", True), (b"\x7fELF..libc.so.6..", False), (b"#!/bin/sh\n", None), (b"", None)],
)
def test_a_criu_that_knows_selinux(bin_dir: Path, content: bytes, answer: bool | None) -> None:
    (bin_dir / "criu").write_bytes(content)
    (bin_dir / "criu").chmod(0o755)
    assert host.criu_knows_selinux() is answer


@pytest.mark.parametrize(
    ("machine", "goarch"),
    [("x86_64", "amd64"), ("aarch64", "arm64"), ("armv7l", "arm"), ("s390x", "s390x"), ("riscv64", "riscv64")],
)
def test_architectures_have_gos_names(monkeypatch: pytest.MonkeyPatch, machine: str, goarch: str) -> None:
    monkeypatch.setattr("platform.machine", lambda: machine)
    assert host.arch() == goarch


@pytest.mark.parametrize(
    ("text", "features"),
    [
        (
            "processor\t: 0\nflags\t\t: sse2 fpu avx\nbugs\t: spectre\n\nprocessor\t: 1\nflags\t: other\n",
            ("avx", "fpu", "sse2"),
        ),
        ("processor\t: 0\nFeatures\t: fp asimd\n", ("asimd", "fp")),
        ("features\t: esan3 zarch\n", ("esan3", "zarch")),
        ("processor: 0\n", ()),
    ],
)
def test_cpu_features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, features: tuple[str, ...]) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr(host, "_CPUINFO", tmp_path / "cpuinfo")
    assert host.cpu_features() == features


@pytest.mark.parametrize(
    ("mounts", "version"),
    [
        ("proc /proc proc rw 0 0\ncgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n", "v2"),
        ("tmpfs /sys/fs/cgroup tmpfs ro 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n", "v1"),
        ("proc /proc proc rw 0 0\n", ""),
    ],
)
def test_cgroups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mounts: str, version: str) -> None:
    (tmp_path / "mounts").write_text(mounts)
    monkeypatch.setattr(host, "_MOUNTS", tmp_path / "mounts")
    assert host.cgroup() == version


def test_old_hierarchies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "_OWN_CGROUPS", tmp_path / "cgroup")
    assert host.v1_hierarchies() == ()
    (tmp_path / "cgroup").write_text("0::/init\n")
    assert host.v1_hierarchies() == ()
    (tmp_path / "cgroup").write_text("9:name=systemd:/\n3:cpu,cpuacct:/a:b\n0::/init\n")
    assert host.v1_hierarchies() == ("name=systemd", "cpu,cpuacct")


@pytest.mark.parametrize(
    ("lsm", "modules", "found"),
    [
        ("lockdown,capability,selinux,bpf", (), "selinux"),
        ("capability,apparmor", (), "apparmor"),
        ("capability,landlock", (), "none"),
        (None, ("apparmor",), "apparmor"),
        (None, (), "none"),
    ],
)
def test_security_modules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lsm: str | None, modules: tuple[str, ...], found: str
) -> None:
    if lsm is not None:
        (tmp_path / "lsm").write_text(lsm)
    for module in modules:
        (tmp_path / module / "parameters").mkdir(parents=True)
        (tmp_path / module / "parameters" / "enabled").write_text("Y\n")
    monkeypatch.setattr(host, "_LSM", tmp_path / "lsm")
    monkeypatch.setattr(host, "_MODULES", tmp_path)
    monkeypatch.setattr(host, "_SELINUXFS", tmp_path / "selinuxfs")
    assert host.lsm() == found


def test_this_host(bin_dir: Path) -> None:
    found = host.facts()
    assert found.kernel == os.uname().release
    assert found.page_size % 4096 == 0
    assert found.euid == os.geteuid()


@pytest.mark.lab
def test_a_lab_host() -> None:
    found = host.facts()
    assert numbers(found.criu)[:2] == (4, 2)
    assert numbers(host.podman_version())[0] == 5
    assert all(numbers(host.runtime_version(name)) for name in table.NAMES)
    assert (found.cgroup, found.distribution) == ("v2", "debian 13")
    assert found.cpu_features
    assert host.pycriu_version() == found.criu
    assert host.runtime_path("runc").endswith("/runc")
    assert host.criu_check() == ""
