"""What can only be changed from inside a container's namespaces: flags of its mounts, settings of its network.

Of the directories that crun masks with one and the same directory of the host, CRIU 4.2 leaves one writable, and
the network namespace that podman makes anew has none of the settings that the container had (podman's own
restore does the same). Entering a namespace takes a process of its own; this module is that process, too.
Standard library only.

    python3 namespaces.py mounts PID FLAGS:PATH…
    python3 namespaces.py sysctls PID NAME=VALUE…

See proc_pid_mountinfo(5), mount(2) under "Remounting an existing mount", setns(2).
"""

from __future__ import annotations

import ctypes
import os
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

FLAGS = {"ro": 1, "nosuid": 2, "nodev": 4, "noexec": 8}
"""The flags that take something away, as mountinfo and mount(2) call them."""
_OTHERS = {"nosymfollow": 256, "noatime": 1 << 10, "nodiratime": 1 << 11, "relatime": 1 << 21}
_REMOUNT, _BIND = 1 << 5, 1 << 12
_NEW_MOUNTS, _NEW_NETWORK = 0x20000, 0x40000000
_ESCAPE = re.compile(r"\\([0-7]{3})")
_NETWORK = re.compile(r"net(\.[A-Za-z0-9_-]+)+")


def loose(pid: int, wanted: Mapping[str, int], proc: Path = Path("/proc")) -> dict[str, int]:
    """Mount points of process `pid` that lack flags `wanted` for them: path → all flags it should have.

    Raises OSError when there is no such process.
    """
    found: dict[str, int] = {}
    for line in (proc / str(pid) / "mountinfo").read_text("utf-8", "surrogateescape").splitlines():
        words = line.split(" ")
        path = _ESCAPE.sub(lambda escape: chr(int(escape[1], 8)), words[4])
        known = FLAGS | _OTHERS
        found[path] = sum(known[word] for word in words[5].split(",") if word in known)
    return {path: flags | wanted[path] for path, flags in found.items() if path in wanted and wanted[path] & ~flags}


def remount(pid: int, flags: Mapping[str, int]) -> list[str]:
    """The command that gives the mount points of process `pid` these flags."""
    return _command("mounts", pid, (f"{value}:{path}" for path, value in flags.items()))


def set_sysctls(pid: int, values: Mapping[str, str], proc: Path = Path("/proc")) -> list[str]:
    """The command that sets those of `values` that are of a network; empty when there are none, or it is the host's.

    Raises OSError when there is no such process.
    """
    ours = {name: value for name, value in values.items() if _NETWORK.fullmatch(name)}
    if not ours or (proc / str(pid) / "ns/net").readlink() == (proc / "self/ns/net").readlink():
        return []
    return _command("sysctls", pid, (f"{name}={value}" for name, value in ours.items()))


def _command(verb: str, pid: int, arguments: Iterable[str]) -> list[str]:
    return [sys.executable, "-I", "-S", __file__, verb, str(pid), *arguments]


def main(argv: list[str]) -> None:
    """Enter a namespace of process ``argv[1]``, and change what ``argv[2:]`` say; OSError when that fails."""
    verb, pid, *arguments = argv
    libc = ctypes.CDLL(None, use_errno=True)

    def check(status: int, path: str) -> None:
        if status:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), path)

    def enter(name: str, kind: int) -> None:
        path = f"/proc/{int(pid)}/ns/{name}"
        check(libc.setns(os.open(path, os.O_RDONLY | os.O_CLOEXEC), kind), path)

    if verb == "sysctls":
        enter("net", _NEW_NETWORK)
        for argument in arguments:
            name, _, setting = argument.partition("=")
            Path("/proc/sys", *name.split(".")).write_text(setting)
        return
    enter("mnt", _NEW_MOUNTS)
    for argument in arguments:
        flags, _, path = argument.partition(":")
        value = ctypes.c_ulong(int(flags) | _REMOUNT | _BIND)
        check(libc.mount(None, os.fsencode(path), None, value, None), path)


if __name__ == "__main__":
    main(sys.argv[1:])
