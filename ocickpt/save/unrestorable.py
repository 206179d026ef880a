"""What no restore can bring back: one list, asked while the container runs; some of it again when it stands still.

A row is a question to what there is to know of a container, and what is said where it has an answer. After the rows
podman's records of the container are read as a restore will read them, so that what would be refused then is refused
now. It must not know how a dump is made.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ocickpt import oci
from ocickpt.artifact import origin, parts
from ocickpt.engine import criu, freezer, mountinfo
from ocickpt.engine.container import Container
from ocickpt.engine.podman import config as libpod
from ocickpt.engine.podman import database
from ocickpt.engine.podman.imported import import_config
from ocickpt.engine.podman.volumes import VolumeOptions
from ocickpt.engine.runtime import table
from ocickpt.errors import IntegrityError, StorageError, UnsupportedError
from ocickpt.gate import confinement
from ocickpt.gate.expected import Expected
from ocickpt.save import labels

_DELETED = " (deleted)"
_IO_URING = "anon_inode:[io_uring]"
_BY_PATH = "ns:"
_RUNS_ON = "nothing was done to it: it runs on"
_WHERE = "/proc/{}/fd"
_BLOCK = 512
"""The unit of st_blocks."""
_ENDED = (errno.ENOENT, errno.ESRCH, errno.EINVAL)
"""What /proc says of descriptors that are closed meanwhile, and of processes that end (EINVAL of their mounts)."""


@dataclass(frozen=True)
class Seen:
    """What is known of a container before it is dumped."""

    container: Container
    spec: oci.Bundle
    """What its runtime was given."""
    record: libpod.Record | None
    """podman's configuration of it; None where podman keeps it in no database that is read here (BoltDB)."""
    processes: tuple[int, ...]
    """Those that would be dumped; none where they have been."""


Question = Callable[[Seen], str | bool]
Row = tuple[Question, str]
"""Who asks, and what is said; ``{}`` is the answer."""


def check(container: Container) -> None:
    """Ask all of a container that runs. UnsupportedError, PrerequisiteError."""
    try:
        config = database.configuration(container.bundle)
    except (StorageError, UnsupportedError):
        config = b""
    check_recorded(container, config, processes=True)
    labels.check_kept(container.name, container.bundle)


def check_recorded(container: Container, config: bytes, *, processes: bool) -> None:
    """The same of one whose `config` podman has on record, and of its `processes` if they are there yet."""
    record = origin.configuration(config) if config else None
    there = tuple(freezer.tree(container.pid)) if processes and container.pid else ()
    hint = _RUNS_ON if processes else ""
    _ask(ROWS, Seen(container, confinement.specification(container.bundle), record, there), hint)
    volumes = database.volume_options(container)
    for each in volumes:
        if each.has_password:
            raise UnsupportedError(
                f"container {container.name!r} has the volume {each.name!r}, whose options hold a password: it would be"
                " in the checkpoint for all to read",
                hint="an option like credentials=FILE names a file that has it",
            )
    if record:
        _rehearse(container, record, volumes, hint)


def check_again(container: Container) -> None:
    """Ask a container that stands still what may have changed since it was asked, and what CRIU dumps all the same."""
    there = tuple(freezer.tree(container.pid)) if container.pid else ()
    _ask(AGAIN, Seen(container, confinement.specification(container.bundle), None, there), "")


def _ask(rows: Iterable[Row], seen: Seen, hint: str) -> None:
    for question, sentence in rows:
        if found := question(seen):
            raise UnsupportedError(f"container {seen.container.name!r} {sentence.format(found)}", hint=hint)


def _rehearse(container: Container, record: libpod.Record, volumes: tuple[VolumeOptions, ...], hint: str) -> None:
    """Read podman's records as a restore will."""
    path = container.bundle / "config.json"
    try:
        root = container.graph_root
        import_config(record, origin.specification(path.read_bytes()), root, root / "volumes").making(volumes)
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}") from error
    except (UnsupportedError, IntegrityError) as error:
        raise UnsupportedError(
            f"no restore would take container {container.name!r}: {error.message}", hint=hint
        ) from error


