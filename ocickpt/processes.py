"""A process, named for good: by its pid and when it was started. A pid alone may have been given to another by now.

Standard library only, and little of it: the guard of a lazy restore loads this.
"""

from __future__ import annotations

import os
from pathlib import Path

_STATE, _SESSION, _START = 0, 3, 19
"""Fields of proc_pid_stat(5), counted from the one after the name."""


def start_time(pid: int) -> int | None:
    """When process `pid` was started, in clock ticks since boot; None if there is none, or it has ended."""
    fields = _stat(pid)
    return int(fields[_START]) if fields else None


def is_alive(pid: int, start: int) -> bool:
    """Whether the process `pid` that was started at `start` has not ended yet."""
    return pid > 0 and start_time(pid) == start


def opened(pid: int, start: int) -> int:
    """A pidfd of the process `pid` that was started at `start`; -1 when it has ended."""
    if pid <= 0:
        return -1
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return -1
    if start_time(pid) == start:
        return handle
    os.close(handle)
    return -1


def of_session(leader: int, start: int) -> list[int]:
    """The processes of the session that process `leader`, started at `start`, began; it may have ended.

    As long as one of them is there the kernel gives the leader's pid to no other.
    """
    if leader <= 0 or start_time(leader) not in (start, None):
        return []
    found = []
    for each in Path("/proc").glob("[0-9]*"):
        fields = _stat(int(each.name))
        if fields and int(fields[_SESSION]) == leader:
            found.append(int(each.name))
    return sorted(found)


def _stat(pid: int) -> list[str]:
    """The fields of a process that has not ended, from its state on; none of any other."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("ascii", "replace").rpartition(")")[2].split()
    except OSError:
        return []
    return [] if fields[_STATE] in ("Z", "X") else fields
