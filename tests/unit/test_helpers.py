"""The helpers of a lazy restore that is not to be: they touch nothing, and are gone."""

from __future__ import annotations

import json
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ocickpt import proc, rendezvous
from ocickpt.lazy.helpers import Helpers

if TYPE_CHECKING:
    from ocickpt.rendezvous import Reading

PLAN: Reading = {"reference": "oci:/nowhere", "authfile": "", "tls_verify": None, "patience": 0.1, "wide": True}
STARTER = """
import sys, time
from ocickpt.lazy.helpers import Helpers
helpers = Helpers(sys.argv[1])
print(helpers.pid, flush=True)
time.sleep(60)
"""


@pytest.fixture
def name() -> Iterator[str]:
    made = secrets.token_hex(16)
    yield made
    assert not proc.running(made)
    assert not (rendezvous.LAZY / f"{made}.json").exists()


def wait_for(processes: int, name: str) -> None:
    end = time.monotonic() + 20
    while count(name) != processes:
        assert time.monotonic() < end, f"{count(name)} processes, not {processes}"
        time.sleep(0.01)


def count(name: str) -> int:
    """Processes with `name` in their command lines that have not ended."""
    found = 0
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        found += name.encode() in words
    return found


@pytest.mark.parametrize("when", ["at once", "loaded", "prepared"])
def test_what_is_dismissed_is_gone(name: str, when: str) -> None:
    helpers = Helpers(name)
    if when != "at once":
        wait_for(2, name)
    if when == "prepared":
        helpers.prepare(PLAN)  # there is no such checkpoint, which is nobody's business yet
        time.sleep(0.5)
    helpers.dismiss()
    assert count(name) == 0
    helpers.dismiss()


def test_they_do_not_outlive_who_started_them(name: str) -> None:
    starter = subprocess.Popen([sys.executable, "-c", STARTER, name], stdout=subprocess.PIPE)
    assert starter.stdout
    starter.stdout.readline()
    wait_for(3, name)
    starter.send_signal(signal.SIGKILL)
    starter.communicate()
    wait_for(0, name)


def test_a_line_for_one_that_has_died(name: str) -> None:
    command = proc.Background(["sh", "-c", f"exit 3 # {name}"], waits=True)
    while command.poll() is None:
        time.sleep(0.01)
    command.tell("x" * (1 << 20))
    command.go()
    assert command.wait().returncode == 3


def test_what_waits_is_told_line_by_line() -> None:
    command = proc.Background(["sh", "-c", "cat; echo told >&2; exit 4"], waits=True)
    command.tell(json.dumps({"a": 1}))
    command.go("last")
    result = command.wait()
    assert (result.returncode, result.stdout, result.stderr) == (4, '{"a": 1}\nlast\n', "told\n")


def test_what_does_not_wait_is_nothing_before_it_may_go(tmp_path: Path) -> None:
    command = proc.Background(["touch", str(tmp_path / "made")])
    command.dismiss()
    assert command.poll() not in (0, None)
    other = proc.Background(["touch", str(tmp_path / "other")])
    other.go()
    assert other.wait().returncode == 0
    assert (tmp_path / "other").exists()
    assert not (tmp_path / "made").exists()
