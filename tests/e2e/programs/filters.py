"""Many threads in a process that has put seccomp filters on itself: filters.py THREADS together|alone.

Together a filter is on all of its threads, alone on one of them. `/` on port 8080 answers what each thread sees of
itself, and with which errors forbidden calls fail.
"""

import ctypes
import importlib
import json
import struct
import sys
import threading
from pathlib import Path

SECCOMP, MKDIR, RMDIR, NUMBER = 317, 83, 84, 0  # x86-64; the system call's number comes first in what a filter sees
NO_NEW_PRIVS, TSYNC = 38, 1
THREADS, ALONE = int(sys.argv[1]), sys.argv[2] == "alone"
libc = ctypes.CDLL(None, use_errno=True)
asked, answered = threading.Barrier(THREADS + 1), threading.Barrier(THREADS + 1)
seen: list[list[object]] = [[]] * THREADS


class Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def forbid(number: int, errno: int, flags: int) -> None:
    """No thread, or not this one, may make the system call any more."""
    code = b"".join(
        struct.pack("<HBBI", *each)
        for each in ((0x20, 0, 0, NUMBER), (0x15, 0, 1, number), (6, 0, 0, 0x50000 | errno), (6, 0, 0, 0x7FFF0000))
    )
    program = Program(len(code) // 8, code)
    if libc.prctl(NO_NEW_PRIVS, 1, 0, 0, 0) or libc.syscall(SECCOMP, 1, flags, ctypes.byref(program)):
        raise OSError(ctypes.get_errno(), "seccomp")


def error_of(number: int, path: bytes) -> int:
    ctypes.set_errno(0)
    libc.syscall(number, path, 0)
    return ctypes.get_errno()


def look() -> list[object]:
    lines = Path("/proc/thread-self/status").read_text().splitlines()
    status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    own = [status[name] for name in ("Seccomp", "Seccomp_filters", "NoNewPrivs")]
    return [*own, error_of(MKDIR, b"/proc/x"), error_of(RMDIR, b"/no")]


def work(number: int) -> None:
    if ALONE and number == 1:
        forbid(RMDIR, 78, 0)
    while True:
        asked.wait()
        seen[number] = look()
        answered.wait()


def answer(_: str) -> str:
    asked.wait()
    answered.wait()
    return json.dumps(seen)


if not ALONE:
    forbid(MKDIR, 77, TSYNC)
for each in range(THREADS):
    threading.Thread(target=work, args=(each,), daemon=True).start()
sys.path.insert(0, "/")
web = importlib.import_module("web")
web.serve(answer, web.PORT)
