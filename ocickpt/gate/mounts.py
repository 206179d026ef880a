"""What CRIU would mount: what the specification asks for, protected as it asks for, and nothing else.

CRIU takes flags, masks and mount points from its images; of the specification the runtime hands it the bind mounts.

Source: images/mnt.proto; criu/mount.c, mount-v2.c; runc criu_linux.go (addCriuRestoreMount, addMaskPaths); crun criu.c
(register_masked_paths_mounts); runtime-spec, config.md, "Mounts"; mount(2).
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterator, Mapping
from typing import Final

from ocickpt.engine import host
from ocickpt.errors import IntegrityError, UnsupportedError
from ocickpt.gate.expected import RDONLY, Expected, Mount, number
from ocickpt.gate.images import Message, text

_PROC, _SYSFS, _TMPFS, _DEVPTS, _CGROUP, _MQUEUE, _CGROUP2 = 1, 2, 5, 6, 12, 14, 23
"""fstype."""
_KINDS: Final = {
    "proc": _PROC, "sysfs": _SYSFS, "tmpfs": _TMPFS, "ramfs": _TMPFS, "devpts": _DEVPTS, "mqueue": _MQUEUE,
    "cgroup2": _CGROUP2,
}  # fmt: skip
"""fstype by the specification's type."""
_MADE: Final = frozenset({_PROC, _SYSFS, _TMPFS, _DEVPTS, _CGROUP, _MQUEUE, _CGROUP2})
"""Filesystems that consist of nothing but what the container puts into them."""
_OF_SUPERBLOCK: Final = 1 | 1 << 4 | 1 << 6 | 1 << 7 | 1 << 15 | 1 << 16 | 1 << 23 | 1 << 25
"""RDONLY, SYNCHRONOUS, MANDLOCK, DIRSYNC, SILENT, POSIXACL, I_VERSION, LAZYTIME: what a filesystem can be mounted with.
CRIU hands all flags to mount(2), where others say to bind, move or remount something."""
_OF_MOUNT: Final = 0xF | 1 << 8 | 1 << 10 | 1 << 11 | 0xF << 17 | 1 << 21 | 1 << 24
"""RDONLY, NOSUID, NODEV, NOEXEC, NOSYMFOLLOW, the ATIMEs, and the four kinds of propagation."""
_WORD: Final = re.compile(r'[^,"]+(?:"[^"]*")?')
_WORDS: Final = {
    _PROC: frozenset({"hidepid", "gid", "subset"}),
    _TMPFS: frozenset({"size", "nr_inodes", "mode", "uid", "gid", "huge", "mpol", "noswap", "inode32", "inode64"}),
    _DEVPTS: frozenset({"gid", "uid", "mode", "ptmxmode", "newinstance", "max"}),
    _CGROUP2: frozenset(
        {"nsdelegate", "favordynmods", "memory_localevents", "memory_recursiveprot", "memory_hugetlb_accounting",
         "pids_localevents"}
    ),
}  # fmt: skip
"""The options of filesystems that containers have (tmpfs(5), proc(5), the kernel's devpts.rst, cgroup-v2.rst)."""
_LABELS: Final = ("context", "fscontext", "defcontext", "rootcontext")
_LIMITS: Final = ("size", "nr_inodes")
_HIDING: Final = ("hidepid", "subset")
_CONSOLE: Final = "/dev/console"
_NULL, _EMPTY_DIRECTORY = "/dev/null", "/.empty-directory"
"""What masks a file, and a directory under crun."""
_EVERYWHERE: Final = frozenset(
    {"/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/sysrq-trigger", "/proc/bus", "/proc/fs", "/proc/irq",
     "/proc/sys", "/sys/firmware"}
)  # fmt: skip
"""What every kernel has that containers run on: a checkpoint that does not protect it never did. What else is in
/proc and /sys depends on the machine, and is protected once it was restored (`confinement`)."""


def check_mounts(namespaces: Mapping[int, list[Message]], expected: Expected) -> None:
    """Refuse mounts that a container as `expected` cannot have, or that it would not be without.

    IntegrityError, UnsupportedError.
    """
    if not namespaces:
        raise IntegrityError("the checkpoint does not say what its container mounts")
    roots = set[tuple[object, ...]]()
    for mounts in namespaces.values():
        for mount in mounts:
            _check_form(mount)
        found = _Tree(mounts, expected)
        found.check()
        roots.add((found.root.fstype, found.root.root_dev, text(found.root.source), text(found.root.options)))
    if len(roots) != 1:
        raise UnsupportedError("the checkpoint has more than one root filesystem")


