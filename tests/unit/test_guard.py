"""What a lazy restore's processes share: its state, its directory, and who of them is who."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from ocickpt import processes, rendezvous
from ocickpt.errors import IncompatibleError
from ocickpt.lazy import attach, following
from ocickpt.lazy import states as lazy_states
from ocickpt.model import Silent
from ocickpt.operations.journal import Restore

KEY = "cd" * 16
ID = "e" * 64
WRITER = """
import sys
from pathlib import Path
from ocickpt import rendezvous
from ocickpt.lazy import states
rendezvous.LAZY = Path(sys.argv[1])
name = sys.argv[2]
for number in range(200):
    states.change("key", **{name: number})
    assert states.read("key")[name] == number
"""
STARTER = """
import sys, time
from pathlib import Path
from ocickpt import rendezvous
from ocickpt.lazy.helpers import Helpers
work = Path(sys.argv[1])
helpers = Helpers(str(work))
helpers.prepare({"reference": "oci:/nowhere", "authfile": "", "tls_verify": None, "patience": 0.1, "wide": True})
helpers.start(work, "reg:5000/x", 0, kill=["true"])
while not any((work / each).exists() for each in (rendezvous.COMPLETE, rendezvous.FAILED)):
    time.sleep(0.01)
time.sleep(0.5)
print(sorted(each.name for each in work.iterdir()), flush=True)
sys.stdin.read()
"""


def _begin(key: str, **state: Any) -> None:
    lazy_states.begin(key, cast("lazy_states.State", state))


@pytest.fixture
def states(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "states"
    path.mkdir()
    monkeypatch.setattr(rendezvous, "LAZY", path)
    return path


@pytest.fixture
def work(tmp_path: Path) -> Iterator[Path]:
    made = tmp_path / "op" / secrets.token_hex(16)
    made.mkdir(parents=True)
    yield made
    (rendezvous.LAZY / f"{made.name}.json").unlink(missing_ok=True)


def test_no_change_of_the_state_is_lost(states: Path) -> None:
    """Guard, page server and restore write it in turn, each what it knows."""
    _begin("key", w=0)
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(states), f"w{each}"]) for each in range(3)]
    assert [each.wait(timeout=60) for each in writers] == [0, 0, 0]
    assert lazy_states.read("key") == {"w": 0, "w0": 199, "w1": 199, "w2": 199}
    assert [each.name for each in states.iterdir()] == ["key.json"]


def test_a_restore_that_ends_while_it_is_looked_at(states: Path) -> None:
    """A name that leads nowhere is what is left of a file between a listing and a look."""
    (states / "gone.json").symlink_to(states / "nothing")
    here = (os.getpid(), processes.start_time(os.getpid()) or 0)
    _begin("new", container=ID, name="b", state="running", since=2.0, guard=here)
    _begin("old", container=ID, name="a", state="restoring", since=1.0)
    assert [each.name for each in following.following(lambda _: True)] == ["a", "b"]
    following.wait_for_memory("f" * 64, Silent())


def test_what_is_over_stays_so(states: Path) -> None:
    """The restore tells the guard of its container when that has seen all memory arrive."""
    _begin(KEY, arrived=1)
    lazy_states.forget(KEY)
    lazy_states.change(KEY, state="running")
    assert list(states.iterdir()) == []


def test_a_guard_whose_pid_another_has_by_now(states: Path, work: Path) -> None:
    """It is not waited for, and a container without all its memory is not checkpointed."""
    here, gone = (os.getpid(), processes.start_time(os.getpid()) or 0), (os.getpid(), 1)
    told = {"container": ID, "state": "running", "work": str(work)}
    _begin(KEY, **told, guard=gone, process=gone)
    following.wait_for_memory(ID, Silent())  # it was started anew since
    _begin(KEY, **told, guard=gone, process=here)
    with pytest.raises(IncompatibleError, match="is not all there"):
        following.wait_for_memory(ID, Silent())
    (work / rendezvous.COMPLETE).touch()
    following.wait_for_memory(ID, Silent())


def test_only_helpers_are_helpers(tmp_path: Path, states: Path) -> None:
    """Others have the same words in their command lines, or a pid that was a guard's."""
    words = ["sh", "-c", "read line", KEY, str(tmp_path)]
    bystander, session = (
        subprocess.Popen(words, stdin=subprocess.PIPE, start_new_session=new) for new in (False, True)
    )
    record = Restore(
        key=KEY,
        container=ID,
        name="web",
        reference="reg:5000/x",
        work=str(tmp_path),
        guard_pid=session.pid,
        guard_start=1,
    )
    assert not attach.goes_on(record)
    attach.stop(record)
    for each in (bystander, session):
        each.communicate(b"\n", timeout=10)
        assert each.returncode == 0


@pytest.mark.parametrize("ending", ["exit 0", "exit 3"])
def test_the_directory_is_the_restores_until_it_has_ended(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    """Be it that all memory has come, or that it will not."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "criu").write_text(f"#!/bin/sh\n{ending}\n")
    (programs / "criu").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    starter = subprocess.Popen(
        [sys.executable, "-c", STARTER, str(work)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert starter.stdout
    assert starter.stdout.readline().decode().strip() == str(
        [rendezvous.COMPLETE if ending == "exit 0" else rendezvous.FAILED]
    )
    starter.communicate(timeout=10)
    end = time.monotonic() + 10
    while work.exists():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_starter_whose_pid_another_has_by_now_has_ended(work: Path) -> None:
    plan = {"work": str(work), "journal": [], "starter": [os.getpid(), 1], "kill": []}
    done = subprocess.run(
        [sys.executable, "-c", "import sys; from ocickpt import guard; sys.exit(guard.main(sys.argv[1:]))", str(work)],
        input=b"{}\n" + json.dumps(plan).encode() + b"\n", check=False, timeout=20,
        env={**os.environ, "PATH": f"{_sleeping_criu(work.parent)}:{os.environ['PATH']}"},
    )  # fmt: skip
    assert done.returncode == 0
    assert not work.exists()


def _sleeping_criu(place: Path) -> Path:
    (place / "criu").write_text("#!/bin/sh\nexec sleep 15\n")
    (place / "criu").chmod(0o755)
    return place
