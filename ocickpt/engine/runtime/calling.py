"""A command that leaves processes behind on purpose, and leaves none when it fails.

crun forgets processes that CRIU has restored when it fails afterwards. Standard library only: the shim loads this.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

_SUBREAPER = 36
"""PR_SET_CHILD_SUBREAPER."""


def call(argv: Sequence[str], env: Mapping[str, str] | None = None) -> int:
    """Run `argv` with this process's own descriptors, all of them, and its environment or `env`; its exit status.

    What it leaves is its caller's once this process ends; where it fails, it is killed.
    """
    library = ctypes.CDLL(None)
    # What loses its parent becomes our child, not our caller's (prctl(2)).
    library.prctl(_SUBREAPER, ctypes.c_ulong(1), 0, 0, 0)
    before = set(_children())
    try:
        status = subprocess.run(list(argv), check=False, close_fds=False, env=env).returncode
        while status and (left := set(_children()) - before):
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, 0)
        return status
    finally:
        library.prctl(_SUBREAPER, ctypes.c_ulong(0), 0, 0, 0)


def _children() -> list[int]:
    """The children of this process, whichever thread has made them (proc(5))."""
    found: list[int] = []
    for path in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):  # the thread has ended
            found += map(int, path.read_text("ascii").split())
    return found
