"""A command that fails leaves no process; one that succeeds leaves those that it means to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ocickpt.engine.runtime import calling

LEAVING = """
    sleep 300 & echo $! >{path}
    (sleep 301 & echo $! >>{path}; exec sleep 302) & echo $! >>{path}
    sleep 0.2
    exit {status}
"""


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("status", [0, 1, 7])
def test_what_a_command_leaves(tmp_path: Path, status: int) -> None:
    mine = subprocess.Popen(["sleep", "300"])
    try:
        path = tmp_path / "pids"
        assert calling.call(["sh", "-c", LEAVING.format(path=path, status=status)]) == status
        left = [int(pid) for pid in path.read_text().split()]
        assert len(left) == 3
        assert [runs(pid) for pid in left] == [status == 0] * 3
        assert runs(mine.pid), "what was there before is not the command's"
        for pid in left if status == 0 else ():
            os.kill(pid, signal.SIGKILL)
    finally:
        mine.kill()
        mine.wait()


def test_what_is_left_is_not_ours_when_we_have_ended(tmp_path: Path) -> None:
    """Whoever called us waits for it, as if there had been nobody between."""
    root = Path(calling.__file__).parents[3]
    code = f"import sys; sys.path.insert(0, {str(root)!r}); from ocickpt.engine.runtime import calling;"
    code += " calling.call(sys.argv[1:])"
    subprocess.run([sys.executable, "-c", code, "sh", "-c", f"sleep 300 & echo $! >{tmp_path}/pid"], check=True)
    pid = int((tmp_path / "pid").read_text())
    time.sleep(0.05)
    assert runs(pid)
    os.kill(pid, signal.SIGKILL)