def _overlays(seen: Seen) -> str:
    mounted = (mount.destination for mount in seen.spec.mounts if mount.type == "overlay")
    return ", ".join(dict.fromkeys((*seen.container.elsewhere, *mounted)))


def _other_driver(seen: Seen) -> str:
    return "" if seen.container.upper or _root(seen) else seen.container.driver


def _root(seen: Seen) -> str:
    return seen.record.beyond.rootfs if seen.record else ""


def _subpath(seen: Seen) -> str:
    volumes = seen.record.config.named_volumes if seen.record else ()
    return next((f"{each.sub_path} of the volume {each.name}" for each in volumes if each.sub_path), "")


def _network(seen: Seen) -> str:
    mode = seen.record.config.network_mode if seen.record else ""
    made = seen.record is None or seen.record.config.create_net_ns
    paths = [each.path for each in seen.spec.linux.namespaces if each.type == "network" and each.path]
    return mode.removeprefix(_BY_PATH) if mode.startswith(_BY_PATH) else "".join(() if made else paths[:1])


def _writes_cgroups(seen: Seen) -> str:
    """`gate.cgroups` refuses that: there would be no cgroup namespace, and its cgroups would be the host's."""
    expected, runtime = Expected.of(seen.spec), seen.container.runtime
    writable = any(each.type in ("cgroup", "cgroup2") and "ro" not in each.options for each in seen.spec.mounts)
    if not writable or "cgroup" not in expected.namespaces or expected.may("SYS_ADMIN"):
        return ""
    return str(criu.configuration.place(runtime)) if criu.ignores_cgroups(runtime) else ""


def _traced(seen: Seen) -> str:
    holders = ((pid, freezer.tracer(pid)) for pid in seen.processes)
    return next((f"{_called(pid)} is traced by {_called(holder)}" for pid, holder in holders if holder), "")


def _io_uring(seen: Seen) -> str:
    return next((_called(pid) for pid, _, link in _open(seen) if link == _IO_URING), "")


def _deleted_read_only(seen: Seen) -> str:
    """A file that CRIU would have to make again where the container may not write: `gate.paths` refuses that."""
    mounts: dict[int, bool] = {}
    for pid, name, link in _open(seen):
        if not link.endswith(_DELETED) or not link.startswith("/"):
            continue
        try:
            if not mounts:
                mounts = {mount.id: "ro" in mount.options for mount in mountinfo.mounts(pid)}
            if mounts.get(mountinfo.id_of(int(name), pid)):
                return f"{_called(pid)} has {link.removesuffix(_DELETED)} open"
        except OSError as error:
            if error.errno not in _ENDED:
                raise
    return ""


def _ghost(seen: Seen) -> str:
    """A deleted file larger than a restore takes: /etc/criu may have CRIU save any."""
    ghosts = (each for pid in seen.processes for each in _ghosts(pid))
    return next((path for path, size in ghosts if size > parts.SMALL_LIMIT), "")


def _ghosts(pid: int) -> Iterator[tuple[str, int]]:
    """The deleted files that a process has open or mapped, and how much CRIU would save of each (criu/files-reg.c,
    dump_ghost_remap); memory that only looks like one is pages."""
    for kind in ("fd", "map_files"):
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            for name in os.listdir(f"/proc/{pid}/{kind}"):  # noqa: PTH208 - a third of the time
                with suppress(FileNotFoundError):  # closed meanwhile
                    found = os.stat(f"/proc/{pid}/{kind}/{name}")  # noqa: PTH116 - as above
                    if stat.S_ISREG(found.st_mode) and not found.st_nlink and found.st_dev != _memory():
                        path = os.readlink(f"/proc/{pid}/{kind}/{name}")  # noqa: PTH115 - as above
                        yield path.removesuffix(_DELETED), found.st_blocks * _BLOCK


