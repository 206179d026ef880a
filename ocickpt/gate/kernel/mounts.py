"""The mounts of a restored container: each is one that the specification asks for, and what is asked for is there.

Flags that a mount lacks, and paths of the kernel's that are open, `confinement` has put right before.

Source: proc_pid_mountinfo(5); runtime-spec, config.md, "Mounts"; what runtimes mount beside: runc
libcontainer/rootfs_linux.go (maskPaths, readonlyPath, setupConsole), crun src/libcrun/linux.c.
"""

from __future__ import annotations

import mmap
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ocickpt import oci
from ocickpt.engine import cgroups, mountinfo
from ocickpt.engine.files import openat2
from ocickpt.engine.mountinfo import Mount
from ocickpt.errors import IntegrityError
from ocickpt.gate.expected import Expected, number

_KINDS = {"ramfs": "tmpfs", "cgroup": "cgroup2"}
"""A filesystem by another name than the specification's."""
_OF_A_NAMESPACE = {"proc": "pid", "sysfs": "network", "mqueue": "ipc"}
"""Filesystems of which there is one for each namespace of a kind, however often it is mounted."""
_SHARED = ("cgroup2", "cgroup", *_OF_A_NAMESPACE)
"""Filesystems of which there is one for a namespace, or for the host."""
_MADE = ("proc", "sysfs", "tmpfs", "devpts", "mqueue", "cgroup2", "ramfs", "overlay", "fuse")
"""What a container with CAP_SYS_ADMIN can mount by itself."""
_CONSOLE = "/dev/console"
TERMINALS = range(136, 144)
"""The majors of pseudo-terminals' slaves."""
_NULL = os.makedev(1, 3)


def check(pid: int, spec: oci.Bundle, bundle: Path, expected: Expected) -> None:
    """Refuse mounts in the namespace of process `pid` that the specification does not describe. IntegrityError."""
    table = {mount.id: mount for mount in mountinfo.mounts(pid)}
    with _opened(Path(f"/proc/{pid}/root")) as root:
        if _identity(root, "/") != _identity_of(spec.root_in(bundle)):
            raise IntegrityError("the restored container has another root filesystem than its own")
        found = _Found(table, root, expected, cgroups.place_of(spec.linux.cgroups_path))
        found.explain(_Found.id_at(root, "/"))
        for wanted in spec.mounts:
            found.check_wanted(wanted)
        for mount in table.values():
            if not found.is_seen(mount) or not found.explains(mount):
                raise IntegrityError(f"the restored container has a mount at {mount.point[:200]!r} that is none of its")


