"""A process that has one of nearly everything that CRIU has a message for, as ordinary programs make it."""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import pty
import select
import signal
import socket
import struct
import time
from pathlib import Path

libc = ctypes.CDLL(None, use_errno=True)
IPC_CREATE, SETVAL, F_SETPIPE_SZ, F_ADD_SEALS, SEAL_SHRINK = 0o1600, 16, 1031, 1033, 2
SO_ATTACH_FILTER, TIOCSWINSZ, PR_SET_CHILD_SUBREAPER = 26, 0x5414, 36
PLACE = Path("/tmp/objects")
kept: list[object] = []


def checked(result: int) -> int:
    assert result >= 0, os.strerror(ctypes.get_errno())
    return result


def system_v() -> None:
    memory = checked(libc.shmget(77, 8192, IPC_CREATE))
    libc.shmat.restype = ctypes.c_void_p
    ctypes.memmove(libc.shmat(memory, None, 0), b"shared", 6)
    queue = checked(libc.msgget(78, IPC_CREATE))
    checked(libc.msgsnd(queue, struct.pack("l", 5) + b"hello", 5, 0))
    semaphores = checked(libc.semget(79, 3, IPC_CREATE))
    checked(libc.semctl(semaphores, 1, SETVAL, 5))


def files() -> None:
    PLACE.mkdir()
    plain = (PLACE / "plain").open("w+")
    plain.write("x" * 100)
    plain.flush()
    append = (PLACE / "append").open("a")
    gone = (PLACE / "gone").open("w+")
    gone.seek(1 << 20)
    gone.write("gone")
    gone.flush()
    (PLACE / "gone").unlink()
    shared = os.open("/dev/shm/gone", os.O_RDWR | os.O_CREAT)
    Path("/dev/shm/gone").unlink()
    fcntl.lockf(plain, fcntl.LOCK_EX, 10)
    fcntl.flock(append, fcntl.LOCK_SH)
    descriptors = [
        os.open(PLACE / "new", os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_TRUNC | os.O_SYNC),
        os.open(PLACE, os.O_TMPFILE | os.O_RDWR),
        os.open(PLACE, os.O_RDONLY | os.O_DIRECTORY),
        os.open(PLACE / "plain", os.O_PATH),
        os.open("/proc/self/status", os.O_RDONLY),
        os.open("/proc/self/fd", os.O_RDONLY),
    ]
    os.mkfifo(PLACE / "fifo")
    fifo = os.open(PLACE / "fifo", os.O_RDWR)
    os.write(fifo, b"in a fifo")
    out, into = os.pipe()
    os.write(into, b"in a pipe")
    fcntl.fcntl(into, F_SETPIPE_SZ, 1 << 17)
    memory = os.memfd_create("memory", os.MFD_ALLOW_SEALING)
    os.write(memory, b"memory")
    fcntl.fcntl(memory, F_ADD_SEALS, SEAL_SHRINK)
    mapped = mmap.mmap(plain.fileno(), 100)
    anonymous = mmap.mmap(-1, 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=7)
    kept.extend((plain, append, gone, shared, descriptors, fifo, out, into, memory, mapped, anonymous))


def events() -> None:
    checked(libc.eventfd(7, 0))
    checked(libc.signalfd(-1, (ctypes.c_ulong * 16)(0x4000), 0))
    timer = checked(libc.timerfd_create(1, 0))
    libc.timerfd_settime(timer, 0, struct.pack("qqqq", 5, 0, 1000, 500), None)
    poll = select.epoll()
    poll.register(timer, select.EPOLLIN | select.EPOLLET | select.EPOLLONESHOT)
    kept.extend((poll, os.pidfd_open(os.getpid())))
    signal.setitimer(signal.ITIMER_REAL, 5000, 1)
    for clock in (0, 1, 2, 3, 7):  # of the system, and of what the process and the thread have used
        made = ctypes.c_void_p()
        checked(libc.timer_create(clock, struct.pack("qii48x", 5, 10, int(not clock)), ctypes.byref(made)))
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
    os.kill(os.getpid(), signal.SIGUSR2)


def sockets() -> None:
    one, other = socket.socketpair()
    other.send(b"queued")
    socket.send_fds(other, [b"a file"], [0])
    fcntl.fcntl(one, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(one, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
    os.chdir(PLACE)
    listening = []
    # /var/run is a symlink in most images, and a socket keeps the name that it was given.
    for name in (f"{os.environ.get('RUN', '/var/run')}/listens", "relative", "\0abstract"):
        local = socket.socket(socket.AF_UNIX)
        local.bind(name)
        local.listen(5)
        listening.append(local)
    client = socket.socket(socket.AF_UNIX)
    client.connect(listening[0].getsockname())
    client.send(b"waits")
    packets = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    packets.bind(("0.0.0.0", 5353))
    packets.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, 6)
    accepts = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0xFFFFFFFF))
    packets.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HL", 1, ctypes.addressof(accepts)))
    server = socket.create_server(("::", 8080), family=socket.AF_INET6, dualstack_ipv6=True)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 5))
    server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
    netlink.bind((0, 1))
    kept.extend((one, other, listening, client, listening[0].accept(), packets, server, netlink))


def terminals_and_processes() -> None:
    master, terminal = pty.openpty()
    os.write(master, b"typed")
    fcntl.ioctl(master, TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    kept.append(terminal)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    if os.fork() == 0:
        os.setsid()
        os.nice(5)
        time.sleep(1000)
    if os.fork() == 0:
        os._exit(3)  # nobody waits for it


system_v()
files()
events()
sockets()
terminals_and_processes()
count = 0
while True:
    count += 1
    (PLACE / "count").write_text(str(count))
    time.sleep(0.1)
