"""What the processes of a restored container have open or mapped: on its mounts, in its networks, or nothing of the
host's.

Source: proc_pid_fd(5), proc_pid_maps(5), proc_pid_map_files(5); pidfd_getfd(2); SIOCGSKNS in linux/sockios.h;
socket(7); netlink(7).
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import socket
import stat
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from ocickpt.engine import mountinfo, threads
from ocickpt.engine.container import Running
from ocickpt.errors import IntegrityError
from ocickpt.gate import reach
from ocickpt.gate.expected import Expected
from ocickpt.gate.kernel import mounts, tasks

_PIDFD_GETFD = 438
"""The same on every architecture (it is younger than their unification)."""
_SIOCGSKNS = 0x894C
_PACKET, _NETLINK = 17, 16
_PTMX = ("c", 5, 2)
_NAMESPACES = {name: kind for kind, name in threads.NAMESPACES.items()} | {"pid_for_children": "pid"}
_SOL_NETLINK, _MEMBERSHIPS, _MOST_GROUPS = 270, 9, 1024
"""NETLINK_LIST_MEMBERSHIPS (netlink(7)), and more groups than a protocol has."""
_SETTINGS = (socket.SO_MARK, socket.SO_PRIORITY, socket.SO_SNDBUF, socket.SO_RCVBUF)
_MOST_PRIORITY = 6
"""Of packets, that everybody may give them (SO_PRIORITY)."""
_PLACES = ("cwd", "root", "exe")


def check(container: Running, tree: Collection[int], expected: Expected) -> None:
    """Refuse descriptors of the processes of the `tree` that lead out of the container. IntegrityError."""
    looked = _Look(container, tree, expected)
    for pid in tree:
        for name in os.listdir(f"/proc/{pid}/fd"):  # noqa: PTH208 - a third of the time
            if problem := looked.descriptor(pid, name):
                raise IntegrityError(f"the restored process {pid} {problem}")
        for name in (*_PLACES, *looked.mapped(pid)):
            if problem := looked.place(pid, name):
                raise IntegrityError(f"the restored process {pid} {problem}")


class _Look:
    def __init__(self, container: Running, tree: Iterable[int], expected: Expected) -> None:
        self._mounts = mounts.ids(tasks.mount_namespaces(tree))
        self._outside = {mount.device for mount in mountinfo.mounts()}
        self._namespaces = threads.namespaces(Path("/proc/self"))
        self._network = threads.namespaces(Path(f"/proc/{container.pid}"))["network"]
        self._given = set(_held_by(container.conmon))
        self._expected = expected
        self._read = set[tuple[str, str]]()
        """Device and inode of files that were looked at, for some process that has them mapped."""

    def descriptor(self, pid: int, name: str) -> str:
        """What is wrong with a descriptor; nothing if it can be the container's."""
        path = f"/proc/{pid}/fd/{name}"
        link, found = os.readlink(path), os.stat(path)  # noqa: PTH115, PTH116 - there may be thousands
        if stat.S_ISSOCK(found.st_mode) and link.startswith("socket:"):
            return self._socket(pid, int(name))
        if kind := _NAMESPACES.get(link.partition(":[")[0] if ":[" in link else ""):
            shared = self._namespaces.get(kind) == found.st_ino and kind in self._expected.namespaces
            return f"holds the {kind} namespace of this host open" if shared and kind != "cgroup" else ""
        if _is_device(found):
            return self._device(mountinfo.id_of(int(name), pid), found, link)
        if _identity(found) in self._given:  # its stdin, stdout and stderr
            return ""
        return self._file(mountinfo.id_of(int(name), pid), found, link)

    def mapped(self, pid: int) -> Iterator[str]:
        """The places of files in its memory: of those that it has for itself, where it only reads them, each once."""
        with open(f"/proc/{pid}/maps", encoding="utf-8", errors="surrogateescape") as lines:  # noqa: PTH123 - for speed
            for line in lines:
                area, rights, _, device, inode = line.split(None, 5)[:5]
                if inode == "0" or (rights.endswith("p") and (device, inode) in self._read):
                    continue
                self._read.add((device, inode))
                begin, _, end = area.partition("-")
                yield f"map_files/{int(begin, 16):x}-{int(end, 16):x}"

    def place(self, pid: int, name: str) -> str:
        """The same of its working directory, its root, its program, a file in its memory."""
        path = f"/proc/{pid}/{name}"
        try:
            handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except FileNotFoundError:
            return ""  # a process of the kernel's, or a program that is gone
        try:
            link, found = os.readlink(path), os.fstat(handle)  # noqa: PTH115
            mount = mountinfo.id_of(handle)
            return self._device(mount, found, link) or self._file(mount, found, link)
        finally:
            os.close(handle)

    def _file(self, mount: int, found: os.stat_result, link: str) -> str:
        """On a mount of the container, or on none that anybody can see: pipes, memory, what epoll and the like are."""
        # What has a path has a mount that somebody sees, be it in another container; memory is deleted from the first.
        named = link.startswith("/proc/") or (link.startswith("/") and not link.endswith(" (deleted)"))
        if mount in self._mounts or (found.st_dev not in self._outside and not named):
            return ""
        return f"has {link[:200]!r} of this host open, which is on no mount of its container"

    def _device(self, mount: int, found: os.stat_result, link: str) -> str:
        if not _is_device(found):
            return ""
        kind = "b" if stat.S_ISBLK(found.st_mode) else "c"
        device = kind, os.major(found.st_rdev), os.minor(found.st_rdev)
        if kind == "c" and (device == _PTMX or device[1] in mounts.TERMINALS):
            # A terminal's number means nothing: each devpts has its own.
            if found.st_dev not in self._outside or mount in self._mounts:
                return ""
            return "" if _identity(found) in self._given else f"has the terminal {link[:200]!r} of this host open"
        if device in self._expected.devices:
            return ""
        return f"has the device {link[:200]!r} open ({kind}{device[1]}:{device[2]}), which its container has not"

    def _socket(self, pid: int, number: int) -> str:
        process = os.pidfd_open(pid)
        try:
            copy = int(_libc.syscall(_PIDFD_GETFD, process, number, 0))
        finally:
            os.close(process)
        if copy < 0:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error), f"/proc/{pid}/fd/{number}")
        with socket.socket(fileno=copy) as found:
            family, kind = found.family, found.type
            if (family == _PACKET or (kind == socket.SOCK_RAW and family != _NETLINK)) and not self._may("NET_RAW"):
                return "has a packet or raw socket, which takes CAP_NET_RAW"
            if special := self._special(found):
                return special
            if family == _NETLINK and _listens(found) and not self._may("NET_ADMIN"):
                return "has a netlink socket that listens, which takes CAP_NET_ADMIN"
            network = fcntl.ioctl(found, _SIOCGSKNS)
        try:
            own = os.fstat(network).st_ino == self._network
        finally:
            os.close(network)
        return "" if own or self._may("SYS_ADMIN") else "has a socket in another network than its container's"

    def _special(self, found: socket.socket) -> str:
        """What a socket is set to that takes a capability."""
        mark, priority, *buffers = (found.getsockopt(socket.SOL_SOCKET, each) for each in _SETTINGS)
        if (mark or priority > _MOST_PRIORITY) and not (self._may("NET_RAW") or self._may("NET_ADMIN")):
            return f"has a socket with the mark {mark} and the priority {priority}, which takes CAP_NET_ADMIN"
        if max(buffers) > reach.MOST_BUFFER and not self._may("NET_ADMIN"):
            return f"has a socket with {max(buffers)} bytes of memory, which takes CAP_NET_ADMIN"
        return ""

    def _may(self, capability: str) -> bool:
        return self._expected.may(capability)


def _listens(found: socket.socket) -> bool:
    """Whether a netlink socket is in a group that not everybody may be in."""
    groups = found.getsockopt(_SOL_NETLINK, _MEMBERSHIPS, _MOST_GROUPS // 8)
    return any(groups) and found.proto not in reach.OPEN_PROTOCOLS


def _held_by(pid: int) -> Iterator[tuple[int, int]]:
    """What conmon has open, which runs meanwhile, and can have handed on: not its log, and no directory."""
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found = path.stat()
            if int(path.name) <= 2 or not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
                yield _identity(found)


def _is_device(found: os.stat_result) -> bool:
    return stat.S_ISCHR(found.st_mode) or stat.S_ISBLK(found.st_mode)


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


_libc = ctypes.CDLL(None, use_errno=True)
