"""What CRIU would mount: what the specification asks for, protected as it asks for, and nothing else.

CRIU takes flags, masks and mount points from its images; of the specification the runtime hands it the bind mounts.

Source: images/mnt.proto; criu/mount.c; runc criu_linux.go (addCriuRestoreMount, addMaskPaths); crun criu.c
(register_masked_paths_mounts); runtime-spec, config.md, "Mounts".
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Final

from ocickpt.engine import host
from ocickpt.errors import IntegrityError, UnsupportedError
from ocickpt.gate.expected import RDONLY, Expected, Mount
from ocickpt.gate.images import Message

_TMPFS: Final = 5
_CGROUP, _CGROUP2 = 12, 23
_KINDS: Final = {"proc": 1, "sysfs": 2, "tmpfs": 5, "ramfs": 5, "devpts": 6, "mqueue": 14, "cgroup2": _CGROUP2}
"""fstype by the specification's type."""
_MADE: Final = frozenset({1, 2, 5, 6, 12, 14, 23})
"""Filesystems that consist of nothing but what the container puts into them."""
_CONSOLE: Final = "/dev/console"
_NULL, _EMPTY_DIRECTORY = "/dev/null", "/.empty-directory"
"""What masks a file, and a directory under crun."""
_EVERYWHERE: Final = frozenset(
    {"/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/sysrq-trigger", "/proc/bus", "/proc/fs", "/proc/irq",
     "/proc/sys", "/sys/firmware"}
)  # fmt: skip
"""What every kernel has that containers run on: a checkpoint that does not protect it never did. What else is in
/proc and /sys depends on the machine, and is protected once it was restored (`flows/confine.py`)."""


def check_mounts(namespaces: Mapping[int, list[Message]], expected: Expected) -> None:
    """Refuse mounts that a container as `expected` cannot have, or that it would not be without.

    IntegrityError, UnsupportedError.
    """
    if not namespaces:
        raise IntegrityError("the checkpoint does not say what its container mounts")
    roots = set[int]()
    for mounts in namespaces.values():
        by_path: dict[str, list[Message]] = {}
        for mount in mounts:
            _check_names(mount)
            by_path.setdefault(mount.mountpoint, []).append(mount)
        for path, found in by_path.items():
            for mount in found:
                _check_mount(path, mount, expected)
        roots |= {mount.root_dev for mount in by_path.get("/", ())}
        _check_there(by_path, expected)
    if len(roots) != 1:
        raise UnsupportedError("the checkpoint has more than one root filesystem")


def _check_names(mount: Message) -> None:
    if mount.with_plugin or mount.ext_mount or mount.deleted:
        raise UnsupportedError(f"the checkpoint mounts something of its host at {mount.mountpoint[:200]!r}")
    for text in (mount.mountpoint, mount.root):
        if not text.startswith("/") or ".." in text.split("/") or not text.isprintable():
            raise IntegrityError(f"the checkpoint mounts {text[:200]!r}, which is no path")


def _check_mount(path: str, mount: Message, expected: Expected) -> None:
    """One mount: who asked for it, and with which flags."""
    what = f"the checkpoint's mount at {path[:200]!r}"
    if path == "/":
        if expected.root_readonly and not mount.flags & RDONLY:
            raise IntegrityError(f"{what} is writable, and the container's root filesystem is not")
        return
    wanted = expected.mounts.get(path)
    if wanted:
        _check_wanted(what, mount, wanted)
    elif path in expected.masked:
        if not (mount.ext_key in (_NULL, path) or mount.ext_key.endswith(_EMPTY_DIRECTORY) or _is_empty(mount)):
            raise IntegrityError(f"{what} does not hide what the container must not see there")
    elif path in expected.readonly:
        if mount.ext_key or not mount.flags & RDONLY or mount.fstype not in (1, 2):
            raise IntegrityError(f"{what} is writable, and the container's is not")
    elif path == _CONSOLE and mount.fstype == 6 and not mount.ext_key:
        return
    elif not _belongs(path, mount, expected):
        raise IntegrityError(f"the container has no mount at {path[:200]!r}, its checkpoint has one")


def _check_wanted(what: str, mount: Message, wanted: Mount) -> None:
    missing = wanted.flags & ~(mount.flags | (mount.sb_flags & RDONLY))
    if missing:
        raise IntegrityError(f"{what} may do more than the container's: it lacks {_flags(missing)}")
    if wanted.type == "bind":
        if mount.ext_key != mount.mountpoint:
            raise IntegrityError(f"{what} is not the directory or file that the container has there")
    elif mount.ext_key or mount.fstype not in _kinds(wanted.type):
        raise IntegrityError(f"{what} is not the {wanted.type} that the container has there")


def _belongs(path: str, mount: Message, expected: Expected) -> bool:
    """Whether a mount that nobody asked for can be the container's all the same."""
    if mount.ext_key:
        return False
    if mount.fstype in _MADE and expected.may("SYS_ADMIN"):
        return True
    for where, wanted in expected.mounts.items():
        if path.startswith(f"{where}/"):
            if wanted.type == "cgroup" and mount.fstype in _kinds("cgroup") and not wanted.flags & ~mount.flags:
                return True
            if wanted.recursive and mount.fstype == _TMPFS and not wanted.flags & ~mount.flags:
                return True
    return False


def _check_there(by_path: Mapping[str, list[Message]], expected: Expected) -> None:
    """What would be missing: the specification's own mounts, and what protects the kernel's files."""
    missing = sorted(expected.mounts.keys() - by_path.keys())
    if missing and not expected.may("SYS_ADMIN"):
        raise IntegrityError(f"the checkpoint lacks the mount at {missing[0][:200]!r} that its container has")
    for path in sorted((expected.masked | expected.readonly) & _EVERYWHERE):
        under = next((where for where in ("/proc", "/sys") if path.startswith(f"{where}/")), "")
        if path not in by_path and under in by_path and os.path.lexists(path):
            raise IntegrityError(f"the checkpoint leaves {path} open, which its container protects")


def _kinds(name: str) -> tuple[int, ...]:
    """What a filesystem of the specification may be in the images: for cgroup that is as it is on this host, with v1 a
    tmpfs of hierarchies. Of another kind CRIU would make a new hierarchy, for the whole machine."""
    if name == "cgroup":
        return (_CGROUP2,) if host.cgroup() == "v2" else (_TMPFS, _CGROUP)
    return (_KINDS[name],) if name in _KINDS else ()


def _is_empty(mount: Message) -> bool:
    """Whether this is a small read-only tmpfs, with which runc hides a directory."""
    read_only = (mount.flags | mount.sb_flags) & RDONLY
    return bool(mount.fstype == _TMPFS and mount.root == "/" and read_only and not mount.ext_key)


def _flags(mask: int) -> str:
    return " ".join(name for name, bit in (("ro", 1), ("nosuid", 2), ("nodev", 4), ("noexec", 8)) if mask & bit)


def protected(namespaces: Iterable[list[Message]]) -> frozenset[str]:
    """Where something is mounted in every mount namespace."""
    found = [frozenset(mount.mountpoint for mount in mounts) for mounts in namespaces]
    return frozenset.intersection(*found) if found else frozenset()
