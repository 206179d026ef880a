"""Can this machine carry a lab? Tries what a lab does, and says in one line each what cannot be done."""

import os
import resource
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from lablib import boot, cgroups, images, machine, mirror, syscalls
from lablib.layout import Lab, LabError

_GIB = 1 << 30
_FREE = 2 * _GIB  # for the hosts' disks
_FREE_TO_BUILD = 6 * _GIB
_NOFILE = 20_000  # what hostfiles/all/etc/containers/containers.conf asks for
_NETLINK_NETFILTER = 12


def _attempt(what: str, work: Callable[[], None]) -> Iterator[str]:
    try:
        cgroups.in_child(work)
    except LabError as error:
        yield f"{what}: {error}"


def _nearest(path: Path) -> Path:
    """The directory `path`, or the one it would be made in: to look is not to make."""
    return path if path.is_dir() else _nearest(path.parent)


def _overlay(lab: Lab) -> None:
    syscalls.private_mounts()
    with tempfile.TemporaryDirectory(prefix="ocickpt-lab-", dir=_nearest(lab.cache)) as scratch:
        for name in ("lower", "upper", "work", "root"):
            Path(scratch, name).mkdir()
        options = f"lowerdir={scratch}/lower,upperdir={scratch}/upper,workdir={scratch}/work"
        syscalls.mount("overlay", f"{scratch}/root", "overlay", data=options)
        try:
            os.mknod(f"{scratch}/root/null", 0o020666, os.makedev(1, 3))
        finally:
            syscalls.unmount(f"{scratch}/root")


def _cgroup2() -> None:
    syscalls.private_mounts()
    cgroups.mount("/mnt")


def _namespaces() -> None:
    syscalls.private_mounts()
    syscalls.unshare(boot.NAMESPACES | syscalls.CLONE_NEWCGROUP)


def _netfilter() -> None:
    socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER).close()


def _bridge() -> None:
    syscalls.unshare(syscalls.CLONE_NEWNET)
    batch = "link add bridge type bridge\nlink add v0 type veth peer name v1\nlink set v0 master bridge\n"
    machine.run(["ip", "-batch", "-"], stdin=batch)


def _building(lab: Lab, space: int) -> Iterator[str]:
    """What building takes, on top of what running takes."""
    if space < _FREE_TO_BUILD:
        yield f"disk: {lab.cache} has {space / _GIB:.1f} GiB free, building takes {_FREE_TO_BUILD // _GIB}"
    missing = machine.missing_packages()
    if missing and shutil.which("apt-get") is None:
        yield f"programs: {', '.join(missing)} not installed, and there is no apt-get to install them"
    try:
        mirror.address()
    except LabError as error:
        yield str(error)


def findings(lab: Lab) -> Iterator[str]:
    """One line for each thing this machine lacks."""
    if os.geteuid() != 0:
        yield "root: a lab makes namespaces and mounts, which takes root"
        return
    space = shutil.disk_usage(_nearest(lab.cache)).free
    if not images.built(lab):
        yield from _building(lab, space)
    elif space < _FREE:
        yield f"disk: {lab.cache} has {space / _GIB:.1f} GiB free, a lab takes {_FREE // _GIB}"
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < _NOFILE:
        yield f"limits: `ulimit -Hn` is below {_NOFILE}, which the hosts' containers are given"
    yield from _attempt("namespaces", _namespaces)
    yield from _attempt("cgroup2", _cgroup2)
    yield from _attempt(f"overlay on {lab.cache}", lambda: _overlay(lab))
    yield from _attempt("nftables", _netfilter)
    if shutil.which("ip") is not None:
        yield from _attempt("bridge and veth", _bridge)
    if not Path("/proc/self/ns/cgroup").exists():
        yield "cgroup namespaces: this kernel has none"


def insist(lab: Lab) -> None:
    """Raise LabError with all findings, where there are any."""
    found = list(findings(lab))
    if found:
        raise LabError("this machine cannot carry a lab:\n  " + "\n  ".join(found))