class _Found:
    """The mounts that are there (`table`, by id) as seen from the container's `root`."""

    def __init__(self, table: dict[int, Mount], root: int, expected: Expected, cgroup: Path | None) -> None:
        self._table, self._root, self._expected, self._cgroup = table, root, expected, cgroup
        self._explained = set[int]()
        self._whole = list[tuple[str, Path]]()
        """Mounts that bring along what is mounted below their source."""
        self._outside = {mount.device for mount in mountinfo.mounts()}
        self._free = expected.may("SYS_ADMIN")

    def explain(self, number: int) -> None:
        """A mount that the specification asks for."""
        self._explained.add(number)

    @staticmethod
    def id_at(root: int, path: str) -> int:
        """Which mount is seen at a path."""
        handle = openat2.openat2(root, path, os.O_PATH, resolve=openat2.RESOLVE_IN_ROOT)
        try:
            return mountinfo.id_of(handle)
        finally:
            os.close(handle)

    def check_wanted(self, wanted: oci.Mount) -> None:
        """One mount of the specification."""
        where = wanted.destination
        try:
            number = self.id_at(self._root, where)
            there = self._table.get(number)
            right = there is not None and self._is(there, wanted)
        except OSError:
            right = False
        if right:
            self._explained.add(number)
            self._check_size(wanted)
            if wanted.is_bind and "rbind" in wanted.options and there:
                self._whole.append((there.point, Path(wanted.source)))
        elif not self._free:
            raise IntegrityError(f"the restored container lacks its {wanted.type or 'bind'} mount at {where[:200]!r}")

    def _check_size(self, wanted: oci.Mount) -> None:
        """A filesystem in memory holds no more than is asked for (tmpfs(5)), in whole pages; 0 is no limit."""
        if wanted.type != "tmpfs" or self._free:
            return
        handle = openat2.openat2(self._root, wanted.destination, os.O_PATH, resolve=openat2.RESOLVE_IN_ROOT)
        try:
            there = os.fstatvfs(handle)
        finally:
            os.close(handle)
        options = dict(option.partition("=")[::2] for option in wanted.options)
        limits = ("size", there.f_blocks * there.f_frsize, mmap.PAGESIZE), ("nr_inodes", there.f_files, 1)
        for name, found, step in limits:
            asked, where = number(options.get(name, "")), wanted.destination[:200]
            if asked and not 0 < found < asked + step:
                raise IntegrityError(f"the restored container has {name}={found} at {where!r} instead of {asked}")

    def _is(self, there: Mount, wanted: oci.Mount) -> bool:
        seen = _identity(self._root, wanted.destination)
        if seen != _identity(self._root, there.point):
            return False  # of another mount, below its point
        if wanted.is_bind:
            return seen == _identity_of(Path(wanted.source))
        kind = _KINDS.get(wanted.type, wanted.type)
        own = there.device not in self._outside or not self._has_own(there.kind)
        return there.kind in (kind, wanted.type) and self._is_whole(there) and own

    def _has_own(self, kind: str) -> bool:
        """Whether a container has a filesystem of this kind for itself."""
        if kind in _OF_A_NAMESPACE:
            return _OF_A_NAMESPACE[kind] in self._expected.namespaces
        return kind not in _SHARED

    def _is_whole(self, there: Mount) -> bool:
        """Whether all of a filesystem is mounted; of cgroups, what is the container's: it may have their namespace."""
        if there.kind == "cgroup2" and self._cgroup:
            return there.root == "/" or (cgroups.HIERARCHY / there.root.lstrip("/")).is_relative_to(self._cgroup)
        return there.root == "/"

    def is_seen(self, mount: Mount) -> bool:
        """Whether a mount is what is seen at its point; who may mount can have covered it."""
        try:
            return self._free or self.id_at(self._root, mount.point) == mount.id
        except OSError:
            return False

    def explains(self, mount: Mount) -> bool:
        """Whether a mount can be the container's."""
        path = mount.point
        if mount.id in self._explained:
            return True
        if path in self._expected.masked:
            return self._hides(path)
        if path in self._expected.readonly:
            return self._is_of_the_kernel(mount)
        if path == _CONSOLE:
            own = any(each.device == mount.device for each in self._table.values() if each.id in self._explained)
            return own and mount.kind == "devpts" and os.major(self._at(path).st_rdev) in TERMINALS
        if any(self._comes_along(mount, where, source) for where, source in self._whole):
            return True
        below_cgroups = mount.kind == "cgroup" and path.startswith("/sys/fs/cgroup/") and "ro" in mount.options
        return below_cgroups or (self._free and self._is_own(mount))

    def _at(self, path: str) -> os.stat_result:
        handle = openat2.openat2(self._root, path, os.O_PATH, resolve=openat2.RESOLVE_IN_ROOT)
        try:
            return os.fstat(handle)
        finally:
            os.close(handle)

    def _hides(self, path: str) -> bool:
        """Whether nothing is to be seen there: /dev/null, or an empty directory that stays empty."""
        found = self._at(path)
        if stat.S_ISCHR(found.st_mode):
            return found.st_rdev == _NULL
        handle = openat2.openat2(self._root, path, os.O_RDONLY | os.O_DIRECTORY, resolve=openat2.RESOLVE_IN_ROOT)
        try:
            return os.fstatvfs(handle).f_flag & os.ST_RDONLY != 0 and not os.listdir(handle)  # noqa: PTH208 - a descriptor
        finally:
            os.close(handle)

    def _is_of_the_kernel(self, mount: Mount) -> bool:
        """Whether this is what the kernel has there, and cannot be written to."""
        above = f"/{mount.point.split('/')[1]}"
        return any(
            (each.device, each.kind) == (mount.device, mount.kind)
            and mount.root == mount.point.removeprefix(above)
            and "ro" in mount.options
            for each in self._table.values()
            if each.point == above and each.id in self._explained
        )

    def _comes_along(self, mount: Mount, where: str, source: Path) -> bool:
        """Whether a mount below that of `source` is the one that is there on the host, or a copy of it in memory."""
        path = mount.point
        if not path.startswith(f"{where.rstrip('/')}/"):
            return False
        if mount.kind == "tmpfs" and mount.root == "/" and mount.device not in self._outside:
            return True  # CRIU dumps a tmpfs whole, and makes one anew (tmpfs_dump in criu/filesystems.c)
        try:
            # Its directories may be the container's to write to: no symlink in them leads anywhere.
            with _opened(source) as below:
                there = _identity(below, path[len(where) :].lstrip("/"), openat2.STRICT)
            return _identity(self._root, path) == there
        except OSError:
            return False

    def _is_own(self, mount: Mount) -> bool:
        """Whether who may mount can have made it of what the container has anyway."""
        mine = {each.device for each in self._table.values() if each.id in self._explained}
        made = mount.kind in _MADE and mount.device not in self._outside
        return made or mount.device in mine or mount.kind in _SHARED


@contextmanager
def _opened(directory: Path) -> Iterator[int]:
    handle = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield handle
    finally:
        os.close(handle)


def _identity(root: int, path: str, resolve: int = openat2.RESOLVE_IN_ROOT) -> tuple[int, int]:
    handle = openat2.openat2(root, path, os.O_PATH, resolve=resolve)
    try:
        found = os.fstat(handle)
        return found.st_dev, found.st_ino
    finally:
        os.close(handle)


def _identity_of(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino


def ids(pids: Iterable[int]) -> set[int]:
    """The ids of all mounts in the namespaces of these processes."""
    return {mount.id for pid in pids for mount in mountinfo.mounts(pid)}
