"""What the programs of reports.py begin with: each makes something, calls `moved()`, and asserts that it is there.

`/tmp/ready` says that it is made, `/tmp/look` that it may be looked for. `/tmp/told` has what came of it: "good", or
why not.
"""

import ctypes
import errno
import fcntl
import mmap
import os
import pty
import resource
import select
import signal
import socket
import stat
import struct
import subprocess
import sys
import termios
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

libc = ctypes.CDLL(None, use_errno=True)
libc.shmat.restype = ctypes.c_void_p
libc.mmap.restype = ctypes.c_void_p
libc.pthread_self.restype = ctypes.c_void_p
__all__ = ("errno", "fcntl", "mmap", "pty", "resource", "select", "socket", "stat", "struct", "subprocess", "termios")


def checked(result: int) -> int:
    """What a call of libc returned, if it did not fail."""
    assert result >= 0, os.strerror(ctypes.get_errno())
    return result


def until(condition: Callable[[], object], seconds: float = 20) -> None:
    """Wait for a condition."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "in vain"
        time.sleep(0.02)


def child(work: Callable[[], object]) -> int:
    """The process that does `work` and ends."""
    pid = os.fork()
    if pid == 0:
        work()
        os._exit(0)
    return pid


def thread(work: Callable[[], object]) -> None:
    """Do `work` beside."""
    threading.Thread(target=work, daemon=True).start()


def state(pid: int) -> str:
    """A process's: S, T, Z."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]


def moved() -> None:
    """Be checkpointed and restored."""
    Path("/tmp/ready").touch()
    until(Path("/tmp/look").exists, 600)


def tell(found: str) -> None:
    """Say what was found, and stay."""
    Path("/tmp/telling").write_text(found)
    Path("/tmp/telling").rename("/tmp/told")
    while True:
        signal.pause()


def failed(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Tell why not."""
    tell("".join(traceback.format_exception(kind, error, trace)))


sys.excepthook = failed
threading.excepthook = lambda told: failed(told.exc_type, told.exc_value or SystemExit(), told.exc_traceback)
