"""Where the helpers of a lazy restore are put."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ocickpt.engine import cgroups

Join = Callable[..., dict[str, str]]


@pytest.fixture
def conmon(tmp_path: Path) -> Iterator[int]:
    """A process of that name."""
    program = tmp_path / "conmon"
    program.write_bytes(Path("/bin/sleep").read_bytes())
    program.chmod(0o755)
    process = subprocess.Popen([program, "60"])
    while Path(f"/proc/{process.pid}/comm").read_text() != "conmon\n":  # it is called so a moment after it is started
        pass
    yield process.pid
    process.kill()
    process.wait()


@pytest.fixture
def join(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, conmon: int) -> Join:
    """Have this process join conmon; what was written to which cgroup of a hierarchy that is made up."""
    (tmp_path / "bundle").mkdir()
    monkeypatch.setattr(cgroups, "HIERARCHY", tmp_path / "cgroup")
    monkeypatch.setattr(cgroups, "of", lambda pid: tmp_path / "cgroup" / ("scope" if pid == conmon else "caller"))

    def run(path: str, *there: str, pids: tuple[int, ...] = (os.getpid(),), parent: int = conmon) -> dict[str, str]:
        (tmp_path / "bundle" / "config.json").write_text(json.dumps({"linux": {"cgroupsPath": path}}))
        if there:
            (tmp_path / "cgroup").mkdir()
            (tmp_path / "cgroup" / "cgroup.controllers").touch()
        for name in there:
            (tmp_path / "cgroup" / name).mkdir(parents=True)
            (tmp_path / "cgroup" / name / "cgroup.procs").touch()
        cgroups.join_conmon(pids, parent, tmp_path / "bundle")
        root = tmp_path / "cgroup"
        return {str(file.parent.relative_to(root)): file.read_text() for file in root.rglob("cgroup.procs")}

    return run


def test_they_join_conmon_in_its_scope(join: Join) -> None:
    assert join("machine.slice:libpod:1", "scope", "conmon") == {"scope": str(os.getpid()), "conmon": ""}


def test_conmon_comes_along_to_the_cgroup_that_podman_made_for_it(join: Join, conmon: int) -> None:
    assert join("/parent/libpod-1", "scope", "parent/conmon", pids=()) == {"scope": "", "parent/conmon": str(conmon)}


def test_a_service_keeps_what_it_started(join: Join, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INVOCATION_ID", "1")
    found = join("/parent/libpod-1", "scope", "parent/conmon")
    assert found == {"scope": str(os.getpid()), "parent/conmon": ""}


def test_who_is_no_conmon_is_left_where_it_is(join: Join) -> None:
    found = join("/parent/libpod-1", "caller", "parent/conmon", parent=os.getpid())
    assert found == {"caller": "", "parent/conmon": ""}


@pytest.mark.parametrize("path", ["/../parent/x", "parent/libpod-1", "", "/a/b"])
def test_paths_that_podman_does_not_give(join: Join, path: str) -> None:
    assert join(path, "scope", "parent/conmon")["parent/conmon"] == ""


def test_who_has_ended_meanwhile_is_nobody(tmp_path: Path, conmon: int) -> None:
    (tmp_path / "bundle").mkdir(exist_ok=True)
    (tmp_path / "bundle" / "config.json").write_text("{}")
    gone = subprocess.Popen(["true"])
    gone.wait()
    cgroups.join_conmon((gone.pid,), conmon, tmp_path / "bundle")


def test_no_unified_hierarchy(join: Join) -> None:
    assert join("/parent/libpod-1") == {}
