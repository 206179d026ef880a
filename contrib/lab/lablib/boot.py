"""Turns a fork of this process into the first process of a host.

A host is six namespaces, an overlay over the shared Debian root, and catatonit as pid 1, which reaps what the
host's commands leave behind; on one host it is systemd. Killing that one process ends the host: the kernel kills
all others in its pid namespace, and with the last of them the mounts, the network and the host's name are gone.

No host can be left behind by accident: until its pid is on record, the new process holds one end of a pipe
whose other end is here, and it exits when that closes.
"""

import contextlib
import os
import signal
import socket
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from lablib import cgroups, syscalls
from lablib.layout import Disk, LabError

_INIT = ["/usr/bin/catatonit", "-P"]
# systemd knows no unit of Debian's, only those in hostfiles/systemd and the transient ones that podman makes.
# `container` tells it that devices, the clock and the like are not its own (https://systemd.io/CONTAINER_INTERFACE).
_SYSTEMD = ["/usr/lib/systemd/systemd", "--system", "--unit=lab.target", "--log-target=null"]
_SYSTEMD_ENVIRONMENT = {
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "SYSTEMD_UNIT_PATH": "/etc/systemd/lab:/run/systemd/transient",
    "container": "lab",
}
_QUIET = syscalls.MS_NOSUID | syscalls.MS_NODEV
NAMESPACES = (
    syscalls.CLONE_NEWUTS | syscalls.CLONE_NEWIPC | syscalls.CLONE_NEWNET | syscalls.CLONE_NEWPID
)  # fmt: skip
_DEVICES = {
    "null": (1, 3),
    "zero": (1, 5),
    "full": (1, 7),
    "random": (1, 8),
    "urandom": (1, 9),
    "tty": (5, 0),
    "fuse": (10, 229),
    "net/tun": (10, 200),
}
_LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "ptmx": "pts/ptmx",
}


@dataclass(frozen=True)
class Bind:
    """A directory of the machine that a host sees at `target`."""

    source: Path
    target: str
    read_only: bool = False


@dataclass(frozen=True)
class Plan:
    """All it takes to start a host."""

    hostname: str
    root: Path
    disk: Disk
    cgroup: str
    scratch: Path
    """An existing directory; the starting process mounts on it where nobody else sees it."""
    binds: tuple[Bind, ...] = ()
    systemd: bool = False


def _devices(dev: str) -> None:
    syscalls.mount("tmpfs", dev, "tmpfs", syscalls.MS_NOSUID, "mode=755,size=64k")
    for name in ("pts", "shm", "mqueue", "net"):
        Path(dev, name).mkdir()
    for name, (major, minor) in _DEVICES.items():
        os.mknod(f"{dev}/{name}", stat.S_IFCHR, os.makedev(major, minor))
        Path(dev, name).chmod(0o666)  # not through the umask: other users than root need them
    for name, target in _LINKS.items():
        Path(dev, name).symlink_to(target)
    syscalls.mount("devpts", f"{dev}/pts", "devpts", syscalls.MS_NOSUID, "newinstance,ptmxmode=666,mode=620,gid=5")
    syscalls.mount("tmpfs", f"{dev}/shm", "tmpfs", _QUIET, "mode=1777")
    syscalls.mount("mqueue", f"{dev}/mqueue", "mqueue", _QUIET)


def _filesystems(plan: Plan) -> None:
    """Build the host's tree of mounts and make its root ours."""
    root = str(plan.disk.path / "root")
    Path(root).mkdir(exist_ok=True)
    layers = f"lowerdir={plan.root},upperdir={plan.disk.upper},workdir={plan.disk.work}"
    syscalls.mount("overlay", root, "overlay", data=layers)
    syscalls.mount("proc", f"{root}/proc", "proc", _QUIET | syscalls.MS_NOEXEC)
    syscalls.mount("sysfs", f"{root}/sys", "sysfs", _QUIET | syscalls.MS_NOEXEC)
    cgroups.mount(f"{root}/sys/fs/cgroup")
    _devices(f"{root}/dev")
    syscalls.mount("tmpfs", f"{root}/run", "tmpfs", _QUIET, "mode=755")
    syscalls.mount("tmpfs", f"{root}/tmp", "tmpfs", _QUIET, "mode=1777")
    for bind in plan.binds:
        Path(root + bind.target).mkdir(parents=True, exist_ok=True)
        syscalls.bind(str(bind.source), root + bind.target, read_only=bind.read_only)
    syscalls.pivot_root(root)


def _close_inherited(*keep: int) -> None:
    """A host outlives its caller: it must not hold the pipes that the caller's caller waits on."""
    null = os.open("/dev/null", os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    for fd in [int(path.name) for path in Path("/proc/self/fd").iterdir()]:
        if fd > 2 and fd not in keep:
            with contextlib.suppress(OSError):  # the descriptor that iterdir itself had open
                os.close(fd)


def _first_process(plan: Plan, go: int, report: int) -> NoReturn:
    """Pid 1 of the new host: wait for the word, build the tree, become init."""
    try:
        if os.read(go, 1) != b"g":
            os._exit(1)
        _filesystems(plan)
        socket.sethostname(plan.hostname)
        os.umask(0o022)
        for number in (signal.SIGPIPE, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        if plan.systemd:
            os.execve(_SYSTEMD[0], _SYSTEMD, _SYSTEMD_ENVIRONMENT)
        os.execv(_INIT[0], _INIT)
    except BaseException as error:  # noqa: BLE001 - whatever it is, the parent reports it
        os.write(report, str(error).encode()[:4000])
    os._exit(1)


def _parent_of_first(plan: Plan, go: int, report: int) -> NoReturn:
    """Enter the namespaces, fork their first process, name its pid, and go."""
    try:
        os.setsid()
        _close_inherited(go, report)
        syscalls.private_mounts()
        cgroups.join_new_namespace(str(plan.scratch), plan.cgroup, leaf=not plan.systemd)
        syscalls.unshare(NAMESPACES)
        pid = os.fork()
        if pid == 0:
            _first_process(plan, go, report)
        os.write(report, b"%d\n" % pid)
    except BaseException as error:  # noqa: BLE001 - whatever it is, the parent reports it
        os.write(report, b"0\n" + str(error).encode()[:4000])
    os._exit(0)


def start(plan: Plan, prepare: Callable[[int], None]) -> int:
    """Start a host and return the pid of its first process, as the machine sees it.

    `prepare` is called with that pid before the host builds its mounts: it must put the pid on record and may
    plug in the network. Raises LabError with the reason where the host does not come up.
    """
    go_reader, go_writer = os.pipe()
    reader, report = os.pipe()
    middle = os.fork()
    if middle == 0:
        os.close(go_writer)
        _parent_of_first(plan, go_reader, report)
    os.close(go_reader)
    os.close(report)
    with os.fdopen(reader, "rb") as words, os.fdopen(go_writer, "wb", buffering=0) as go:
        pid = int(words.readline() or b"0")
        os.waitpid(middle, 0)
        if pid:
            prepare(pid)
            go.write(b"g")
        failure = words.read().decode()
    if failure or not pid:
        raise LabError(f"host {plan.hostname} did not start: {failure or 'its first process died'}")
    return pid
