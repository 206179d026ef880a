"""What a restore has made on this host: held to what it should be, or removed, and nothing else with it.

A container is a restore's own when podman names that restore as the command that made it; a volume, when its label
does, or, where podman made it, when that container uses it, or when it was there as the shim kept the runtime from
restoring, and was not before.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ocickpt import names, rendezvous
from ocickpt.engine import podman
from ocickpt.engine.container import Container, Running
from ocickpt.engine.podman import healthcheck
from ocickpt.errors import CommandError, OcickptError
from ocickpt.lazy import attach
from ocickpt.model import Progress
from ocickpt.operations import channel, workdir
from ocickpt.operations.journal import Journal, Restore

IMPORT = "import.tar"
COMPLETE = ("running", "lazy")
"""Steps at which a restore has come to its end."""


def settle(journal: Journal[Restore], progress: Progress, *, keep: bool = False) -> Container | None:
    """Bring a restore that broke off to one of its two ends: the container, whole, or nothing of it.

    With `keep` the journal of a container that is whole stays.
    """
    record = journal.record
    channel.end(record)
    container = _find(record)
    # A lazy restore may have died before it told the guard which container that is, and then the guard has.
    known = record.step in COMPLETE and (attach.was_let_go(record) or not attach.failure(record))
    if container is None or not (known or (_is_whole(container) and not attach.failure(record))):
        take_back(journal)
        return None
    if not known and container.status == "running":
        journal.step("running", container=container.id)
        resume_healthcheck(container.id, record.health_interval, progress)
    if keep and not attach.goes_on(record):
        workdir.remove(Path(record.work))
    else:
        end(journal, container.running)
    return container


def take_back(journal: Journal[Restore], *, failed: bool = False) -> None:
    """Remove what a restore made, and end it; `failed` says that podman has just failed to restore."""
    channel.end(journal.record)
    container = _find(journal.record)
    volumes = _volumes(journal.record, container, failed)
    if container:
        # Before its memory stops coming.
        podman.remove_container(container.id)
        podman.remove_cgroup(container.id)
    attach.stop(journal.record)
    for volume in volumes:
        podman.remove_volume(volume)
    _forget(journal)


@contextmanager
def despite(journal: Journal[Restore], progress: Progress) -> Iterator[None]:
    """What keeps a restore from its end is told, and left for a later call: whoever asks has an error of its own."""
    try:
        yield
    except (OcickptError, OSError) as error:
        journal.leave()
        progress.note(f"the restore of {journal.record.name!r} could not be put right: {error}")


def _find(record: Restore) -> Container | None:
    container = podman.container_or_none(record.container or record.name)
    return container if container and container.created_by == record.created_by else None


def _volumes(record: Restore, container: Container | None, failed: bool) -> list[str]:
    """Those of the volumes a restore makes that it has made, and that are not the user's by now."""
    if container is None and record.step in COMPLETE:
        return []  # the container was removed, as containers are: without their volumes
    made = [name for name in record.made_volumes if podman.volume_labels(name).get(names.LABEL_RESTORE) == record.key]
    by_podman = [name for name in record.volumes if name not in record.made_volumes]
    if container:
        used = {volume.name for volume in container.volumes}
        return [*made, *(name for name in by_podman if name in used)]
    # podman removes the container of --rm as soon as the runtime has failed, but not its volumes.
    refused = Path(record.work) / rendezvous.REFUSED
    if not failed and not refused.exists():
        return made
    last = time.time() if failed else refused.stat().st_mtime
    created = {name: podman.volume_created(name) for name in by_podman}
    return [*made, *(name for name, when in created.items() if when is not None and when <= last)]


def _is_whole(container: Container) -> bool:
    """Whether podman got to the end of its restore: it says that the container runs once it has removed CRIU's images.

    Meanwhile the container may have ended, or podman may have checkpointed it.
    """
    return (
        container.status in ("running", "paused")
        or container.checkpointed
        or (container.status != "created" and not container.image_path.exists())
    )


def resume_healthcheck(container_id: str, interval: str, progress: Progress) -> None:
    """Have podman go on with a container's healthcheck, if it has an `interval`; what is in the way is told."""
    if not interval:
        return
    if not healthcheck.are_run():
        progress.note("podman runs healthchecks by systemd, which this host does not: the container goes without")
        return
    try:
        healthcheck.resume(container_id)
    except OcickptError as error:
        progress.note(f"the container's healthcheck does not go on: {error.message}")


def end(journal: Journal[Restore], container: Running) -> None:
    """End a restore that is complete, but for the memory that may follow."""
    follows = attach.goes_on(journal.record)
    if follows:
        attach.settle(journal, container)
    _leave(journal, follows=follows)


def finish(journal: Journal[Restore], container: Running, progress: Progress) -> None:
    """As `end`, for who has restored it.

    CommandError, and nothing of it is left, when its memory does not follow after all.
    """
    follows = attach.goes_on(journal.record)
    if follows:
        attach.settle(journal, container)
    if trouble := attach.failure(journal.record):
        with despite(journal, progress):
            take_back(journal)
        raise CommandError(f"the memory of container {container.name!r} cannot be completed: {trouble}")
    _leave(journal, follows=follows)


def _leave(journal: Journal[Restore], *, follows: bool) -> None:
    """A restore is over; its journal and its directory go now, or are the guard's whose memory `follows`."""
    if not follows or attach.has_arrived(journal.record):
        _forget(journal)
    else:
        journal.leave()


def _forget(journal: Journal[Restore]) -> None:
    workdir.remove(Path(journal.record.work))
    journal.close()
