"""What a process is besides its files, as the process itself finds it, on 8080.

`/` tells as JSON what the kernel says of it, and hashes of memory that is shared in several ways. `/call/mkdir` and
`/call/chown` tell whether it can do that, or the number of the error. Where there is a /scratch, it leaves
files there and in /dev/shm.
"""

import hashlib
import json
import mmap
import os
import socket
from collections.abc import Callable
from pathlib import Path

import web  # type: ignore[import-not-found]  # it is in the image

SIZE = 1 << 20
LINES = ("Umask", "Uid", "Gid", "Groups", "Threads", "Cap", "NoNewPrivs", "Seccomp", "SigBlk", "SigIgn", "SigCgt")
UNKNOWN = {"relatime", "nosymfollow"}
"""Flags of mounts that CRIU does not know how to keep."""
SHM, SCRATCH = Path("/dev/shm"), Path("/scratch")


def make(top: Path) -> None:
    """Some files of each kind."""
    (top / "directory").mkdir()
    (top / "directory").chmod(0o1711)
    (top / "file").write_bytes(os.urandom(100_000))
    (top / "file").chmod(0o640)
    os.link(top / "file", top / "directory" / "linked")
    (top / "symlink").symlink_to("/nowhere")
    os.mkfifo(top / "fifo")
    with (top / "sparse").open("wb") as file:
        file.truncate(SIZE)
        file.seek(SIZE // 2)
        file.write(b"after a hole")
    (top / "n\new \udcff").write_text("odd name")
    os.utime(top / "file", ns=(1, 981173106_000000001))
    os.utime(top / "directory", ns=(1, 981173106_000000001))


def shared(descriptor: int) -> mmap.mmap:
    """A mapping of the file with something in it."""
    os.ftruncate(descriptor, SIZE)
    mapping = mmap.mmap(descriptor, SIZE)
    mapping[: SIZE // 2] = os.urandom(SIZE // 2)
    return mapping


def told() -> dict[str, object]:
    """All that should be the same on another host."""
    status = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(LINES)]
    mounts = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return {
        "status": dict(line.split(":\t", 1) for line in status),
        "limits": Path("/proc/self/limits").read_text().splitlines(),
        "mounts": sorted(
            (line[4], sorted({*line[5].split(",")} - UNKNOWN), line[line.index("-") + 1]) for line in mounts
        ),
        "environment": Path("/proc/self/environ").read_bytes().decode().split("\0"),
        "directory": str(Path.cwd()),
        "host name": socket.gethostname(),
        "score": Path("/proc/self/oom_score_adj").read_text(),
        "ports": Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text(),
        "shared": [hashlib.sha256(each).hexdigest() for each in memory],
    }


calls: dict[str, Callable[[], None]] = {
    "mkdir": lambda: Path("/tmp/made").mkdir(),
    "chown": lambda: os.chown("/tmp", 1, 1),
}


def answer(path: str) -> str | None:
    """What `GET path` says."""
    if path == "/":
        return json.dumps(told())
    try:
        calls[path.removeprefix("/call/")]()
    except OSError as error:
        return str(error.errno)
    return "done"


os.umask(0o027)
if SCRATCH.is_dir():
    make(SHM)
    make(SCRATCH)
kept = (SHM / "kept").open("w+b")
gone = (SHM / "gone").open("w+b")
(SHM / "gone").unlink()
memory = [shared(descriptor) for descriptor in (kept.fileno(), gone.fileno(), os.memfd_create("memory"))]
memory.append(mmap.mmap(-1, SIZE))
memory[-1][:5] = b"anony"
web.serve(answer)
