"""The timer of a container's healthcheck, which podman forgets when it restores."""

from __future__ import annotations

import os
from pathlib import Path

from ocickpt import proc
from ocickpt.engine.podman.commands import PROGRAM, Printed, inspected
from ocickpt.engine.podman.config import Healthcheck


class _Settings(Printed, frozen=True):
    healthcheck: Healthcheck = Healthcheck()
    startup_health_check: Healthcheck | None = None


class _Checked(Printed, frozen=True):
    """A container, and when it is checked."""

    id: str
    config: _Settings


def are_run() -> bool:
    """Whether podman has healthchecks run on this host: systemd does it (``disableHealthCheckSystemd`` in libpod)."""
    return Path("/run/systemd/system").is_dir() and os.environ.get("DISABLE_HC_SYSTEMD") != "true"


def resume(container_id: str) -> None:
    """Make the timer of a running container's healthcheck, as podman does when it starts one: its restore makes none.

    ``podman update --health-interval`` is no way: it makes a timer only for another interval than before, none while
    there is a startup healthcheck, and it splits a command's arguments at spaces. The unit has the name that
    podman stops and removes where it has put no other on record (``hcUnitName`` in libpod/healthcheck_linux.go).
    """
    found = inspected(container_id, _Checked)
    due = _due(found.config)
    if not due:
        return
    suffix, interval = due
    unit = found.id + suffix
    if proc.run(["systemctl", "--quiet", "is-active", f"{found.id}*.timer"], check=False).returncode == 0:
        return
    proc.run(
        ["systemd-run", "--quiet", "--unit", unit,
         "--property=LogLevelMax=notice", "--property=StartLimitIntervalSec=0",
         f"--on-unit-inactive={max(1, interval // 1000)}us", "--timer-property=AccuracySec=1s",
         f"--setenv=PATH={os.environ.get('PATH', os.defpath)}", PROGRAM, "healthcheck", "run", found.id]
    )  # fmt: skip
    # From then on the timer counts from the end of each run.
    proc.run(["systemctl", "start", f"{unit}.service"])


def _due(config: _Settings) -> tuple[str, int] | None:
    """What the timer's name ends in and its interval in ns; None where podman makes no timer.

    A startup healthcheck comes first, and podman changes to the other one once it succeeded. Whether it had
    succeeded before the checkpoint, no checkpoint tells.
    """
    health, startup = config.healthcheck, config.startup_health_check
    if not health.interval or not health.test or health.test[0] in ("", "NONE"):
        return None
    if startup is None:
        return "", health.interval
    return ("-startup", startup.interval) if startup.interval else None
