"""Which timer a restored container's healthcheck gets, and how it is made."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ocickpt import proc
from ocickpt.engine.podman import healthcheck

ID = "c" * 64
SECOND = 1_000_000_000


def made(monkeypatch: pytest.MonkeyPatch, config: dict[str, Any], *, active: bool = False) -> list[list[str]]:
    """The commands that are run for a container with this configuration, but for the two that only ask."""
    calls: list[list[str]] = []

    def run(argv: list[str], *, check: bool = True) -> proc.Result:
        calls.append(argv)
        asked = "is-active" in argv
        stdout = json.dumps([{"Id": ID, "Config": config}]) if "inspect" in argv else ""
        return proc.Result(tuple(argv), 3 if asked and not active else 0, stdout, "")

    monkeypatch.setattr(proc, "run", run)
    healthcheck.resume(ID)
    return [argv for argv in calls if "inspect" not in argv and "is-active" not in argv]


def test_the_timer_is_the_one_podman_removes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin")
    timer, start = made(monkeypatch, {"Healthcheck": {"Test": ["CMD", "true"], "Interval": 30 * SECOND}})
    assert timer[timer.index("--unit") + 1] == ID
    assert {"--on-unit-inactive=30000000us", "--setenv=PATH=/usr/bin"} <= set(timer)
    assert timer[-4:] == ["podman", "healthcheck", "run", ID]
    assert start == ["systemctl", "start", f"{ID}.service"]


def test_a_startup_healthcheck_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    regular = {"Test": ["CMD", "true"], "Interval": 30 * SECOND}
    timer, start = made(monkeypatch, {"Healthcheck": regular, "StartupHealthCheck": {"Interval": 2 * SECOND}})
    assert timer[timer.index("--unit") + 1] == f"{ID}-startup"
    assert "--on-unit-inactive=2000000us" in timer
    assert start[-1] == f"{ID}-startup.service"


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"Healthcheck": None},
        {"Healthcheck": {"Test": ["NONE"]}},
        {"Healthcheck": {"Test": ["NONE"], "Interval": SECOND}},
        {"Healthcheck": {"Test": ["CMD", "true"], "Interval": 0}},
        {"Healthcheck": {"Test": ["CMD", "true"], "Interval": SECOND}, "StartupHealthCheck": {"Interval": 0}},
    ],
)
def test_none_where_podman_makes_none(monkeypatch: pytest.MonkeyPatch, config: dict[str, Any]) -> None:
    assert made(monkeypatch, config) == []


def test_none_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    config = {"Healthcheck": {"Test": ["CMD", "true"], "Interval": SECOND}}
    assert made(monkeypatch, config, active=True) == []
