"""A process with what no checkpoint of podman's has; ten times a second it writes down what it sees of that.

Its arguments say what it has: any of `attributes personality socket hosts locks connection`.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

LIBC = ctypes.CDLL(None)
IO_SET, IO_GET, PERSONALITY = (251, 252, 135) if os.uname().machine == "x86_64" else (30, 31, 92)
PR_SET_TIMERSLACK, PR_GET_TIMERSLACK = 29, 30
UNAME26 = 0x20000
HELD: dict[str, Any] = {}
SEEN: dict[str, object] = {}


def ioprio() -> int:
    return int(LIBC.syscall(IO_GET, 1, 0))


def attributes() -> None:
    os.sched_setaffinity(0, {0})
    LIBC.syscall(IO_SET, 1, 0, 2 << 13 | 6)
    LIBC.prctl(PR_SET_TIMERSLACK, 777777)
    Path("/proc/self/coredump_filter").write_text("0x7")
    threading.Thread(target=another_thread, daemon=True).start()


def another_thread() -> None:
    os.sched_setaffinity(0, {1})
    LIBC.syscall(IO_SET, 1, 0, 3 << 13)
    LIBC.prctl(PR_SET_TIMERSLACK, 5)
    while True:
        SEEN["thread"] = [*os.sched_getaffinity(0), ioprio(), LIBC.prctl(PR_GET_TIMERSLACK)]
        time.sleep(0.05)


def personality() -> None:
    LIBC.syscall(PERSONALITY, ctypes.c_ulong(UNAME26))


def renamed_socket() -> None:
    bound = socket.socket(socket.AF_UNIX)
    bound.bind("/tmp/.attach.tmp")
    bound.listen()
    Path("/tmp/.attach.tmp").rename("/tmp/.attach")
    HELD["socket"] = bound


def hosts() -> None:
    HELD.update((path, os.open(path, os.O_RDONLY)) for path in ("/etc/hosts", "/etc/resolv.conf", "/etc/hostname"))


def locks() -> None:
    for path, lock in (("/tmp/whole", fcntl.flock), ("/tmp/record", fcntl.lockf)):
        HELD[path] = os.open(path, os.O_RDWR | os.O_CREAT)
        lock(HELD[path], fcntl.LOCK_EX)


def connection() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    near = socket.create_connection(listener.getsockname())
    HELD.update(listener=listener, near=near, far=listener.accept()[0])


def see() -> None:
    SEEN["process"] = [*os.sched_getaffinity(0), ioprio(), LIBC.prctl(PR_GET_TIMERSLACK)]
    SEEN["core"] = int(Path("/proc/self/coredump_filter").read_text(), 16)
    SEEN["tmp"] = sorted(each.name for each in Path("/tmp").iterdir())
    if "hosts" in sys.argv:
        SEEN["hosts"] = os.pread(HELD["/etc/hosts"], 4096, 0).decode()
    if "connection" in sys.argv:
        HELD["near"].sendall(b"x")
        SEEN["heard"] = HELD["far"].recv(1).decode()


def main() -> None:
    kinds = {
        "attributes": attributes, "personality": personality, "socket": renamed_socket, "hosts": hosts,
        "locks": locks, "connection": connection,
    }  # fmt: skip
    for each in sys.argv[1:]:
        kinds[each]()
    for tick in range(1 << 30):
        time.sleep(0.1)
        see()
        Path("/state.new").write_text(json.dumps(SEEN | {"tick": tick}))
        Path("/state.new").rename("/state")


if __name__ == "__main__":
    main()
