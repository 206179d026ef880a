"""One cgroup for each host, in the cgroup2 hierarchy.

All cgroup2 mounts of a machine show one tree; a cgroup namespace only moves its root. So a host gets a cgroup
of its own first: without one, a container restored on `b` would join the cgroup of its twin on `a`.
cgroup v1 controllers, where the machine has them, are the machine's and are left alone.
"""

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path

from lablib import syscalls
from lablib.layout import LabError

# The first process of a host stays out of the root of its namespace: cgroup2 hands controllers down only
# from a cgroup that holds no process itself ("no internal processes", cgroups(7)).
LEAF = "init"
_ATTEMPTS = 100  # a `lab exec` ends a moment after the command it waits for


def mount(target: str) -> None:
    """Mount the hierarchy, rooted where this process's cgroup namespace is."""
    syscalls.mount("cgroup2", target, "cgroup2", syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC)


def join_new_namespace(scratch: str, name: str, *, leaf: bool = True) -> None:
    """Move this process into cgroup `name` and make that the root of what it sees.

    Without `leaf` it stays at that root: systemd manages the cgroup it is born in, and leaves it by itself.
    `scratch` is a directory to mount on; this process must have mounts of its own.
    """
    mount(scratch)
    group = Path(scratch, name)
    (group / LEAF).mkdir(parents=True, exist_ok=True)
    (group / "cgroup.procs").write_text("0", encoding="ascii")
    syscalls.unshare(syscalls.CLONE_NEWCGROUP)
    if leaf:
        (group / LEAF / "cgroup.procs").write_text("0", encoding="ascii")


def _remove(top: Path) -> None:
    for path, _, _ in os.walk(top, topdown=False):
        for _ in range(_ATTEMPTS):
            try:
                Path(path).rmdir()
                break
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise
                time.sleep(0.02)
        else:
            raise LabError(f"cgroup {path} still has processes in it")


def remove(scratch: str, names: list[str]) -> None:
    """Remove the cgroups `names` and all below them; no process may be left inside."""

    def work() -> None:
        syscalls.private_mounts()
        mount(scratch)
        for name in names:
            _remove(Path(scratch, name))

    in_child(work)


def in_child(work: Callable[[], None]) -> None:
    """Do `work` in a fork, so that this process keeps its own mounts. Raises LabError with the reason it failed."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - whatever it is, the parent reports it
            os.write(writer, str(error).encode()[:4000] or b"failed")
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        words = pipe.read().decode()
    os.waitpid(pid, 0)
    if words:
        raise LabError(words)
