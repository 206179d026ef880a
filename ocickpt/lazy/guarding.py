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

`states` has what `ocickpt status` shows of it. What is named in capitals here stands in `rendezvous`.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import subprocess
import sys
import syslog
from pathlib import Path

from ocickpt import processes, rendezvous
from ocickpt.lazy import states

TYPE_CHECKING = False  # `typing` takes as long to load as all else that is used of it here
if TYPE_CHECKING:
    from ocickpt.rendezvous import Guarded

_TICK = 0.05
# Loading makes no garbage, and the container waits for it.
_SERVER = (
    "import gc, sys; gc.set_threshold(200_000); sys.path.insert(0, {!r});"
    " from ocickpt import pageserver; sys.exit(pageserver.main(sys.argv[1:]))"
)


def guard(name: str) -> int:
    """Guard the lazy restore that is called `name`, if there is to be one, until all its memory has arrived."""
    ours, theirs = socket.socketpair()
    hears, tells = os.pipe()
    server = subprocess.Popen(
        [sys.executable, "-I", "-c", _SERVER.format(str(rendezvous.PACKAGE.parent)), name, str(ours.fileno())],
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
    plan: Guarded = json.loads(line)
    work = Path(plan["work"])
    starter = processes.opened(*plan["starter"])
    daemon = subprocess.Popen(
        ["criu", "lazy-pages", "--images-dir", str(work / "images"), "--work-dir", str(work),
         "--log-file", rendezvous.LOG, "-v1", "--page-server", "--ps-socket", str(theirs.fileno())],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, pass_fds=[theirs.fileno()],
    )  # fmt: skip
    theirs.close()
    reason = ""
    ended = os.pidfd_open(daemon.pid)
    while daemon.poll() is None and not reason:
        if _is_forsaken(work, plan, starter):
            reason = "the restore was killed"
        elif server.poll() not in (None, 0):
            reason = states.read(work.name).get("error") or f"the page server died (status {server.returncode})"
        else:
            select.select([ended], [], [], _TICK)
    if not reason and daemon.returncode:
        reason = f"CRIU's lazy-pages daemon ended with status {daemon.returncode}"
    if not reason:
        (work / rendezvous.COMPLETE).touch()
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


def _is_forsaken(work: Path, plan: Guarded, starter: int) -> bool:
    """Whether who started us died before the container was ours. Where there is a journal, that tells what to do."""
    if plan["journal"] or (work / rendezvous.CONTAINER).exists():
        return False
    return starter < 0 or bool(select.select([starter], [], [], 0)[0])


def _kill(work: Path, plan: Guarded, reason: str) -> bool:
    """Kill the container that would otherwise see zeros, and say so. False when there is none that runs."""
    (work / rendezvous.FAILED).write_text(reason, "utf-8")
    command = plan["kill"]
    if not command and (work / rendezvous.CONTAINER).exists():
        command = ["podman", "kill", "--signal", "KILL", (work / rendezvous.CONTAINER).read_text("ascii").strip()]
    if not command:
        # podman is still making it, and will fail by itself, or the restore will see to it.
        return False
    states.change(work.name, error=reason)  # a checkpoint that waits for the memory holds the lock that podman needs
    told = subprocess.run(command, check=False, stdin=subprocess.DEVNULL, capture_output=True)
    if told.returncode:
        return False
    states.change(work.name, state="failed", error=reason)
    container = states.read(work.name).get("container") or work.name
    syslog.openlog("ocickpt", syslog.LOG_PID, syslog.LOG_DAEMON)
    syslog.syslog(syslog.LOG_ERR, f"killed container {container}, whose memory cannot be completed: {reason}")
    return True


def _clean(work: Path, plan: Guarded, *, keep_state: bool) -> None:
    if not keep_state:
        states.forget(work.name)
    if (work / rendezvous.LINK).exists():
        Path((work / rendezvous.LINK).read_text("utf-8")).unlink(missing_ok=True)
    if (work / rendezvous.CONTAINER).exists() or not plan["journal"]:
        import shutil  # takes long to load

        shutil.rmtree(work, ignore_errors=True)
        with contextlib.suppress(OSError):  # others are in it
            work.parent.rmdir()
        for journal in plan["journal"]:
            Path(journal).unlink(missing_ok=True)
