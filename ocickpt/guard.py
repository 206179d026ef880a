"""The guard of a lazy restore: no process sees a page it must not.

It runs CRIU's lazy-pages daemon and the page server.

When CRIU's daemon goes away too early the kernel fills what is missing with zeros. So the guard holds the
page server's end of the socket open as well: a page server that dies leaves CRIU waiting, and the container,
which waits for CRIU, is killed before CRIU is let go. Standard library only: it starts before what it guards.

Guard and page server are started first of all, and load while the restore looks at what it has to do. They are
told by lines of JSON on their stdin. The first is for the page server: what it has to read. The second says that there
is a restore, and where its work directory is; where it does not come, nothing was touched, and they end.

In the work directory the restore writes `CONTAINER` once podman has made it, and `LINK`: where CRIU looks for the
daemon's socket. The guard writes `COMPLETE` or `FAILED` there. Whoever writes the later of `CONTAINER` and `FAILED`
sees the other: then the guard kills the container, or the restore takes it back.

The directory is the restore's, with all that lies in it, until it has written `CONTAINER` and, where it has no journal,
has ended; from then on it is the guard's, which removes it. Up to that nobody but the restore does, or who finds its
journal when it has died; only where there is no journal it is the guard's then.

What `ocickpt status` shows is a file under `STATES`, which guard, page server and restore change in turn; it is gone
when all memory is there, and stays when the container had to be killed.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import socket
import subprocess
import sys
import syslog
from pathlib import Path

from ocickpt import processes

TYPE_CHECKING = False  # `typing` takes as long to load as all else that is used of it here
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

CONTAINER, LINK, LOG = "container", "link", "lazy-pages.log"
COMPLETE, FAILED = "complete", "failed"
SOCKET = "lazy-pages.socket"
STATES = Path("/run/ocickpt/lazy")
_TICK = 0.05
# Loading makes no garbage, and the container waits for it.
_SERVER = (
    "import gc, sys; gc.set_threshold(200_000); sys.path.insert(0, {!r});"
    " from ocickpt import pageserver; sys.exit(pageserver.main(sys.argv[1:]))"
)


def main(argv: list[str]) -> int:
    """Guard the lazy restore that is called ``argv[0]``, if there is to be one, until all its memory has arrived."""
    ours, theirs = socket.socketpair()
    hears, tells = os.pipe()
    server = subprocess.Popen(
        [sys.executable, "-I", "-c", _SERVER.format(str(Path(__file__).parent.parent)), argv[0], str(ours.fileno())],
        stdin=hears, stdout=subprocess.DEVNULL, pass_fds=[ours.fileno()],
    )  # fmt: skip
    os.close(hears)
    for _ in ("what to read", "where to work"):
        line = sys.stdin.buffer.readline()
        with contextlib.suppress(BrokenPipeError):  # it has died, which is seen below
            os.write(tells, line)
    os.close(tells)
    if not line:
        server.kill()
        server.wait()
        return 0
    plan: dict[str, Any] = json.loads(line)
    work = Path(plan["work"])
    starter = processes.opened(*plan["starter"])
    daemon = subprocess.Popen(
        ["criu", "lazy-pages", "--images-dir", str(work / "images"), "--work-dir", str(work), "--log-file", LOG, "-v1",
         "--page-server", "--ps-socket", str(theirs.fileno())],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, pass_fds=[theirs.fileno()],
    )  # fmt: skip
    theirs.close()
    reason = ""
    ended = os.pidfd_open(daemon.pid)
    while daemon.poll() is None and not reason:
        if _is_forsaken(work, plan, starter):
            reason = "the restore was killed"
        elif server.poll() not in (None, 0):
            reason = state_of(work.name).get("error") or f"the page server died (status {server.returncode})"
        else:
            select.select([ended], [], [], _TICK)
    if not reason and daemon.returncode:
        reason = f"CRIU's lazy-pages daemon ended with status {daemon.returncode}"
    if not reason:
        (work / COMPLETE).touch()
    failed = bool(reason) and _kill(work, plan, reason)
    ours.close()
    for process in (daemon, server):
        if process.poll() is None:
            process.kill()
        process.wait()
    if not plan["journal"] and starter >= 0:
        select.select([starter], [], [])  # until it has ended it is at work in the directory
    _clean(work, plan, keep_state=failed)
    return 1 if failed else 0


def state_of(key: str) -> dict[str, Any]:
    """What is known of a lazy restore; nothing when there is none."""
    try:
        state = json.loads((STATES / f"{key}.json").read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def begin_state(key: str, **state: Any) -> None:
    """Have `ocickpt status` show a lazy restore."""
    STATES.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _alone():
        _replace(key, state)


def write_state(key: str, **changes: Any) -> None:
    """Change what `ocickpt status` shows of a lazy restore; what is over stays so."""
    if STATES.exists():
        with _alone():
            if state := state_of(key):
                _replace(key, state | changes)


def forget_state(key: str) -> None:
    """A lazy restore is over."""
    if STATES.exists():
        with _alone():
            (STATES / f"{key}.json").unlink(missing_ok=True)


def is_forsaken(key: str, state: dict[str, Any]) -> bool:
    """Whether a container runs without its guard, and without all of its memory; `state` is what was just read."""
    if state.get("state") != "running" or processes.is_alive(*state["guard"]):
        return False
    # One that came to its end has said so before it ended.
    return not (Path(state["work"]) / COMPLETE).exists() and state_of(key).get("state") == "running"


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """One process at a time reads, changes and writes."""
    directory = os.open(STATES, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        yield
    finally:
        os.close(directory)


def _replace(key: str, state: dict[str, Any]) -> None:
    temporary = STATES / f"{key}.new"
    temporary.write_text(json.dumps(state), "utf-8")
    temporary.rename(STATES / f"{key}.json")


def states() -> list[tuple[Path, dict[str, Any]]]:
    """What is known of each lazy restore, and the file that says so; those that end meanwhile are left out."""
    found = ((path, state_of(path.stem)) for path in STATES.glob("*.json"))
    return [(path, state) for path, state in found if state]


def _is_forsaken(work: Path, plan: dict[str, Any], starter: int) -> bool:
    """Whether who started us died before the container was ours. Where there is a journal, that tells what to do."""
    if plan["journal"] or (work / CONTAINER).exists():
        return False
    return starter < 0 or bool(select.select([starter], [], [], 0)[0])


def _kill(work: Path, plan: dict[str, Any], reason: str) -> bool:
    """Kill the container that would otherwise see zeros, and say so. False when there is none that runs."""
    (work / FAILED).write_text(reason, "utf-8")
    command = plan["kill"]
    if not command and (work / CONTAINER).exists():
        command = ["podman", "kill", "--signal", "KILL", (work / CONTAINER).read_text("ascii").strip()]
    if not command:
        # podman is still making it, and will fail by itself, or the restore will see to it.
        return False
    write_state(work.name, error=reason)  # a checkpoint that waits for the memory holds the lock that podman needs
    told = subprocess.run(command, check=False, stdin=subprocess.DEVNULL, capture_output=True)
    if told.returncode:
        return False
    write_state(work.name, state="failed", error=reason)
    container = state_of(work.name).get("container") or work.name
    syslog.openlog("ocickpt", syslog.LOG_PID, syslog.LOG_DAEMON)
    syslog.syslog(syslog.LOG_ERR, f"killed container {container}, whose memory cannot be completed: {reason}")
    return True


def _clean(work: Path, plan: dict[str, Any], *, keep_state: bool) -> None:
    if not keep_state:
        forget_state(work.name)
    if (work / LINK).exists():
        Path((work / LINK).read_text("utf-8")).unlink(missing_ok=True)
    if (work / CONTAINER).exists() or not plan["journal"]:
        import shutil  # takes long to load

        shutil.rmtree(work, ignore_errors=True)
        with contextlib.suppress(OSError):  # others are in it
            work.parent.rmdir()
        for journal in plan["journal"]:
            Path(journal).unlink(missing_ok=True)
