"""A command that leaves processes behind on purpose, and leaves none when it fails.

crun forgets processes that CRIU has restored when it fails afterwards. Standard library only: the shim loads this.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

_SUBREAPER = 36
"""PR_SET_CHILD_SUBREAPER."""


def call(
    argv: Sequence[str],
    env: Mapping[str, str] | None = None,
    meanwhile: Mapping[int, Callable[[], None]] | None = None,
    good: Callable[[], bool] = lambda: True,
) -> int:
    """Run `argv` with this process's own descriptors, all of them, and its environment or `env`; its exit status.

    What is to be done `meanwhile` is called when something can be read from a descriptor. When the command has
    succeeded, it is `good` that says whether it has. What it leaves is its caller's once this process ends; where it
    fails, it is killed.
    """
    library = ctypes.CDLL(None)
    # What loses its parent becomes our child, not our caller's (prctl(2)).
    library.prctl(_SUBREAPER, ctypes.c_ulong(1), 0, 0, 0)
    before, status = set(_children()), 1
    try:
        status = _run(argv, env, meanwhile or {}) or (0 if good() else 1)
    finally:
        while status and (left := set(_children()) - before):
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            for pid in left:  # all are killed first: what CRIU traces is not ours to wait for as long as CRIU lives
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, 0)
        library.prctl(_SUBREAPER, ctypes.c_ulong(0), 0, 0, 0)
    return status


def _run(argv: Sequence[str], env: Mapping[str, str] | None, meanwhile: Mapping[int, Callable[[], None]]) -> int:
    process = subprocess.Popen(list(argv), close_fds=False, env=env)
    ended = os.pidfd_open(process.pid)
    try:
        while ended not in (ready := select.select([ended, *meanwhile], [], [])[0]):
            for each in ready:
                meanwhile[each]()
    except BaseException:
        process.kill()
        process.wait()
        raise
    finally:
        os.close(ended)
    return process.wait()


def _children() -> list[int]:
    """The children of this process, whichever thread has made them (proc(5))."""
    found: list[int] = []
    for path in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):  # the thread has ended
            found += map(int, path.read_text("ascii").split())
    return found
