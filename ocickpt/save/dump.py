"""The first half of a checkpoint: podman and the runtime dump the container, the shim sets its parts aside.

    begun       the journal is written
    podman      podman is about to work (its pid is known)
    frozen      the shim has asked what to set aside (how to thaw the container is known)
    captured    pages, files and volumes are in the work directory; the container may be killed
    dumped      podman has returned; from here the job can be finished without the container

A step is in the journal before what follows it; `recovery` knows what to do after each. The work
directory lies beside podman's storage, so that pages move by rename, and is on disk: for a moment it
holds the only copy of a stopped container.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ocickpt import proc, processes, rendezvous
from ocickpt.artifact import origin, parts
from ocickpt.artifact.extras import Lost
from ocickpt.artifact.extras import read as read_extras
from ocickpt.description import Options
from ocickpt.engine import bundle, criu, host, podman
from ocickpt.engine.container import Container
from ocickpt.engine.criu import pages
from ocickpt.engine.criu.configuration import ENVIRONMENT
from ocickpt.engine.files import archive
from ocickpt.engine.runtime import table
from ocickpt.errors import CommandError, IntegrityError, NotFoundError, OcickptError, StorageError
from ocickpt.gate import confinement
from ocickpt.gate.extras import give_back
from ocickpt.model import Progress, Stage
from ocickpt.operations import channel, launcher, workdir
from ocickpt.operations.journal import Checkpoint, Journal
from ocickpt.save import unrestorable
from ocickpt.save.extras import take as take_extras
from ocickpt.save.extras import with_content
from ocickpt.versions import numbers

if TYPE_CHECKING:
    from ocickpt.rendezvous import Answer, Asked

_CRIU_FROZEN = (4, 1)
_CONFIGURATION = "criu.conf"
_CRIU_OPTIONS = (f"ghost-limit {(parts.SMALL_LIMIT >> 20) - 1}M",)
"""How much of a deleted file that is open is saved: 1 MiB without. What /etc/criu says comes before this."""
_FULL = "No space left"  # dump.log is on the full disk too, and cut short


@dataclass(frozen=True)
class CheckpointOptions:
    """What `podman container checkpoint` calls by the same names."""

    leave_running: bool = False
    tcp_established: bool = False
    file_locks: bool = False
    ignore_rootfs: bool = False
    ignore_volumes: bool = False


def begin(subject: Container, reference: str, options: CheckpointOptions, progress: Progress) -> Journal[Checkpoint]:
    """The journal of a dump; whatever happens from now on, `settle` must end it."""
    without = _without_shim(subject)
    captured = not without
    if without:
        progress.note(f"{without}: podman's own archive is used, which is slower")
    return Journal.begin(
        Checkpoint(
            key=subject.id,
            container=subject.id,
            name=subject.name,
            reference=reference,
            work=str(rendezvous.work_directory(subject.graph_root, subject.id)),
            image_path=str(subject.image_path),
            started=subject.started,
            captured=captured,
            lowers=tuple(str(layer) for layer in subject.lowers) if captured else (),
            image_digest=subject.image_digest,
            runtime=subject.runtime,
            options=Options(
                leave_running=options.leave_running,
                tcp_established=options.tcp_established,
                file_locks=options.file_locks,
                rootfs=not options.ignore_rootfs,
                volumes=not options.ignore_volumes,
            ),
            origin=origin.here(subject.runtime),
            links=bundle.bind_symlinks(subject.bundle, subject.pid),
        )
    )


def dump(subject: Container, options: CheckpointOptions, journal: Journal[Checkpoint], progress: Progress) -> None:
    """Dump `subject`, up to the step "dumped"."""
    work = workdir.make(Path(journal.record.work))
    workdir.check_space(work, subject.shm)
    progress.stage(Stage.DUMPING)
    for each in _run_podman(subject, options, journal, work):
        progress.note(str(each))
    journal.step("dumped")
    if not options.leave_running:
        pages.put_back(work, subject.image_path)


def settle(journal: Journal[Checkpoint]) -> bool:
    """Bring a dump that broke off to one of its two ends; True when podman had got to its own.

    Then all parts are whole and the journal stands at "dumped", else the container runs on as if
    nothing had been, and the dump is forgotten.
    """
    record = journal.record
    channel.end(record)
    if not record.options.leave_running and not _goes_on(record) and is_whole(record):
        keep(journal, record.reason)
        return True
    undo(journal)
    return False


def _goes_on(record: Checkpoint) -> bool:
    """Whether the container runs on from where it was: it never stopped, or was restored."""
    subject = podman.container_or_none(record.container)
    return bool(subject and subject.status == "running" and (subject.started == record.started or subject.restored))


def undo(journal: Journal[Checkpoint]) -> None:
    """Make a container whose dump led to nothing run again, and forget the dump.

    StorageError when it cannot be: podman has removed it (--rm) or started it anew. Then its dump is kept, for the
    same command to publish it. When a bind mount's source is not what it was, and CommandError when the restore fails,
    the dump is kept too, and the next call tries again.
    """
    record = journal.record
    channel.end(record)
    pages.put_back(Path(record.work), Path(record.image_path))
    subject = podman.container_or_none(record.container)
    if record.options.leave_running or _goes_on(record):
        if record.thaw:
            proc.run(record.thaw, check=False)
        _clear_images(record)
    elif subject and subject.status != "running" and (subject.image_path / "inventory.img").exists():
        mountpoints = [
            each.read_bytes() for each in subject.image_path.iterdir() if confinement.MOUNTS.fullmatch(each.name)
        ]
        bundle.resolve_bind_sources(subject.bundle, record.links)  # podman has the runtime restore what stands there
        podman.restore_in_place(subject, record.options.replayed, _connected(subject, record))
        with suppress(NotFoundError):  # it runs, or has ended since
            again = podman.container(subject.id).running
            confinement.complete(again, mountpoints)
            give_back(again, read_extras(Path(record.work)), frozenset({subject.name, subject.id[:12]}))
    elif is_whole(record):
        keep(journal, record.reason)
        gone = "removed it (--rm)" if subject is None else "started it anew"
        raise StorageError(f"container {record.name!r} cannot run on, for podman has {gone}")
    discard(journal)


def _connected(subject: Container, record: Checkpoint) -> dict[str, str]:
    """The environment in which the connections of a container are restored (`Runtime.connected`)."""
    spec = confinement.specification(subject.bundle) if record.options.tcp_established else None
    more = table.RUNTIMES[record.runtime].connected(spec).criu if spec else ()
    with suppress(OSError):  # on a full disk: most connections come back without
        if more:
            return criu.configure(Path(record.work) / _CONFIGURATION, os.environ.get(ENVIRONMENT, ""), more)
    return {}


def _clear_images(record: Checkpoint) -> None:
    """Remove CRIU's images of a container that runs: nobody may restore it from them."""
    if record.image_path.endswith("/checkpoint"):
        pages.clear(Path(record.image_path))


