"""Under AppArmor a restored container is confined by the profile that it had: every process, and `podman exec`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import ocickpt
from ocickpt.errors import PrerequisiteError
from tests.hostile.changing import Change, creds, in_image
from tests.hostile.run import archive, members_of
from tests.vm.conftest import (
    COUNTER,
    IMAGE,
    REGISTRY,
    Running,
    fresh,
    only_crun,
    out,
    remove_all,
    restore,
    run,
    start,
    stopped,
)

OTHER = "vm-other"
PROFILE = f"""
profile {OTHER} flags=(attach_disconnected,mediate_deleted) {{
  file, network, capability, mount, umount, pivot_root, ptrace, signal, unix,
}}
"""
CONFIG = Path("/etc/ocickpt/config.toml")


@dataclass(frozen=True)
class Saved:
    """A checkpoint of a container that goes on."""

    ref: str
    digest: str
    count: int
    """How far it had counted, at least."""
    profile: str
    """What confined all its processes."""


@pytest.fixture(scope="module")
def saved(runtime: str) -> Iterator[Saved]:
    web = start(runtime, "web")
    (profile,) = web.labels()
    # Else nothing below would show anything.
    assert profile.startswith("containers-default-")
    assert profile.endswith(" (enforce)")
    count, ref = web.count, fresh()
    pinned = ocickpt.checkpoint("web", ref, leave_running=True).reference
    yield Saved(ref, pinned, count, profile)
    remove_all()


@pytest.fixture(scope="session")
def other() -> str:
    """A profile beside podman's own, loaded."""
    run("apparmor_parser", "--replace", stdin=PROFILE)
    return OTHER


def confined(container: Running, profile: str) -> None:
    assert container.labels() == {profile}
    assert container.executed() == profile


def test_copy_beside_its_original(saved: Saved) -> None:
    copy = restore(saved.ref, name="copy")
    copy.counts(saved.count)
    confined(copy, saved.profile)
    original = Running(out("podman", "inspect", "--format", "{{.Id}}", "web"))
    original.counts(saved.count)
    confined(original, saved.profile)


@pytest.mark.parametrize("way", ["eager", "lazy"])
def test_restore(saved: Saved, way: str) -> None:
    remove_all()
    web = restore(saved.ref, lazy=way == "lazy")
    confined(web, saved.profile)
    web.counts(saved.count)
    confined(web, saved.profile)


def test_restore_on_start(saved: Saved, runtime: str) -> None:
    remove_all()
    CONFIG.parent.mkdir(exist_ok=True)
    CONFIG.write_text(f'[restore-on-start]\nallow = ["{REGISTRY}/t"]\n')
    options = ("--network", "none", "--annotation", f"io.ocickpt.restore={saved.digest}")
    new = Running(out("podman", "--runtime", runtime, "run", "--detach", *options, IMAGE, "sh", "-c", COUNTER))
    new.counts(saved.count)
    confined(new, saved.profile)


@only_crun
def test_another_profile_is_asked_for(runtime: str, other: str) -> None:
    remove_all()
    web, ref = start(runtime, "web", "--security-opt", f"apparmor={other}"), fresh()
    assert web.labels() == {f"{other} (enforce)"}
    count = web.count
    ocickpt.checkpoint("web", ref)
    remove_all()
    with pytest.raises(PrerequisiteError, match=f"--allow apparmor={other}"):
        restore(ref)
    assert out("podman", "ps", "--all", "--quiet") == ""
    web = restore(ref, allow=(f"apparmor={other}",))
    web.counts(count)
    confined(web, f"{other} (enforce)")
    remove_all()


LIES: dict[str, Change] = {
    "another profile": creds(lsm_profile=OTHER),
    "unconfined": creds(lsm_profile="unconfined"),
    "no label": in_image("core-1", lambda core: core["thread_core"]["creds"].pop("lsm_profile")),
}
"""What an archive says of its first process."""


def crafted(dumped: Path, lie: str) -> str:
    """The reference of an archive that lies."""
    members, ref = members_of(dumped), fresh()
    LIES[lie](members)
    ocickpt.push(archive(members, dumped.with_name("lying.tar")), ref)
    return ref


@only_crun
@pytest.mark.parametrize("lie", LIES)
def test_the_gate_stops(dumped: Path, other: str, lie: str) -> None:
    assert "would run as" in stopped(crafted(dumped, lie), lazy=False)


@pytest.mark.parametrize("lie", ["another profile", "no label"])
@pytest.mark.parametrize("way", ["eager", "lazy"])
def test_the_kernel_stops(blind: None, dumped: Path, other: str, lie: str, way: str) -> None:
    assert "instead of" in stopped(crafted(dumped, lie), lazy=way == "lazy")
