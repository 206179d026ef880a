"""What a runtime restores stands still until somebody has looked; who ends first when it must not run."""

from __future__ import annotations

import os
import sys
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
    assert not Path(f"/proc/{(tmp_path / 'told').read_text()}").exists()