def keep(journal: Journal[Checkpoint], reason: str) -> None:
    """Leave a dump that is whole for the next `ocickpt checkpoint` of its container, and for podman's own restore."""
    journal.step("dumped", reason=reason)
    pages.put_back(Path(journal.record.work), Path(journal.record.image_path))
    journal.leave()


def forget(journal: Journal[Checkpoint]) -> None:
    """Give up what a checkpoint that died has made, at whatever step: the container is podman's, as it stands."""
    record = journal.record
    channel.end(record)
    pages.put_back(Path(record.work), Path(record.image_path))
    if record.thaw:
        proc.run(record.thaw, check=False)
    discard(journal)


def discard(journal: Journal[Checkpoint]) -> None:
    """Forget a dump: its work directory and its journal go."""
    record = journal.record
    if record.options.leave_running:
        _clear_images(record)
    workdir.remove(Path(record.work))
    journal.close()


def is_whole(record: Checkpoint) -> bool:
    """Whether podman's export came to its end, and the shim's part beside it."""
    if record.captured and not (Path(record.work) / rendezvous.CAPTURED).exists():
        return False
    try:
        return all(True for _ in archive.members(Path(record.work) / rendezvous.EXPORT))
    except (IntegrityError, StorageError):
        return False


def _without_shim(subject: Container) -> str:
    """Why podman's own archive must be used; empty when the shim is at hand."""
    if not subject.upper:
        return f"with storage driver {subject.driver!r}"
    if not subject.pausable:
        return "a container without a cgroup of its own cannot be frozen"
    if numbers(host.criu_version()) < _CRIU_FROZEN:
        return "this host's CRIU cannot dump a frozen container"
    if not launcher.installed(subject.runtime):
        return "the runtime shim is not set up (`ocickpt setup`)"
    return ""


