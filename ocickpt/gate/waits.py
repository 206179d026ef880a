"""Calls that wait for a time, which CRIU has fail with EINTR in whoever was in one: they are made again.

`sleep infinity` would end, and so would a container of which it is the first process. The kernel keeps what is left of
the time to itself (restart_syscall(2)): it begins anew.
Source: compel/arch/x86/src/lib/infect.c, compel_get_task_regs(); signal(7), "Interruption of system calls".
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import Final

from ocickpt.engine import interrupted
from ocickpt.gate.images import Images, Message, encoded

_INTERRUPTED: Final = (1 << 64) - errno.EINTR
_SYSCALL: Final = 2
"""Bytes of the instruction."""
_X86_64, _NATIVE = 1, 1


def begun_again(images: Images, instead: Mapping[str, bytes]) -> dict[str, bytes]:
    """The images of the threads that were in such a call, by name; changed from those that CRIU is given `instead`."""
    given = Images(
        (f"{name}.img" for name in images.names(r"core-\d+")),
        lambda name: instead[name] if name in instead else images.raw(name.removesuffix(".img")),
    )
    found = {}
    for name in given.names(".*"):
        core = given.changeable(name)
        if _waits(core):
            registers = core.thread_info.gpregs
            registers.ax, registers.ip = registers.orig_ax, registers.ip - _SYSCALL
            found[f"{name}.img"] = encoded(name, core)
    return found


def _waits(core: Message) -> bool:
    if core.mtype != _X86_64 or not core.HasField("thread_info"):
        return False
    registers = core.thread_info.gpregs
    return bool(
        registers.mode == _NATIVE
        and registers.ax == _INTERRUPTED
        and registers.orig_ax in interrupted.CALLS
        and registers.ip >= _SYSCALL
    )
