"""What a thread or process has that CRIU does not save, and that can be given to it from outside.

Processors it is bound to (sched_setaffinity(2)), I/O priority (ioprio_set(2)), timer slack (proc_pid_timerslack_ns(5)),
what of it a core dump holds (core(5)). Its personality (personality(2)) can be seen, and given only by itself.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

USUAL_SLACK: Final = 50_000
USUAL_CORE: Final = 0x33
"""What a process has that has changed nothing (include/linux/init_task.h, include/linux/sched/coredump.h)."""
REAL_TIME: Final = 1
_CALLS: Final = {"x86_64": (251, 252), "s390x": (282, 283), "ppc64le": (273, 274)}
_COMMON_CALLS: Final = 30, 31
"""ioprio_set and ioprio_get; of asm-generic/unistd.h, which younger architectures have."""
_PROCESS: Final = 1
"""IOPRIO_WHO_PROCESS, which takes a thread."""
_CLASS_SHIFT: Final = 13
_LEVELS: Final = 8
_PROC: Final = Path("/proc")
_CPUS: Final = Path("/sys/devices/system/cpu/online")
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class IoPriority:
    """Its class (1 real-time, 2 best effort, 3 idle), and its level in that, 0 highest to 7."""

    kind: int
    level: int


def cpus(thread: int) -> frozenset[int]:
    """The processors that a thread may run on."""
    return frozenset(os.sched_getaffinity(thread))


def all_cpus(cgroup: Path | None) -> frozenset[int]:
    """The processors that nobody is kept from who is in that `cgroup`."""
    for place in (cgroup, *cgroup.parents) if cgroup else ():
        if (found := place / "cpuset.cpus.effective").is_file():
            return _numbers(found.read_text("ascii"))
    return _numbers(_CPUS.read_text("ascii"))


def mask_of(numbers: Iterable[int]) -> int:
    """The mask of these processors."""
    found = 0
    for number in numbers:
        found |= 1 << number
    return found


def numbers_of(mask: int) -> list[int]:
    """The processors of a mask."""
    return [number for number, bit in enumerate(reversed(f"{mask:b}")) if bit == "1"]


def bind(thread: int, numbers: Iterable[int]) -> None:
    """Have it run on these alone. OSError when it may run on none of them."""
    os.sched_setaffinity(thread, numbers)


def io_priority(thread: int) -> IoPriority | None:
    """None for one that has none of its own. OSError."""
    value = _call(1, _PROCESS, thread)
    kind = value >> _CLASS_SHIFT & 7
    return IoPriority(kind, value % _LEVELS) if kind else None


def set_io_priority(thread: int, priority: IoPriority) -> None:
    """OSError."""
    _call(0, _PROCESS, thread, priority.kind << _CLASS_SHIFT | priority.level)


def timer_slack(thread: int) -> int:
    """In nanoseconds. OSError."""
    return int((_PROC / str(thread) / "timerslack_ns").read_text("ascii"))


def set_timer_slack(thread: int, nanoseconds: int) -> None:
    """OSError."""
    (_PROC / str(thread) / "timerslack_ns").write_text(str(nanoseconds), "ascii")


def core_filter(process: int) -> int:
    """The kinds of memory that its core dump holds, a mask; the usual one where there is no memory. OSError."""
    return int((_PROC / str(process) / "coredump_filter").read_text("ascii") or f"{USUAL_CORE:x}", 16)


def set_core_filter(process: int, mask: int) -> None:
    """OSError."""
    (_PROC / str(process) / "coredump_filter").write_text(str(mask), "ascii")


def personality(process: int, thread: int) -> int:
    """OSError."""
    return int((_PROC / str(process) / "task" / str(thread) / "personality").read_text("ascii"), 16)


def _call(which: int, *arguments: int) -> int:
    number = _CALLS.get(os.uname().machine, _COMMON_CALLS)[which]
    found = int(_libc.syscall(number, *map(ctypes.c_long, arguments)))
    if found < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return found


def _numbers(text: str) -> frozenset[int]:
    """A list as the kernel writes it: ``0-3,8``."""
    found = set[int]()
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return frozenset(found)
