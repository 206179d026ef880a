"""Healthchecks go on after a restore, on a host with systemd: podman has its timers run them, and restores none."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.e2e.conftest import Host

Check = Callable[..., str]


@pytest.fixture
def moved(hosts: tuple[Host, Host], target: Host, ref: str) -> Check:
    """Start a container with these options, on a host without systemd unless told, and move it to the one with it."""

    def run(*options: str, source: Host = hosts[0]) -> str:
        source.run("podman", "run", "--detach", "--name", "h", *options, "localhost/busybox", "/counter.sh")
        source.ocickpt("checkpoint", "h", ref)
        source.run("podman", "rm", "h")
        return target.ocickpt("restore", ref).stdout.strip()

    return run


def timers(host: Host, container: str) -> list[str]:
    """The units that systemd still has for a container."""
    found = host.out("systemctl", "list-units", "--all", "--plain", "--no-legend", f"{container}*")
    return [line.split()[0] for line in found.splitlines()]


def checks(host: Host, container: str) -> list[str]:
    """When the container's healthcheck was run, oldest first."""
    return [run["Start"] for run in host.inspect(container)["State"]["Health"]["Log"] or ()]


def assert_checked(host: Host, container: str, *, times: int) -> None:
    """The healthcheck is run again and again."""
    seen: set[str] = set()
    end = time.monotonic() + 30
    while len(seen) < times:
        seen.update(checks(host, container))
        assert time.monotonic() < end, f"only {sorted(seen)}, units {timers(host, container)}"
        time.sleep(0.2)


def health(host: Host, container: str) -> Any:
    return host.inspect(container)["Config"]["Healthcheck"]


@pytest.mark.parametrize(
    ("runtime", "end"),
    [("runc", ("stop", "--time", "0")), ("crun", ("rm", "--force", "--time", "0"))],
    ids=["runc-stop", "crun-rm"],
)
def test_goes_on_until_the_container_ends(target: Host, moved: Check, runtime: str, end: tuple[str, ...]) -> None:
    container = moved("--health-cmd", "test -s /tmp/count", "--health-interval=1s", f"--runtime={runtime}")
    assert_checked(target, container, times=3)
    assert target.inspect(container)["State"]["Health"]["Status"] == "healthy"
    assert "(healthy)" in target.out("podman", "ps", "--format", "{{.Status}}")
    assert timers(target, container)

    target.run("podman", *end, container)
    assert timers(target, container) == []


def test_notices_what_breaks_after_the_restore(target: Host, moved: Check) -> None:
    container = moved("--health-cmd", "test ! -e /tmp/broken", "--health-interval=1s", "--health-retries=1")
    target.wait("sh", "-c", f"podman inspect {container} --format '{{{{.State.Health.Status}}}}' | grep -qx healthy")
    target.execute(container, "touch", "/tmp/broken")
    target.wait("sh", "-c", f"podman inspect {container} --format '{{{{.State.Health.Status}}}}' | grep -qx unhealthy")


def test_its_command_is_what_it_was(target: Host, moved: Check) -> None:
    container = moved("--health-cmd", '["sh", "-c", "test -s  /tmp/count"]', "--health-interval=1s")
    assert_checked(target, container, times=2)
    assert health(target, container)["Test"] == ["CMD", "sh", "-c", "test -s  /tmp/count"]
    assert health(target, container)["Interval"] == 1_000_000_000


def test_between_two_hosts_with_systemd(target: Host, moved: Check) -> None:
    container = moved("--health-cmd", "true", "--health-interval=1s", source=target)
    assert_checked(target, container, times=3)
    target.run("podman", "restart", "--time", "0", container)
    assert len([unit for unit in timers(target, container) if unit.endswith(".timer")]) == 1
    assert_checked(target, container, times=2)


def test_startup_healthcheck_first(target: Host, moved: Check) -> None:
    container = moved(
        *("--health-cmd", "touch /tmp/regular", "--health-interval=1s"),
        *("--health-startup-cmd", "touch /tmp/startup", "--health-startup-interval=1s", "--health-startup-success=2"),
    )
    target.wait("podman", "exec", container, "test", "-e", "/tmp/startup")
    target.wait("podman", "exec", container, "test", "-e", "/tmp/regular")
    target.run("podman", "rm", "--force", "--time", "0", container)
    assert timers(target, container) == []


@pytest.mark.parametrize(
    "options",
    [("--no-healthcheck",), ("--health-cmd", "true", "--health-interval=disable")],
    ids=["no-healthcheck", "disable"],
)
def test_none_where_there_was_none(target: Host, moved: Check, options: tuple[str, ...]) -> None:
    container = moved(*options)
    assert timers(target, container) == []
    assert target.out("podman", "ps", "--format", "{{.Status}}").startswith("Up")
