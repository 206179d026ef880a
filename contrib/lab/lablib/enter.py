"""Runs a command inside a host: `lab exec HOST CMD…`.

Tests call this a thousand times, so it imports nothing that is slow to import and ends in an exec:
the command gets the caller's stdin, stdout and stderr, and the caller gets its exit code.

It also knows what a *running process* is to the lab: a pid together with the time it was started,
since the kernel gives a pid to somebody else as soon as it is free.
"""

# Importing pathlib alone would take longer than everything below.
# ruff: noqa: PTH118, PTH123

import os
import sys
from typing import NoReturn

EX_UNAVAILABLE = 69
NSENTER = "/usr/bin/nsenter"
HOST_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def state_dir() -> str:
    """Where this lab keeps what it must know about its running hosts; gone after `lab down`."""
    return os.path.join("/run/ocickpt-lab", os.environ.get("OCICKPT_LAB_NAME", "lab"))


def start_time(pid: int) -> int | None:
    """When `pid` was started, in clock ticks since boot; None where there is no such process (proc_pid_stat(5))."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stat:
            fields = stat.read().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def record(name: str) -> tuple[int, int, bool] | None:
    """The pid, start time and readiness recorded for host `name`; None where there is no record."""
    try:
        with open(os.path.join(state_dir(), name + ".pid"), encoding="ascii") as file:
            pid, started, ready = file.read().split()
    except (OSError, ValueError):
        return None
    return int(pid), int(started), ready == "ready"


def running(name: str) -> int | None:
    """The pid of the first process of host `name`, as the machine sees it; None unless it is up and ready."""
    found = record(name)
    if found is None or not found[2] or start_time(found[0]) != found[1]:
        return None
    return found[0]


def environment() -> dict[str, str]:
    """What root finds after logging in to a host: nothing of the caller's but the terminal's name."""
    env = {"PATH": HOST_PATH, "HOME": "/root", "USER": "root", "LANG": "C.UTF-8"}
    if "TERM" in os.environ:
        env["TERM"] = os.environ["TERM"]
    return env


def argv(pid: int, command: list[str]) -> list[str]:
    """The nsenter call that runs `command` in all the namespaces of process `pid`, from its root directory."""
    return [NSENTER, f"--target={pid}", "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--",
            *command]  # fmt: skip


def become(pid: int, command: list[str]) -> NoReturn:
    """Replace this process by `command` inside the host whose first process is `pid`."""
    # A cgroup namespace does not move who enters it: without this, conmon would live outside the host.
    with open(f"/proc/{pid}/root/sys/fs/cgroup/init/cgroup.procs", "w", encoding="ascii") as procs:
        procs.write("0")
    os.execve(NSENTER, argv(pid, command), environment())


def main(args: list[str]) -> NoReturn:
    """`lab exec HOST CMD…`"""
    if args[1:2] == ["--"]:
        del args[1]
    if len(args) < 2:
        sys.exit("usage: lab exec HOST CMD [ARG…]")
    pid = running(args[0])
    if pid is None:
        print(f"lab: host {args[0]!r} is not up; `lab up` starts it", file=sys.stderr)
        sys.exit(EX_UNAVAILABLE)
    try:
        become(pid, args[1:])
    except PermissionError:
        sys.exit("lab: entering a host takes root")
