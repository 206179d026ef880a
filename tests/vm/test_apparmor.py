"""Under AppArmor a restored container is confined by the profile that it had: every process, and `podman exec`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from ocickpt.errors import PrerequisiteError
from tests.hostile.changing import Change, creds, in_image
from tests.hostile.run import archive, members_of
from tests.vm.conftest import COUNTER, IMAGE, REGISTRY, Running, Start, counting, out, run, stopped, wait

OTHER = "vm-other"
ENFORCED = f"{OTHER} (enforce)"
CONFIG = Path("/etc/ocickpt/config.toml")


def confined(container: Running, profile: str) -> None:
    assert container.labels() == {profile}
    assert container.executed() == profile


@pytest.fixture
def profile() -> Iterator[str]:
    """A profile beside podman's own, loaded."""
    run(
        "apparmor_parser",
        "--replace",
        stdin=f"profile {OTHER} flags=(attach_disconnected,mediate_deleted) {{\n{RULES}}}\n",
    )
    yield OTHER
    run("podman", "rm", "--all", "--force", "--time", "0")
    run("apparmor_parser", "--remove", stdin=f"profile {OTHER} {{}}\n")


RULES = """
  file, network, capability, mount, umount, pivot_root, ptrace, dbus,
  signal,
  unix,
"""


def profile_of(container: Running) -> str:
    """podman's own, in force for all its processes: else nothing below would show anything."""
    (found,) = container.labels()
    assert found.startswith("containers-default-")
    assert found.endswith(" (enforce)")
    return found


def checkpointed(container: Running, ref: str) -> tuple[int, str]:
    """How far it had counted before its checkpoint, which ends it; the reference with its digest."""
    count = container.count
    pinned = out("ocickpt", "checkpoint", "--quiet", container.name, ref)
    run("podman", "rm", container.name)
    return count, pinned


@pytest.mark.parametrize("way", ["eager", "lazy", "copy beside its original"])
def test_restore(start: Start, ref: str, way: str) -> None:
    original = counting(start("web"))
    wanted = profile_of(original)
    if way == "copy beside its original":
        count = original.count
        run("ocickpt", "checkpoint", "--quiet", "--leave-running", "web", ref)
        run("ocickpt", "restore", "--quiet", "--name", "other", ref)
        other = Running("other")
        other.goes_on(count)
        confined(other, wanted)
        original.goes_on(count)
    else:
        count, _ = checkpointed(original, ref)
        said = run("ocickpt", "restore", *(["--lazy"] if way == "lazy" else []), ref).stderr
        assert ("follow" in said) is (way == "lazy")
        confined(original, wanted)
        original.goes_on(count)
        wait(lambda: json.loads(out("ocickpt", "status", "--format", "json")) == [], "memory does not arrive")
    confined(original, wanted)


def test_restore_on_start(start: Start, ref: str, runtime: str) -> None:
    CONFIG.parent.mkdir(exist_ok=True)
    CONFIG.write_text(f'[restore-on-start]\nallow = ["{REGISTRY}/t"]\n')
    original = counting(start("web"))
    wanted = profile_of(original)
    count, pinned = checkpointed(original, ref)
    annotation = f"io.ocickpt.restore={pinned}"
    run("podman", "--runtime", runtime, "run", "--detach", "--name", "new", "--annotation", annotation,
        IMAGE, "sh", "-c", COUNTER)  # fmt: skip
    new = Running("new")
    new.goes_on(count)
    confined(new, wanted)


def test_another_profile_is_asked_for(start: Start, ref: str, profile: str) -> None:
    original = counting(start("web", "--security-opt", f"apparmor={profile}"))
    assert original.labels() == {ENFORCED}
    count, _ = checkpointed(original, ref)
    refused = run("ocickpt", "restore", ref, check=False)
    assert refused.returncode == PrerequisiteError.exit_code
    assert f"--allow apparmor={profile}" in refused.stderr
    assert out("podman", "ps", "--all", "--quiet") == ""
    run("ocickpt", "restore", "--quiet", "--allow", f"apparmor={profile}", ref)
    original.goes_on(count)
    confined(original, ENFORCED)


LIES: dict[str, Change] = {
    "another profile": creds(lsm_profile=OTHER),
    "unconfined": creds(lsm_profile="unconfined"),
    "no label": in_image("core-1", lambda core: core["thread_core"]["creds"].pop("lsm_profile")),
}
"""What an archive says of its first process."""


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("runtime", ["crun"], indirect=True)
def test_the_gate_stops(dumped: Path, ref: str, profile: str, lie: str) -> None:
    assert "would run as" in stopped(crafted(dumped, lie, ref), "eager", blind=False)


@pytest.mark.parametrize(
    ("lie", "way"), [("another profile", "eager"), ("another profile", "lazy"), ("no label", "eager")]
)
def test_the_kernel_stops(dumped: Path, ref: str, profile: str, lie: str, way: str) -> None:
    stopped(crafted(dumped, lie, ref), way, blind=True)


def crafted(dumped: Path, lie: str, ref: str) -> str:
    """The reference of an archive that lies."""
    members = members_of(dumped)
    LIES[lie](members)
    return out("ocickpt", "push", "--quiet", archive(members, dumped), ref)
