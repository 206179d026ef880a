"""What a runtime restores stands still until somebody has looked; who ends first when it must not run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ocickpt.engine import freezer
from ocickpt.engine.criu import configuration, standstill
from ocickpt.restoration.held import Held, RefusedError

# A runtime and CRIU in one: `others` are processes that it holds by ptrace, and the last is the container's first.
RUNTIME = """
import ctypes, os, subprocess, sys, time
def held():
    pid = os.fork()
    if not pid:
        ctypes.CDLL(None).ptrace(0, 0, 0, 0)
        time.sleep(60)
    return pid
pids = [held() for _ in range({count})]
time.sleep(0.3)
open({told!r}, "w").write(" ".join(map(str, pids)))
for step in ("post-setup-namespaces", "post-restore", "pre-resume", "post-resume"):
    told = {{"CRTOOLS_SCRIPT_ACTION": step, "CRTOOLS_INIT_PID": str(pids[-1])}}
    subprocess.run([{script!r}], env=os.environ | told)
"""


def lives(pid: int) -> bool:
    """Whether there is such a process, and it is not dead: who was killed may take a moment."""
    end = time.monotonic() + 10
    while freezer.tree(pid) and time.monotonic() < end:
        time.sleep(0.01)
    return bool(freezer.tree(pid))


@pytest.mark.parametrize(("count", "why"), [(1, "it is user 0"), (2, "outside of its container's tree")])
def test_what_must_not_run_ends_before_criu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, why: str
) -> None:
    """CRIU's end lets go of what it holds."""
    (option,) = standstill.make(tmp_path / "hold")
    environment = configuration.write(tmp_path / "criu.conf", "", (option,))
    killed, kill = list[int](), os.kill

    def noting(pid: int, number: int) -> None:
        killed.append(pid)
        kill(pid, number)

    def look(_: int) -> None:
        raise RefusedError("it is user 0")

    def settle() -> None:
        raise AssertionError("it must not run")

    monkeypatch.setattr(os, "kill", noting)
    code = RUNTIME.format(count=count, told=str(tmp_path / "told"), script=option.partition(" ")[2])
    with pytest.raises(RefusedError, match=why):
        Held(tmp_path / "hold", None, look, settle).call([sys.executable, "-c", code], os.environ | environment)
    restored = {int(pid) for pid in (tmp_path / "told").read_text().split()}
    assert set(killed[:count]) == restored
    assert not any(Path(f"/proc/{pid}").exists() for pid in restored)


def test_what_is_done_when(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CRIU is out of the cgroup before it is frozen, and what stands still is looked at while the runtime ends."""
    (option,) = standstill.make(tmp_path / "hold")
    environment, place = configuration.write(tmp_path / "criu.conf", "", (option,)), tmp_path / "place"
    done = list[str]()
    monkeypatch.setattr(freezer, "set_apart", lambda _: done.append("set apart"))
    monkeypatch.setattr(freezer, "freeze", lambda *_: done.append("frozen"))
    monkeypatch.setattr(freezer, "thaw", lambda _: done.append("thawed"))
    code = RUNTIME.format(count=1, told=str(tmp_path / "told"), script=option.partition(" ")[2])
    held = Held(tmp_path / "hold", place, lambda _: done.append("looked"), lambda: done.append("settled"))
    try:
        assert held.call([sys.executable, "-c", code], os.environ | environment) == 0
        held.go()
        assert done == ["set apart", "frozen", "looked", "settled", "thawed"]
    finally:
        freezer.kill(map(int, (tmp_path / "told").read_text().split()))


@pytest.mark.parametrize("bad", ["look", "settle"])
def test_what_is_found_wrong_once_it_is_frozen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad: str) -> None:
    """It ends, though the runtime has succeeded."""
    (option,) = standstill.make(tmp_path / "hold")
    environment = configuration.write(tmp_path / "criu.conf", "", (option,))
    monkeypatch.setattr(freezer, "freeze", lambda *_: None)

    def fails(*_: object) -> None:
        raise RefusedError("it is user 0")

    look = fails if bad == "look" else lambda _: None
    settle = fails if bad == "settle" else lambda: None
    code = RUNTIME.format(count=1, told=str(tmp_path / "told"), script=option.partition(" ")[2])
    with pytest.raises(RefusedError, match="it is user 0"):
        Held(tmp_path / "hold", tmp_path, look, settle).call([sys.executable, "-c", code], os.environ | environment)
    assert not lives(int((tmp_path / "told").read_text()))


@pytest.mark.parametrize("place", [True, False])
def test_a_criu_that_would_wait_for_ever_ends_with_what_it_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: bool
) -> None:
    """It waits for the first of them, which waits for another one, dead, that is CRIU's to wait for (out_kill)."""
    (option,) = standstill.make(tmp_path / "hold")
    environment = configuration.write(tmp_path / "criu.conf", "", (option,))
    monkeypatch.setattr(freezer, "freeze", lambda *_: None)

    def look(_: int) -> None:
        raise RefusedError("it is user 0")

    code = RUNTIME.format(count=1, told=str(tmp_path / "told"), script=option.partition(" ")[2]) + "time.sleep(600)\n"
    begun = time.monotonic()
    with pytest.raises(RefusedError, match="it is user 0"):
        held = Held(tmp_path / "hold", tmp_path if place else None, look, lambda: None)
        held.call([sys.executable, "-c", code], os.environ | environment)
    assert time.monotonic() - begun < 30
    assert not lives(int((tmp_path / "told").read_text()))


def test_a_criu_that_would_wait_for_ever_ends_with_who_holds(tmp_path: Path) -> None:
    """The shim is killed when CRIU was told to go on, and has not let go yet."""
    (option,) = standstill.make(tmp_path / "hold")
    environment = os.environ | configuration.write(tmp_path / "criu.conf", "", (option,))
    code = RUNTIME.format(count=1, told=str(tmp_path / "told"), script=option.partition(" ")[2]) + "time.sleep(600)\n"
    shim = """if True:
        import sys, time; sys.path.insert(0, {path!r})
        from pathlib import Path; from ocickpt.engine.criu.standstill import STANDS, Standstill
        held = Standstill(Path({hold!r})); print(flush=True)
        while not any(what == STANDS for what, _ in held.told()): pass
        held.go(); time.sleep(600)
    """.format(path=str(Path(standstill.__file__).parents[3]), hold=str(tmp_path / "hold"))
    with subprocess.Popen([sys.executable, "-c", shim], stdout=subprocess.PIPE) as holder:
        assert holder.stdout
        holder.stdout.readline()
        with subprocess.Popen([sys.executable, "-c", code], env=environment) as runtime:
            while not (tmp_path / "told").exists() or len([*Path(f"/proc/{runtime.pid}/task").glob("*/children")]) != 1:
                time.sleep(0.05)
            time.sleep(1.5)  # it has gone on
            assert runtime.poll() is None
            holder.kill()
            assert runtime.wait(30) == -signal.SIGKILL
    assert not lives(int((tmp_path / "told").read_text()))
