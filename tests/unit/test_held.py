"""What a runtime restores stands still until somebody has looked; who ends first when it must not run."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

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
step = {{"CRTOOLS_SCRIPT_ACTION": "pre-resume", "CRTOOLS_INIT_PID": str(pids[-1])}}
subprocess.run([{script!r}], env=os.environ | step)
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