def _check_form(mount: Message) -> None:
    """What no mount of any container has."""
    path = text(mount.mountpoint)
    if mount.with_plugin or mount.ext_mount or mount.internal_sharing or mount.deleted or mount.fsname:
        raise UnsupportedError(f"the checkpoint mounts something of its host at {path[:200]!r}")
    for each in (path, text(mount.root)):
        if not each.startswith("/") or ".." in each.split("/") or posixpath.normpath(each) != each:
            raise IntegrityError(f"the checkpoint mounts {each[:200]!r}, which is no path")
    if not mount.HasField("sb_flags") or mount.sb_flags & ~_OF_SUPERBLOCK or mount.flags & ~_OF_MOUNT:
        raise IntegrityError(
            f"the checkpoint's mount at {path[:200]!r} has the flags {mount.flags:#x} {mount.sb_flags:#x}: they would"
            " do more than mount a filesystem"
        )


class _Tree:
    """The mounts of one namespace, by their places."""

    def __init__(self, mounts: list[Message], expected: Expected) -> None:
        self._expected = expected
        self._free = expected.may("SYS_ADMIN")
        """Whether processes of the container may mount by themselves."""
        self._mounts = {text(mount.mountpoint): mount for mount in reversed(mounts)}
        if len(self._mounts) != len(mounts) and not self._free:
            raise IntegrityError("the checkpoint mounts one thing over another, which its container cannot")
        if "/" not in self._mounts:
            raise IntegrityError("the checkpoint has a mount namespace without a root filesystem")
        self.root = self._mounts["/"]
        wanted = {**expected.mounts, **dict(self._moved())}
        self._wanted: dict[str, Mount] = {path: each for path, each in wanted.items() if path in self._mounts}
        self._missing = sorted(expected.mounts.keys() - self._wanted.keys() - {was for _, was in self._places})

    def _moved(self) -> Iterator[tuple[str, Mount]]:
        """Mounts that the specification has elsewhere, for a symlink of the image leads here (/var/run is /run)."""
        self._places: list[tuple[str, str]] = []
        absent = {where: each for where, each in self._expected.mounts.items() if where not in self._mounts}
        for path in sorted(self._mounts.keys() - self._expected.mounts.keys()):
            for where, each in absent.items():
                if each.type in ("bind", "tmpfs") and posixpath.basename(where) == posixpath.basename(path) != "":
                    self._places.append((path, where))
                    yield path, each
                    del absent[where]
                    break

    def check(self) -> None:
        """All rules. IntegrityError."""
        self._check_places()
        for path, mount in self._mounts.items():
            self._check_mount(path, mount)
            self._check_settings(path, mount)
        if self._missing and not self._free:
            raise IntegrityError(f"the checkpoint lacks the mount at {self._missing[0][:200]!r} that its container has")
        for path in sorted((self._expected.masked | self._expected.readonly) & _EVERYWHERE):
            if path not in self._mounts and self._kernels(path) in self._mounts and os.path.lexists(path):
                raise IntegrityError(f"the checkpoint leaves {path} open, which its container protects")

    def _check_places(self) -> None:
        """Each is mounted on what is seen there, and is a filesystem of its own where it says so."""
        if self._free:
            return
        outside = {
            self.root.root_dev,
            *(self._mounts[path].root_dev for path, each in self._wanted.items() if each.type == "bind"),
        }
        for path, mount in self._mounts.items():
            if path == "/":
                continue
            if mount.parent_mnt_id != self._mounts[self._above(path)].mnt_id:
                raise IntegrityError(f"the checkpoint's mount at {path[:200]!r} lies below what is mounted there")
            if not mount.ext_key and mount.root_dev in outside:
                raise IntegrityError(f"the checkpoint's mount at {path[:200]!r} is one of another of its mounts")

    def _above(self, path: str) -> str:
        while (path := posixpath.dirname(path)) not in self._mounts:
            pass
        return path

    def _check_mount(self, path: str, mount: Message) -> None:
        """One mount: who asked for it, and with which flags."""
        what, expected = f"the checkpoint's mount at {path[:200]!r}", self._expected
        wanted = self._wanted.get(path)
        if path == "/":
            if mount.ext_key or (expected.root_readonly and not mount.flags & RDONLY):
                raise IntegrityError(f"{what} is writable, and the container's root filesystem is not")
        elif wanted:
            _check_wanted(what, mount, wanted, dict(self._places).get(path, path))
        elif path in expected.masked:
            if not (mount.ext_key in (_NULL, path) or mount.ext_key.endswith(_EMPTY_DIRECTORY) or _is_empty(mount)):
                raise IntegrityError(f"{what} does not hide what the container must not see there")
        elif path in expected.readonly:
            self._check_readonly(what, path, mount)
        elif path == _CONSOLE and mount.fstype == _DEVPTS and not mount.ext_key and self._is_terminal(mount):
            return
        elif not self._belongs(path, mount):
            raise IntegrityError(f"the container has no mount at {path[:200]!r}, its checkpoint has one")

    def _check_settings(self, path: str, mount: Message) -> None:
        """How one is mounted, and what it shares. The root filesystem may receive (runc's default is rslave): what is
        mounted on the host below it is its engine's doing."""
        what, wanted = f"the checkpoint's mount at {path[:200]!r}", self._wanted.get(path)
        if path != "/" and not mount.ext_key:
            _check_options(what, mount, wanted, self._expected)
        shares = self._expected.shares_root if path == "/" else wanted and wanted.shares
        if (mount.shared_id or (mount.master_id and path != "/")) and not (shares or self._free):
            raise IntegrityError(f"{what} shares what is mounted below it, and the container's does not")

    def _check_readonly(self, what: str, path: str, mount: Message) -> None:
        if mount.ext_key or not mount.flags & RDONLY:
            raise IntegrityError(f"{what} is writable, and the container's is not")
        kernels = self._mounts.get(self._kernels(path))
        own = kernels and (mount.fstype, mount.root_dev) == (kernels.fstype, kernels.root_dev)
        if not own or mount.root != path.removeprefix(self._kernels(path)):
            raise IntegrityError(f"{what} is not what the kernel has there")

    def _is_terminal(self, mount: Message) -> bool:
        terminals = self._mounts.get("/dev/pts")
        return terminals is not None and mount.root_dev == terminals.root_dev

    def _kernels(self, path: str) -> str:
        """Which of the kernel's filesystems a path is of."""
        return f"/{path.split('/')[1]}"

    def _belongs(self, path: str, mount: Message) -> bool:
        """Whether a mount that nobody asked for can be the container's all the same."""
        if mount.ext_key:
            return False
        if mount.fstype in _MADE and self._free:
            return True
        for where, wanted in self._wanted.items():
            if path.startswith(f"{where}/") and not wanted.flags & ~mount.flags:
                if wanted.type == "cgroup" and mount.fstype in _kinds("cgroup"):
                    return True
                if wanted.recursive and mount.fstype == _TMPFS:
                    return True
        return False


