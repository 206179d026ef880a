"""Calls that wait for a time, which CRIU has fail with EINTR in processes that go on after a dump: they are made again.

As long as a process stands still in its cgroup its registers are what CRIU has left (compel/arch/x86/src/lib/infect.c,
compel_get_task_regs()); the kernel makes a call again that seems to have ended with ERESTARTNOINTR (ptrace(2)).
Of restored ones `gate.waits` sees to it. Standard library only: the shim loads this.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import time
from collections.abc import Iterator
from pathlib import Path

from ocickpt.engine import freezer

CALLS = frozenset({7, 35, 202, 230})
"""poll, nanosleep, futex, clock_nanosleep of x86-64: those that the kernel goes on with by a restart block."""
_GETREGSET, _SETREGSET, _SEIZE, _INTERRUPT, _DETACH = 0x4204, 0x4205, 0x4206, 0x4207, 17
_PRSTATUS, _WALL = 1, 0x40000000
_PATIENCE, _TICK = 1.0, 0.0002
_RESTART = -513
"""ERESTARTNOINTR of the kernel's include/linux/errno.h."""


class _Registers(ctypes.Structure):
    """``struct user_regs_struct`` of x86-64."""

    _fields_ = [
        *((f"before_{number}", ctypes.c_ulong) for number in range(10)),
        ("rax", ctypes.c_long),
        *((f"between_{number}", ctypes.c_ulong) for number in range(4)),
        ("orig_rax", ctypes.c_long),
        *((f"after_{number}", ctypes.c_ulong) for number in range(11)),
    ]


class _Vector(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("size", ctypes.c_size_t)]


def begin_again(first: int) -> None:
    """Have the threads of all processes from `first` down, which stand still, make such calls again. OSError."""
    if os.uname().machine != "x86_64":
        return
    for pid in freezer.tree(first):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with _traced(int(thread.name)):
                _begin_again(int(thread.name))


def _begin_again(thread: int) -> None:
    registers = _Registers()
    vector = _Vector(ctypes.addressof(registers), ctypes.sizeof(registers))
    _ptrace(_GETREGSET, thread, _PRSTATUS, ctypes.addressof(vector))
    native = vector.size == ctypes.sizeof(registers)
    if native and registers.rax == -errno.EINTR and registers.orig_rax in CALLS:
        registers.rax = _RESTART
        _ptrace(_SETREGSET, thread, _PRSTATUS, ctypes.addressof(vector))


@contextlib.contextmanager
def _traced(thread: int) -> Iterator[None]:
    _ptrace(_SEIZE, thread)
    try:
        _ptrace(_INTERRUPT, thread)
        end = time.monotonic() + _PATIENCE
        while not os.waitpid(thread, _WALL | os.WNOHANG)[0]:
            if time.monotonic() > end:  # it waits for a disk, say; what is not traced lets go when its tracer ends
                raise TimeoutError(f"thread {thread} does not stop")
            time.sleep(_TICK)
        yield
    finally:
        _ptrace(_DETACH, thread)


def _ptrace(request: int, thread: int, address: int = 0, data: int = 0) -> None:
    call = ctypes.CDLL(None, use_errno=True).ptrace
    call.restype = ctypes.c_long
    words = (ctypes.c_long(request), ctypes.c_long(thread), ctypes.c_void_p(address), ctypes.c_void_p(data))
    if call(*words) == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
