"""What the kernel says of processes and their threads, in /proc (proc_pid_status(5), namespaces(7)).

A process that goes away while it is read is a FileNotFoundError or ProcessLookupError, as the kernel has it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

NAMESPACES = {
    "pid": "pid", "network": "net", "ipc": "ipc", "uts": "uts", "mount": "mnt", "user": "user", "cgroup": "cgroup",
    "time": "time",
}  # fmt: skip
"""How /proc calls what the runtime specification names (config-linux.md, "Namespaces")."""
LIMITS = (
    "CPU", "FSIZE", "DATA", "STACK", "CORE", "RSS", "NPROC", "NOFILE", "MEMLOCK", "AS", "LOCKS", "SIGPENDING",
    "MSGQUEUE", "NICE", "RTPRIO", "RTTIME",
)  # fmt: skip
"""In the kernel's order (asm-generic/resource.h)."""
_SHOWN = (
    "cpu time", "file size", "data size", "stack size", "core file size", "resident set", "processes", "open files",
    "locked memory", "address space", "file locks", "pending signals", "msgqueue size", "nice priority",
    "realtime priority", "realtime timeout",
)  # fmt: skip
"""How /proc calls them (fs/proc/base.c)."""
_UNLIMITED = (1 << 64) - 1
_SECCOMP_FILTER = 2


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who a thread is and what it may. Capabilities are masks."""

    uids: frozenset[int]
    """Real, effective, saved and of filesystems."""
    gids: frozenset[int]
    """Likewise, and its groups."""
    inheritable: int
    permitted: int
    effective: int
    bounding: int
    ambient: int
    no_new_privileges: bool


@dataclass(frozen=True, slots=True)
class Thread:
    """A thread; its ids are those of the reader's namespace."""

    id: int
    process: int
    credentials: Credentials
    filtered: bool
    """Whether a seccomp filter is in force."""
    filters: int
    """How many; 0 where the kernel does not say (before Linux 5.9)."""
    inner_id: int
    """Its id in its own pid namespace."""
    ids: tuple[int, ...] = ()
    """Its ids in all pid namespaces that it is in, from the reader's to its own."""

    @property
    def place(self) -> Path:
        """Its directory in /proc."""
        return Path(f"/proc/{self.process}/task/{self.id}")

    def namespaces(self) -> dict[str, int]:
        """The inode of each of its namespaces, by the name the runtime specification has for the kind."""
        return namespaces(self.place)

    def policy(self) -> int:
        """Its scheduling policy (sched(7))."""
        return os.sched_getscheduler(self.id)

    def nice(self) -> int:
        """Its nice value."""
        return os.getpriority(os.PRIO_PROCESS, self.id)


def threads(process: int) -> Iterator[Thread]:
    """The threads of a process, its first first."""
    for name in sorted(os.listdir(f"/proc/{process}/task"), key=int):  # noqa: PTH208 - a third of the time
        yield _thread(process, int(name))


def namespaces(place: Path) -> dict[str, int]:
    """As `Thread.namespaces`, of the directory of a process or thread in /proc."""
    found = {}
    for kind, name in NAMESPACES.items():
        try:
            found[kind] = os.stat(f"{place}/ns/{name}").st_ino  # noqa: PTH116
        except FileNotFoundError:
            if name != "time":  # younger than Linux 5.6
                raise
    return found


def limits(process: int) -> dict[str, tuple[int, int]]:
    """Soft and hard limits of a process, by the names of setrlimit(2) without ``RLIMIT_``."""
    names, found = dict(zip(_SHOWN, LIMITS, strict=True)), {}
    for line in Path(f"/proc/{process}/limits").read_text("ascii").splitlines()[1:]:
        shown = line[len("Max ") : 26].strip()
        found[names[shown]] = _limit(line[26:47].strip()), _limit(line[47:68].strip())
    return found


def _limit(text: str) -> int:
    return _UNLIMITED if text == "unlimited" else int(text)


def _thread(process: int, thread: int) -> Thread:
    text = Path(f"/proc/{process}/task/{thread}/status").read_text("ascii", "replace")
    fields = dict(line.split(":\t", 1) for line in text.split("\n") if ":\t" in line)
    sets = {name: int(fields[f"Cap{name}"], 16) for name in ("Inh", "Prm", "Eff", "Bnd", "Amb")}
    ids = tuple(map(int, fields["NSpid"].split()))
    credentials = Credentials(
        uids=frozenset(map(int, fields["Uid"].split())),
        gids=frozenset(map(int, (*fields["Gid"].split(), *fields["Groups"].split()))),
        inheritable=sets["Inh"],
        permitted=sets["Prm"],
        effective=sets["Eff"],
        bounding=sets["Bnd"],
        ambient=sets["Amb"],
        no_new_privileges=fields.get("NoNewPrivs", "0").strip() == "1",
    )
    return Thread(
        id=thread,
        process=process,
        credentials=credentials,
        filtered=fields.get("Seccomp", "0").strip() == str(_SECCOMP_FILTER),
        filters=int(fields.get("Seccomp_filters", "0")),
        inner_id=ids[-1],
        ids=ids,
    )