@cache
def _memory() -> int:
    """The device of what the kernel calls memory: of memfd_create(2), System V, and what processes map in common."""
    handle = os.memfd_create("device", os.MFD_CLOEXEC)
    try:
        return os.fstat(handle).st_dev
    finally:
        os.close(handle)


def _holes(seen: Seen) -> str:
    """Files in /dev/shm that fit with their holes: podman's archive of it has zeros for holes, and unpacks them."""
    shm = seen.container.shm
    if not shm.is_mount():
        return ""
    size = os.statvfs(shm).f_blocks * os.statvfs(shm).f_frsize
    apparent = 0
    for _, _, names, directory in os.fwalk(shm):
        for name in names:
            try:
                status = os.stat(name, dir_fd=directory, follow_symlinks=False)
            except FileNotFoundError:
                continue  # removed meanwhile
            if stat.S_ISREG(status.st_mode) and status.st_nlink:  # 0 of one that is removed just now
                apparent += status.st_size // status.st_nlink
    return f"{apparent} bytes long with their holes, more than the {size} bytes" if apparent > size else ""


def _open(seen: Seen) -> Iterator[tuple[int, str, str]]:
    """What each process has open: (pid, number of the descriptor, what the kernel says of it)."""
    for pid in seen.processes:
        try:
            for name in os.listdir(_WHERE.format(pid)):  # noqa: PTH208 - a third of the time
                try:
                    yield pid, name, os.readlink(f"{_WHERE.format(pid)}/{name}")  # noqa: PTH115 - as above
                except FileNotFoundError:
                    continue  # closed meanwhile
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended meanwhile


def _called(pid: int) -> str:
    """A process as its user knows it."""
    try:
        return f"process {pid} ({Path(f'/proc/{pid}/comm').read_text('utf-8', 'replace').strip()})"
    except OSError:
        return f"process {pid}"


AGAIN: tuple[Row, ...] = (
    (
        _deleted_read_only,
        "cannot be restored: {}, which is deleted, on a volume that it only reads; CRIU would have to write it there",
    ),
    (_holes, "has files in /dev/shm that are {} it has, and podman restores holes as zeros"),
    (
        _ghost,
        f"has {{}} open, a deleted file of more than {parts.SMALL_LIMIT >> 20} MiB, which no restore would take: the"
        " process has to close it first",
    ),
)
ROWS: tuple[Row, ...] = (
    (lambda seen: seen.container.pod, "is part of a pod, and podman exports no checkpoint of those"),
    (
        lambda seen: bool(seen.container.depends),
        "shares namespaces with another container, and podman exports no checkpoint of those",
    ),
    (
        lambda seen: seen.container.private_users,
        "has a user namespace of its own (--userns), which podman cannot restore",
    ),
    (lambda seen: seen.container.host_ipc, "has the /dev/shm of its host (--ipc=host), which cannot be restored"),
    (
        lambda seen: not seen.container.own_cgroup,
        "has no cgroup of its own (--cgroups=disabled), so nothing can freeze just it",
    ),
    (
        lambda seen: seen.container.runtime not in table.NAMES and seen.container.runtime,
        "runs under {!r}; only " + table.LISTED + " can checkpoint",
    ),
    (_root, "has no image but the directory {} of this host as its root (--rootfs), which is in no checkpoint"),
    (_other_driver, "is kept by the storage driver {!r}; checkpoints of overlay alone can be restored"),
    (_overlays, "has overlay or image volumes, which no checkpoint holds: {}"),
    (_subpath, "mounts only the directory {} (subpath), which podman cannot mount again in a restore"),
    (_network, "is in the network namespace {} of this host (--network ns:), which a restore cannot join"),
    (_writes_cgroups, "may write to its cgroups, which a restore cannot give it: {} has CRIU leave cgroups alone"),
    (_traced, "cannot be dumped: {}, as by a debugger, and a process can be traced only once"),
    (_io_uring, "cannot be dumped: {} uses io_uring, of which CRIU knows nothing"),
    *AGAIN,
)
