"""Under SELinux, with a criu that lacks libselinux: nothing is dumped in vain, and nothing runs without its label.

Debian's criu is one. Permissive: the kernel labels processes and forbids nothing, which is enough to see.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import ocickpt
from ocickpt.engine import host
from ocickpt.errors import PrerequisiteError
from tests.vm.conftest import Running, fresh, only_crun, remove_all, restore, run, start, stopped

LOST = "has an SELinux label, which a checkpoint would lose"


@pytest.fixture(scope="module")
def web(runtime: str) -> Iterator[Running]:
    """A container with podman's own label: else nothing below would show anything."""
    assert host.criu_knows_selinux() is False
    container = start(runtime, "web")
    (found,) = container.labels()
    assert found.split(":")[2] == "container_t"
    yield container
    remove_all()


def runs_on(container: Running, before: tuple[int, int]) -> None:
    """The same process counts on, and CRIU was not even started."""
    pid, count = before
    assert container.pid == pid
    container.counts(count)
    bundle = Path(f"/var/lib/containers/storage/overlay-containers/{container.id}/userdata")
    assert (bundle / "config.json").exists()
    # podman itself makes the log, for its label.
    assert [
        path for path in (bundle / "dump.log", *bundle.glob("checkpoint/*")) if path.exists() and path.stat().st_size
    ] == []


@pytest.mark.parametrize("option", ["", "leave_running"])
def test_checkpoint_is_refused_before_the_freeze(web: Running, option: str) -> None:
    before = web.pid, web.count
    with pytest.raises(PrerequisiteError, match=f"{LOST}: .*criu is built without libselinux"):
        ocickpt.checkpoint("web", fresh(), leave_running=bool(option))
    runs_on(web, before)


def test_podman_is_kept_from_it_too(web: Running) -> None:
    before = web.pid, web.count
    refused = run("podman", "container", "checkpoint", "web", check=False)
    assert refused.returncode
    assert LOST in refused.stderr
    runs_on(web, before)


@only_crun
def test_a_container_without_a_label_is_checkpointed(runtime: str) -> None:
    remove_all()
    plain, ref = start(runtime, "plain", "--security-opt", "label=disable"), fresh()
    count = plain.count
    ocickpt.checkpoint("plain", ref)
    remove_all()
    restore(ref, allow=("selinux=disable",)).counts(count)
    remove_all()


def test_the_gate_stops_a_restore(dumped: Path) -> None:
    """Of what podman has dumped without labels."""
    ref = fresh()
    ocickpt.push(dumped, ref)
    assert "would run as nothing instead of" in stopped(ref, lazy=False)


@pytest.mark.parametrize("way", ["eager", "lazy"])
def test_the_kernel_stops_a_restore(blind: None, dumped: Path, way: str) -> None:
    ref = fresh()
    ocickpt.push(dumped, ref)
    assert "instead of" in stopped(ref, lazy=way == "lazy")


@only_crun
def test_doctor_tells(runtime: str) -> None:
    (found,) = (each for each in ocickpt.doctor() if each.name == "security module")
    assert (found.state, "is built without libselinux" in found.found) == ("failed", True)
