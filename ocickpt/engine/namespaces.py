"""What can only be changed from inside a container's namespaces: flags of its mounts, settings of its network.

Of the directories that crun masks with one and the same directory of the host, CRIU 4.2 leaves one writable, and
the network namespace that podman makes anew has none of the settings that the container had (podman's own
restore does the same).

See proc_pid_mountinfo(5), mount(2) under "Remounting an existing mount", setns(2).
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import re
import socket
import stat
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from ocickpt.engine import mountinfo
from ocickpt.errors import CommandError

FLAGS = {"ro": 1, "nosuid": 2, "nodev": 4, "noexec": 8}
"""The flags that take something away, as mountinfo and mount(2) call them."""
_OTHERS = {"nosymfollow": 256, "noatime": 1 << 10, "nodiratime": 1 << 11, "relatime": 1 << 21}
_REMOUNT, _BIND, _RECURSIVE = 1 << 5, 1 << 12, 1 << 14
_READ_ONLY = sum(FLAGS.values())
_OWN_ROOT, _NEW_MOUNTS, _NEW_NETWORK = 0x200, 0x20000, 0x40000000
_NETWORK = re.compile(r"net(\.[A-Za-z0-9_-]+)+")


def loose(pid: int, wanted: Mapping[str, int], proc: Path = Path("/proc")) -> dict[str, int]:
    """Mount points of process `pid` that lack flags `wanted` for them: path → all flags it should have.

    Raises OSError when there is no such process.
    """
    found: dict[str, int] = {}
    known = FLAGS | _OTHERS
    for mount in mountinfo.mounts(pid, proc):
        found[mount.point] = sum(known[word] for word in mount.options if word in known)
    return {path: flags | wanted[path] for path, flags in found.items() if path in wanted and wanted[path] & ~flags}


def remount(pid: int, flags: Mapping[str, int]) -> None:
    """Give the mount points of process `pid` these flags.

    Raises OSError when there is no such process, CommandError when it cannot be done.
    """

    def change() -> None:
        for path, value in flags.items():
            _mount(None, path, None, value | _REMOUNT | _BIND)

    _inside(f"/proc/{pid}/ns/mnt", _NEW_MOUNTS, change)


def seen(pid: int, hidden: Iterable[str], readonly: Iterable[str], proc: Path = Path("/proc")) -> set[str]:
    """Those paths in /proc and /sys that process `pid` sees though they are to be `hidden`, or that are not `readonly`.

    Looked at from where the process does: what is mounted somewhere need not be what is seen there. Raises OSError
    when there is no such process.
    """
    mounted = {mount.point for mount in mountinfo.mounts(pid, proc)}
    root = proc / str(pid) / "root"

    def kernels(path: str) -> bool:
        there = path.startswith(("/proc/", "/sys/")) and f"/{path.split('/')[1]}" in mounted
        return there and (root / path.lstrip("/")).exists()

    found = {
        path
        for path in filter(kernels, hidden)
        if (root / path.lstrip("/")).stat().st_dev == (root / path.split("/")[1]).stat().st_dev
    }
    writable = {
        path for path in filter(kernels, readonly) if not os.statvfs(root / path.lstrip("/")).f_flag & os.ST_RDONLY
    }
    return found | writable


def protect(pid: int, hidden: Iterable[str], readonly: Iterable[str]) -> None:
    """Hide files and directories of the kernel from process `pid`, and keep it from writing to others.

    As runtimes do it (runc libcontainer/rootfs_linux.go, maskPaths and readonlyPath). Errors as of `remount`.
    """

    def change() -> None:
        for path in hidden:
            if os.path.isdir(path):  # noqa: PTH112 - in the container's namespace
                _mount("tmpfs", path, "tmpfs", _READ_ONLY, "size=4k,nr_inodes=1")
                continue
            null = os.stat("/dev/null")  # noqa: PTH116
            if not stat.S_ISCHR(null.st_mode) or null.st_rdev != os.makedev(1, 3):
                raise OSError(errno.ENODEV, "the container's /dev/null is another device", path)
            _mount("/dev/null", path, None, _BIND)
        for path in readonly:
            _mount(path, path, None, _BIND | _RECURSIVE)
            _mount(path, path, None, _BIND | _REMOUNT | _READ_ONLY)

    _inside(f"/proc/{pid}/ns/mnt", _NEW_MOUNTS, change)


def network_settings(pid: int, values: Mapping[str, str], proc: Path = Path("/proc")) -> dict[str, str]:
    """Those of the sysctls `values` that are of a network; none when the network of process `pid` is the host's.

    Raises OSError when there is no such process.
    """
    ours = {name: value for name, value in values.items() if _NETWORK.fullmatch(name)}
    if not ours or (proc / str(pid) / "ns/net").readlink() == (proc / "self/ns/net").readlink():
        return {}
    return ours


def set_sysctls(pid: int, values: Mapping[str, str]) -> None:
    """Set sysctls in the network of process `pid`; errors as of `remount`."""

    def change() -> None:
        for name, setting in values.items():
            Path("/proc/sys", *name.split(".")).write_text(setting, "utf-8")

    _inside(f"/proc/{pid}/ns/net", _NEW_NETWORK, change)


def netlink(pid: int, protocol: int) -> socket.socket:
    """A netlink(7) socket in the network of process `pid`. OSError."""
    made = list[socket.socket]()

    def make() -> None:
        made.append(socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, protocol))

    path = Path(f"/proc/{pid}/ns/net")
    if path.samefile("/proc/self/ns/net"):
        make()
    elif error := _enter(str(path), _NEW_NETWORK, make):
        raise error
    return made[0]


def _mount(source: str | None, path: str, kind: str | None, flags: int, data: str | None = None) -> None:
    raw = [os.fsencode(each) if each else None for each in (source, path, kind, data)]
    _check(_libc().mount(raw[0], raw[1], raw[2], ctypes.c_ulong(flags), raw[3]), path)


def _inside(namespace: str, kind: int, change: Callable[[], None]) -> None:
    if error := _enter(namespace, kind, change):
        raise CommandError(f"{error.filename} cannot be changed in the container: {error.strerror}") from error


def _enter(namespace: str, kind: int, change: Callable[[], None]) -> OSError | None:
    """Call `change` in a thread that has entered a namespace, and ends with that: all others stay where they are.

    What went wrong there, if anything did; OSError when there is no such namespace.
    """
    _libc()
    failed: list[OSError] = []

    def work() -> None:
        try:
            # A thread enters another mount namespace only with a root and a working directory of its own.
            _check(_libc().unshare(_OWN_ROOT), "its root directory")
            _check(_libc().setns(handle, kind), namespace)
            change()
        except OSError as error:
            failed.append(error)

    handle = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    try:
        thread = threading.Thread(target=work, name="namespace")
        thread.start()
        thread.join()
    finally:
        os.close(handle)
    return failed[0] if failed else None


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _check(status: int, path: str) -> None:
    if status:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), path)
