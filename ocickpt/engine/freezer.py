"""A tree of processes made to stand still, in a cgroup of the unified hierarchy, and let go again (cgroups(7)).

Standard library only: the shim loads this.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from ocickpt.engine import cgroups

_PATIENCE = 5.0
_TICK = 0.0005


def tree(first: int) -> list[int]:
    """The processes from `first` down, that first; zombies are not among them."""
    found, waiting = list[int](), [first]
    while waiting:
        pid = waiting.pop()
        if _is_zombie(pid):
            continue
        found.append(pid)
        for path in Path(f"/proc/{pid}/task").glob("*/children"):
            with contextlib.suppress(OSError):  # the thread has ended
                waiting += map(int, path.read_text("ascii").split())
    return found


def freeze(pids: Iterable[int], place: Path) -> None:
    """Have the processes `pids`, which do not change meanwhile, stand still in the cgroup `place`, alone.

    It is made if it is not there. Who holds them by ptrace goes to the caller's own cgroup, and what that has started;
    whoever else is in it to an `apart` one below that. OSError when that is impossible.
    """
    place.mkdir(parents=True, exist_ok=True)
    wanted, own = set(pids), cgroups.of(os.getpid())
    for pid in wanted:
        if not is_in(pid, place):
            (place / "cgroup.procs").write_text(str(pid), "ascii")
    holders = {tracer(pid) for pid in wanted}
    for pid in set(_members(place)) - wanted:
        home = own if holders & {pid, _parent(pid), _parent(_parent(pid))} else apart(own)
        home.mkdir(exist_ok=True)
        with contextlib.suppress(ProcessLookupError):
            (home / "cgroup.procs").write_text(str(pid), "ascii")
    (place / "cgroup.freeze").write_text("1", "ascii")
    _wait(place)


def set_apart(pid: int) -> None:
    """Have a process in the caller's own cgroup. OSError when that is impossible.

    Also where it is there already: for some 20 ms the next to be moved does not wait for a grace period of RCU, as
    the first does (cgroup_attach_lock in kernel/cgroup/cgroup.c; rcu_sync).
    """
    (cgroups.of(os.getpid()) / "cgroup.procs").write_text(str(pid), "ascii")


def wait(first: int) -> None:
    """Wait until the processes from `first` down stand still, which ``crun pause`` does not. OSError when they do not.

    Where there is no unified hierarchy there is nothing to wait for by.
    """
    places = set[Path]()
    for pid in tree(first):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended before it stood still
            places.add(cgroups.of(pid))
    for place in places:
        if (place / "cgroup.freeze").exists():
            _wait(place)


def _wait(place: Path) -> None:
    end = time.monotonic() + _PATIENCE
    while "frozen 1" not in (place / "cgroup.events").read_text("ascii"):
        if time.monotonic() > end:
            raise TimeoutError(f"the processes in {place} do not stand still")
        time.sleep(_TICK)


def is_in(pid: int, place: Path) -> bool:
    """Whether a process is in a cgroup, or in one below it."""
    return cgroups.of(pid).is_relative_to(place)


def apart(own: Path | None = None) -> Path:
    """A cgroup below the caller's `own`, for who is none of the frozen and none of the caller's.

    Under systemd crun has a process in the container's cgroup that, once CRIU has restored, goes to the cgroup above
    its own, wherever that is by then, and kills who is left in that (src/libcrun/container.c, restore_proxy_process).
    """
    return (own or cgroups.of(os.getpid())) / f"ocickpt-{os.getpid()}"


def tracer(pid: int) -> int:
    """Who holds a process by ptrace(2); 0 without."""
    return _status(pid, b"TracerPid")


def _parent(pid: int) -> int:
    return _status(pid, b"PPid")


def _status(pid: int, name: bytes) -> int:
    try:
        text = Path(f"/proc/{pid}/status").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return int(text.partition(b"\n" + name + b":\t")[2].partition(b"\n")[0])


def thaw(place: Path) -> None:
    """Let them go on."""
    (place / "cgroup.freeze").write_text("0", "ascii")


def kill(pids: Iterable[int]) -> None:
    """End them, whatever they stand still for, and then who holds them by ptrace.

    A dead process is gone when its tracer has waited for it: CRIU waits for the first alone, that for all others.
    """
    ended = list(pids)
    holders = {tracer(pid) for pid in ended} - {0, *ended}
    for pid in (*ended, *holders):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _members(place: Path) -> Iterator[int]:
    """Whoever is in a cgroup or below it."""
    for path in place.rglob("cgroup.procs"):
        yield from map(int, path.read_text("ascii").split())


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2][:1] in (b"Z", b"X")
    except OSError:
        return True
