"""Under SELinux, with a criu that lacks libselinux: nothing is dumped in vain, and nothing runs without its label.

Debian's criu is one. Permissive: the kernel labels processes and forbids nothing, which is enough to see.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from ocickpt.engine import host
from ocickpt.errors import PrerequisiteError
from tests.vm.conftest import Running, Start, counting, out, run, stopped


def labelled(container: Running) -> Running:
    """It has podman's own label: else nothing below would show anything."""
    assert not host.criu_knows_selinux()
    (found,) = container.labels()
    assert found.split(":")[2] == "container_t", found
    return container


def not_dumped(container: Running, count: int) -> None:
    """It runs on, and was not even asked to stand still."""
    assert container.state == "running"
    bundle = Path(out("podman", "inspect", "--format", "{{.StaticDir}}", container.name))
    assert not (bundle / "dump.log").exists()
    assert not (bundle / "checkpoint").exists()
    container.goes_on(count)


@pytest.mark.parametrize("leave_running", [False, True], ids=["", "leave running"])
def test_checkpoint_is_refused_before_the_freeze(start: Start, ref: str, leave_running: bool) -> None:
    web = labelled(counting(start("web")))
    count = web.count
    options = ["--leave-running"] if leave_running else []
    refused = run("ocickpt", "checkpoint", *options, "web", ref, check=False)
    assert refused.returncode == PrerequisiteError.exit_code
    assert "has an SELinux label, which a checkpoint would lose" in refused.stderr
    assert "criu is built without libselinux" in refused.stderr
    not_dumped(web, count)


def test_podman_is_kept_from_it_too(start: Start) -> None:
    web = labelled(counting(start("web")))
    count = web.count
    refused = run("podman", "container", "checkpoint", "web", check=False)
    assert refused.returncode
    assert "has an SELinux label, which a checkpoint would lose" in refused.stderr
    not_dumped(web, count)


@pytest.mark.parametrize("runtime", ["crun"], indirect=True)
def test_a_container_without_a_label_is_checkpointed(start: Start, ref: str) -> None:
    web = counting(start("web", "--security-opt", "label=disable"))
    count = web.count
    run("ocickpt", "checkpoint", "--quiet", "web", ref)
    run("podman", "rm", "web")
    run("ocickpt", "restore", "--quiet", "--allow", "label=disable", ref)
    web.goes_on(count)


def test_the_gate_stops_a_restore(dumped: Path, ref: str) -> None:
    """Of what podman has dumped without labels."""
    run("ocickpt", "push", "--quiet", str(dumped), ref)
    assert "would run as nothing instead of" in stopped(ref, "eager", blind=False)


@pytest.mark.parametrize("way", ["eager", "lazy"])
def test_the_kernel_stops_a_restore(dumped: Path, ref: str, way: str) -> None:
    run("ocickpt", "push", "--quiet", str(dumped), ref)
    stopped(ref, way, blind=True)


@pytest.mark.parametrize("runtime", ["crun"], indirect=True)
def test_doctor_tells(runtime: str) -> None:
    told = run("ocickpt", "doctor", check=False).stdout
    assert "built without libselinux" in told
