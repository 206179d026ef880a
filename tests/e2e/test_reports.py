"""What people reported of checkpoints and restores of containers; the rows are in reports.py.

A test run plays each once, the runtime and the way (at once, or its memory later) by the row's number; `make test-long`
all four.
"""

from __future__ import annotations

import json

import pytest

from ocickpt.errors import PrerequisiteError
from tests.e2e.conftest import LONG, Host, Start, until_arrived
from tests.e2e.reports import REPORTS, Report

WAYS = (("runc", "eager"), ("crun", "lazy"), ("runc", "lazy"), ("crun", "eager"))
PATIENCE = "120"
"""Seconds that what is done or seen inside may take."""
# Where the kernel put the first process's stack, at random: a process that was started afresh has it elsewhere.
STACK = "sed 's/.*) //' /proc/1/stat | cut -d' ' -f26"


def played() -> list[object]:
    """A parameter each: the row, the runtime, the way."""
    return [
        pytest.param(report, runtime, way, id=f"{report.source} {report.name} - {runtime} {way}")
        for number, report in enumerate(REPORTS)
        for runtime, way in (WAYS if LONG else [WAYS[number % len(WAYS)]])
        if LONG or not report.long
    ]


def inside(host: Host, container: str, script: str) -> str:
    """Run shell in a container, every line of it with success; where its first process's stack is."""
    timed = ("timeout", PATIENCE, "sh", "-ec", f"( {script}\n) >&2\n{STACK}")
    return host.execute(container, *timed)


def restored(host: Host, reference: str, *options: str) -> str:
    """Restore, and allow what is asked for; the container."""
    done = host.ocickpt("restore", *options, reference, check=False)
    if done.returncode == PrerequisiteError.exit_code:
        done = host.ocickpt("restore", *options, *host.refused("restore", *options, reference), reference, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(("report", "runtime", "way"), played(), indirect=["runtime"])
def test_comes_back(hosts: tuple[Host, Host], start: Start, ref: str, report: Report, way: str) -> None:
    here, there = hosts
    for host in hosts:
        host.run("podman", "secret", "create", "--replace", "key", "-", stdin="x")
    container = start("it", *report.run)
    stack = inside(here, container, report.inside)
    assert stack != "0"
    if report.refused:
        done = here.ocickpt("checkpoint", *report.checkpoint, container, ref, check=False)
        assert done.returncode != 0
        assert report.refused in done.stderr
        assert inside(here, container, report.seen) == stack
        return
    lazy = ["--lazy"] if way == "lazy" else []
    for _ in range(report.moves):
        told = here.ocickpt("checkpoint", "--format", "json", *report.checkpoint, container, ref).stdout
        here.run("podman", "rm", "--force", "--ignore", container)
        container = restored(there, json.loads(told)["reference"], *lazy, *report.restore)
        assert inside(there, container, report.seen) == stack
        until_arrived(there)
        here, there = there, here