def _check_options(what: str, mount: Message, wanted: Mount | None, expected: Expected) -> None:
    """What CRIU hands to the filesystem when it mounts it: words that it has for containers, and what is asked for."""
    given = dict[str, str]()
    words = _WORD.findall(text(mount.options))
    if ",".join(words) != text(mount.options):
        raise IntegrityError(f"{what} has options that cannot be told apart")
    if mount.fstype == _CGROUP:
        _check_hierarchy(what, words)
        return
    for word in words:
        name, _, value = word.partition("=")
        if name in _LABELS and value.strip('"').split(":")[:3] != expected.mount_label.split(":")[:3]:
            raise IntegrityError(f"{what} has the label {value[:100]}, its container {expected.mount_label!r}")
        if name not in (*_LABELS, "seclabel", *_WORDS.get(mount.fstype, ())):
            raise IntegrityError(f"{what} has the option {word[:100]!r}, which no container's has")
        given[name] = value
    for name in _LIMITS if wanted else ():
        most, asked = number(given.get(name, "")), number(wanted.options.get(name, "")) if wanted else None
        if asked is not None and (most is None or most > asked):
            raise IntegrityError(f"{what} has {name}={given.get(name, '')}, its container {name}={asked}")
    for name in _HIDING:
        if wanted and name in wanted.options and given.get(name, "off") in ("off", "0"):
            raise IntegrityError(f"{what} shows what the container's does not: it lacks {name}")


def _check_hierarchy(what: str, words: list[str]) -> None:
    """Of a hierarchy that is there the kernel takes no options again; any other would be a new one, of the whole
    machine (cgroup1_root_to_use in kernel/cgroup/cgroup-v1.c)."""
    there = {word for each in host.v1_hierarchies() for word in each.split(",")}
    names = [word for word in words if word != "xattr" and not word.startswith("release_agent=")]
    if not names or not there.issuperset(names):
        raise IntegrityError(f"{what} is of a cgroup hierarchy that this host has not: {','.join(words)[:100]!r}")


def _check_wanted(what: str, mount: Message, wanted: Mount, named: str) -> None:
    """A mount that the specification has at `named`."""
    missing = wanted.flags & ~(mount.flags | (mount.sb_flags & RDONLY))
    if missing:
        raise IntegrityError(f"{what} may do more than the container's: it lacks {_flags(missing)}")
    if wanted.type == "bind":
        if mount.ext_key not in (text(mount.mountpoint), named):
            raise IntegrityError(f"{what} is not the directory or file that the container has there")
    elif mount.ext_key or mount.fstype not in _kinds(wanted.type) or mount.root != "/":
        raise IntegrityError(f"{what} is not the {wanted.type} that the container has there")


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


def writes_cgroups(namespaces: Mapping[int, list[Message]]) -> bool:
    """Whether a cgroup hierarchy is mounted to be written to."""
    mounts = (mount for found in namespaces.values() for mount in found)
    return any(mount.fstype in (_CGROUP, _CGROUP2) and not (mount.flags | mount.sb_flags) & RDONLY for mount in mounts)
