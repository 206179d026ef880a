"""Restoring lazily: the container runs, its memory follows.

What CRIU must have before the first instruction is written as for any restore, into sparse files. For the rest
CRIU's lazy-pages daemon and a page server are started, under a guard, before podman; they stay with the container
when the restore has ended, and end when all has arrived.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ocickpt import config, proc, processes, rendezvous
from ocickpt.engine import cgroups, host
from ocickpt.engine.container import Running
from ocickpt.engine.runtime import table
from ocickpt.engine.runtime.base import Additions
from ocickpt.errors import StorageError
from ocickpt.lazy import states
from ocickpt.log import say
from ocickpt.memory import page_protocol
from ocickpt.model import Progress
from ocickpt.operations.journal import Journal, Restore
from ocickpt.store import Access, Reference

if TYPE_CHECKING:
    from ocickpt.rendezvous import Reading

_ENDING = 10.0
_KILLED = "what brings its memory was killed"


def unsupported(runtime: str, here: host.Host) -> str:
    """Why this runtime cannot restore lazily; nothing when it can."""
    return table.RUNTIMES[runtime].cannot_restore_lazily(lambda: host.runtime_version(runtime), here.criu)


def reading(reference: Reference, access: Access, here: host.Host) -> Reading:
    """What the page server must know to read the memory of the checkpoint at `reference`, a digest.

    A registry that does not answer is asked again for as long as this host is configured to be patient, while
    the container waits.
    """
    return {
        "reference": str(reference),
        "authfile": str(access.authfile.absolute()) if access.authfile else "",
        "tls_verify": access.tls_verify,
        "patience": config.load().patience,
        "wide": page_protocol.is_wide(here.criu),
    }


def arm(runtime: str, bundle: Path, work: Path) -> Additions:
    """Let the runtime, which is about to restore, find CRIU's daemon; what has to be added to its call."""
    link = bundle / rendezvous.SOCKET
    (work / rendezvous.LINK).write_text(str(link), "utf-8")
    link.unlink(missing_ok=True)
    link.symlink_to(work / rendezvous.SOCKET)
    return table.RUNTIMES[runtime].lazily


def accompany(guard_pid: int, conmon: int, bundle: Path) -> None:
    """Have the helpers live with the container, not with whoever called us: in the cgroup of its conmon."""
    try:
        cgroups.join_conmon((guard_pid, *_children(guard_pid)), conmon, bundle)
    except OSError as error:
        say(f"the helpers of a lazy restore stay in the cgroup of who called for it: {error}", error=True, quiet=True)


def settle(journal: Journal[Restore], subject: Running) -> None:
    """The container runs: the helpers live with it from now on, and so does the journal."""
    record = journal.record
    journal.step("lazy")
    let_go(Path(record.work), subject, record.guard_pid, record.guard_start)


def let_go(work: Path, subject: Running, guard_pid: int, started: int) -> None:
    """From now on the guard lives with the container, answers for it, and cleans up after itself.

    One that had come to its end already does not: `has_arrived` and `trouble` tell.
    """
    accompany(guard_pid, subject.conmon, subject.bundle)
    states.change(
        work.name,
        container=subject.id,
        name=subject.name,
        state="running",
        guard=(guard_pid, started),
        process=(subject.pid, processes.start_time(subject.pid) or 0),
    )
    try:
        (work / rendezvous.CONTAINER).write_text(subject.id, "ascii")
    except OSError as error:
        raise StorageError(f"{error.filename} cannot be written: {error.strerror}") from error


def end_forsaken(progress: Progress) -> None:
    """Kill the containers whose memory nobody watches over any more: what is missing of it would be zeros."""
    for path, state in states.known():
        if not states.is_forsaken(path.stem, state):
            continue
        container, reason = str(state["container"]), str(state.get("error") or _KILLED)
        command = state.get("kill") or ["podman", "kill", "--signal", "KILL", container]
        if processes.is_alive(*state["process"]):  # else it has met a zero, or was started anew
            proc.run(command, check=False)
        leader, start = state["guard"]
        _stop(_started((leader, start), (state["work"], state["helpers"])))
        states.change(path.stem, state="failed", error=reason)
        progress.note(
            f"container {state.get('name') or container!r} was killed, for its memory was not all there: {reason}"
        )


def has_arrived(record: Restore) -> bool:
    """Whether all memory is there and the guard did not know its container yet: nobody has cleaned up after it."""
    work = Path(record.work)
    if not (work / rendezvous.COMPLETE).exists():
        return False
    end = time.monotonic() + _ENDING
    while goes_on(record) and time.monotonic() < end:  # the guard is at its very end
        time.sleep(0.01)
    states.forget(record.key)
    return work.exists()


def goes_on(record: Restore) -> bool:
    """Whether the guard of a lazy restore is at work: what it has started may be so without, which is no good."""
    return processes.is_alive(record.guard_pid, record.guard_start)


def follows(record: Restore) -> bool:
    """Whether a container runs, and its memory is brought as it should be."""
    return record.step == "lazy" and goes_on(record) and was_let_go(record)


def was_let_go(record: Restore) -> bool:
    """Whether the guard knows its container: whoever died at the step "lazy" may not have come to tell it."""
    return (Path(record.work) / rendezvous.CONTAINER).exists()


def failure(record: Restore) -> str:
    """Why the memory of a restored container is neither there nor follows; nothing when all is well."""
    alive = goes_on(record)
    return trouble(Path(record.work), alive=alive) if record.guard_pid else ""


def trouble(work: Path, *, alive: bool) -> str:
    """As `failure`, of the restore in `work`; `alive` says whether its helpers were at work, a moment before."""
    if not work.exists() or (work / rendezvous.COMPLETE).exists():
        return ""  # a guard that has removed the directory knew the container, and answered for it
    if (work / rendezvous.FAILED).exists():
        return (work / rendezvous.FAILED).read_text("utf-8")
    return "" if alive else _KILLED


def stop(record: Restore) -> None:
    """End the helpers of a restore that came to nothing."""
    if record.guard_pid:
        stop_all((record.guard_pid, record.guard_start), Path(record.work), record.key)


def stop_all(leader: tuple[int, int], work: Path, name: str) -> None:
    """End the guard `leader` and what it started for the restore in `work`, and forget what `status` shows of it."""
    _stop([leader, *_started(leader, (str(work), name))])
    states.forget(work.name)


def _stop(helpers: list[tuple[int, int]]) -> None:
    for pid, start in helpers:
        if (handle := processes.opened(pid, start)) >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle, signal.SIGKILL)
            os.close(handle)


def _started(leader: tuple[int, int], names: tuple[str, ...]) -> list[tuple[int, int]]:
    """The page server and CRIU's daemon, and their guard: of the session it began, with one of `names` as argument."""
    found, wanted = [], {os.fsencode(name) for name in names}
    for pid in processes.of_session(*leader):
        start = processes.start_time(pid)
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if start is not None and not wanted.isdisjoint(words):
                found.append((pid, start))
    return found


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()]
    except OSError:
        return []
