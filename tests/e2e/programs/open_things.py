"""Has something open that its arguments name, says so, and sleeps."""

import ctypes
import mmap
import os
import signal
import sys
import time

libc = ctypes.CDLL(None, use_errno=True)
IO_URING_SETUP, TRACEME, CONTINUE, ALL_EVENTS = 425, 0, 7, 0xFFF


def traced() -> object:
    child = os.fork()
    if not child:
        libc.ptrace(TRACEME, 0, 0, 0)
        os.kill(os.getpid(), signal.SIGSTOP)
        time.sleep(1000)
    os.waitpid(child, 0)
    return libc.ptrace(CONTINUE, child, 0, 0)


def io_uring() -> object:
    ring = libc.syscall(IO_URING_SETUP, 4, ctypes.create_string_buffer(120))
    assert ring >= 0, os.strerror(ctypes.get_errno())
    return mmap.mmap(ring, 4096, offset=0)


def deleted(size: str) -> object:
    file = open("/root/deleted", "w+b")  # noqa: SIM115, PTH123
    file.write(b"x" * int(size))
    file.flush()
    os.unlink("/root/deleted")  # noqa: PTH108
    return file


def linked() -> object:
    file = open("/root/linked", "w")  # noqa: SIM115, PTH123
    os.link("/root/linked", "/root/other")
    os.unlink("/root/linked")  # noqa: PTH108
    return file


def inotify(path: str) -> object:
    handle = libc.inotify_init()
    assert libc.inotify_add_watch(handle, path.encode(), ALL_EVENTS) > 0
    return handle


held = globals()[sys.argv[1]](*sys.argv[2:])
print("open", flush=True)
time.sleep(1000)