def _run_podman(subject: Container, options: CheckpointOptions, journal: Journal[Checkpoint], work: Path) -> list[Lost]:
    """What of the container nothing can give back."""
    captured, lost = journal.record.captured, list[Lost]()
    if not captured:  # nobody tells when it stands still
        lost.extend(take_extras(subject, work).lost)
    flags = {
        "--leave-running": options.leave_running,
        "--tcp-established": options.tcp_established,
        "--file-locks": options.file_locks,
        "--ignore-rootfs": options.ignore_rootfs or captured,
        "--ignore-volumes": options.ignore_volumes or captured,
    }
    plan: Answer = {"ok": True, "environment": criu.configure(work / _CONFIGURATION, "", _CRIU_OPTIONS)}
    if captured:
        # Killed while its connections are alive, a container would reset them; CRIU ends it silently.
        plan["aside"], plan["pid"] = str(work), subject.pid
        plan["kill"] = subject.private_pids and not options.tcp_established
        plan["trees"] = []
        if not options.ignore_rootfs:
            plan["trees"].append([str(subject.upper), str(work / "rootfs"), str(subject.merged)])
        if not options.ignore_volumes:
            (work / "volumes").mkdir(mode=0o700)
            plan["trees"] += [
                [str(volume.source), str(work / "volumes" / volume.name)] for volume in with_content(subject)
            ]
        if options.leave_running and subject.shm.is_mount():
            # podman takes it too, but only after the runtime has let the container run on.
            plan["trees"].append([str(subject.shm), str(work / parts.SHM)])

    def answer(message: Asked) -> Answer:
        if message.get("event") == "checkpoint" and message.get("image_path") == str(subject.image_path):
            journal.step("frozen", thaw=tuple(message["resume"]))
            return plan
        if message.get("event") == "captured" and not message.get("error"):
            workdir.check_space(work, subject.shm, subject.image_path)
            unrestorable.check_again(subject)
            lost.extend(take_extras(subject, work).lost)
            journal.step("captured")
            return {"ok": True}
        raise StorageError(
            f"container {subject.name!r} could not be captured: {message.get('error')}", hint=message.get("hint", "")
        )

    with channel.opened(subject.id) as op:
        command = podman.checkpoint_command(
            subject, work / rendezvous.EXPORT, [flag for flag, on in flags.items() if on]
        )
        journal.step("podman", podman_pid=command.pid, podman_start=processes.start_time(command.pid) or 0)
        command.go()
        result = op.serve(command, answer)
    if result.returncode:
        raise _explain(subject, result)
    if captured and not (work / rendezvous.CAPTURED).exists():
        raise CommandError(
            "podman did not call the runtime through the shim, so the container's files were not captured",
            hint="`ocickpt doctor` tells what is wrong with the shim",
        )
    return lost


def _explain(subject: Container, result: proc.Result) -> OcickptError:
    log = subject.bundle / "dump.log"
    reasons = criu.log_errors(log)
    if any(_FULL in text for text in (*reasons, result.stderr)):
        return StorageError(
            f"there is no space left on the filesystem of {subject.graph_root} to dump container {subject.name!r}",
            hint="`df -h` shows which disk is full; free some space",
        )
    if not reasons:
        return result.failure("podman container checkpoint")
    what, said = f"CRIU cannot dump container {subject.name!r}", "; ".join(reasons)
    if known := criu.explain(reasons, subject.runtime):
        hint = f"{known.hint}; " if known.hint else ""
        return CommandError(f"{what}: {known.sentence}", hint=f"{hint}{log} has CRIU's words")
    return CommandError(f"{what}: {said}", hint=f"{log} has the details")
