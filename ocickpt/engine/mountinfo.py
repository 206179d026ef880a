"""The mounts of a process (proc_pid_mountinfo(5)), and which of them a file is on."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_ESCAPE = re.compile(r"\\([0-7]{3})")
_ID = re.compile(rb"^mnt_id:\s*(\d+)", re.MULTILINE)


class Mount(NamedTuple):
    """A line of mountinfo."""

    id: int
    """No two mounts of a host have the same, in whatever namespaces they are."""
    device: int
    """As st_dev is."""
    root: str
    """What of the filesystem is mounted."""
    point: str
    """Where it is mounted, as the process sees it."""
    options: tuple[str, ...]
    kind: str
    """The type of the filesystem."""


def mounts(pid: int | str = "self", proc: Path = Path("/proc")) -> Iterator[Mount]:
    """The mounts that a process sees; OSError when there is no such process."""
    text = (proc / str(pid) / "mountinfo").read_text("utf-8", "surrogateescape")
    # The kernel escapes newlines only; what else Python takes for the end of a line can be in a name.
    for line in text.split("\n")[:-1]:
        fields = line.split(" ")
        major, _, minor = fields[2].partition(":")
        device, kind = os.makedev(int(major), int(minor)), fields[fields.index("-", 6) + 1]
        yield Mount(int(fields[0]), device, _plain(fields[3]), _plain(fields[4]), tuple(fields[5].split(",")), kind)


def id_of(handle: int, process: int | str = "self", proc: Path = Path("/proc")) -> int:
    """On which mount the file is that a process has open; mounts of the kernel's own are in no process's list."""
    found = _ID.search((proc / str(process) / "fdinfo" / str(handle)).read_bytes())
    return int(found[1]) if found else 0


def _plain(text: str) -> str:
    return _ESCAPE.sub(lambda escape: chr(int(escape[1], 8)), text)
