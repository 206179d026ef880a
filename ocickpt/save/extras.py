"""What neither podman nor CRIU saves of a container, taken while it stands still (`artifact.extras`)."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from ocickpt import oci
from ocickpt.artifact import extras, origin
from ocickpt.artifact.extras import Extras, Lost
from ocickpt.engine import attributes, cgroups, freezer, sockets, threads
from ocickpt.engine.container import Container, Volume
from ocickpt.engine.podman import database, etc
from ocickpt.errors import IntegrityError, StorageError, UnsupportedError
from ocickpt.gate import confinement
from ocickpt.gate.expected import Expected

_MOST_TOLD: Final = 100
"""Of the processes and threads that lose something."""


def take(subject: Container, work: Path) -> Extras:
    """Write what there is of `subject` into `work`, and give it back. OSError; UnsupportedError for more of it than
    any reader takes.

    Of a process that ends meanwhile, for the container does not stand still, nothing is taken.
    """
    found = _of(subject)
    data = found.to_bytes()
    try:
        Extras.from_bytes(data)
    except IntegrityError as error:
        raise UnsupportedError(
            f"container {subject.name!r} has more of what CRIU leaves out than a checkpoint may hold: {error.message}"
        ) from error
    (work / extras.NAME).write_bytes(data)
    return found


def with_content(subject: Container) -> list[Volume]:
    """Those of its volumes whose content is its own. UnsupportedError for one that cannot be made again."""
    host = {each.name for each in database.volume_options(subject) if each.is_of_host}
    return [each for each in subject.volumes if each.name not in host]


def _of(subject: Container) -> Extras:
    spec, tree = confinement.specification(subject.bundle), freezer.tree(subject.pid) if subject.pid else []
    level = 0
    saved, processes, lost = dict[int, extras.Thread](), dict[int, extras.Process](), list[Lost]()
    usual, may = _usual_cpus(subject, spec), Expected.of(spec).may_have_realtime_io
    for pid in tree:
        with suppress(FileNotFoundError, ProcessLookupError):
            for thread in threads.threads(pid):
                level = level or len(thread.ids)
                number, found = thread.ids[level - 1], _thread(thread, level, usual)
                if found.io_class == attributes.REAL_TIME and not may:
                    lost.append(Lost("io", str(number), "real-time"))
                    found = replace(found, io_class=0, io_level=0)
                if found != extras.Thread(number):
                    saved[number] = found
                if thread.id == pid:
                    if (mask := attributes.core_filter(pid)) != attributes.USUAL_CORE:
                        processes[number] = extras.Process(number, mask)
                    if value := attributes.personality(pid, thread.id):
                        lost.append(Lost("personality", str(number), f"{value:#x}"))
    renamed, unknown = sockets.Bound(subject.pid, tree).renamed() if tree else ([], [])
    # How many of these there are any process of the container can choose: none of them may keep it from being saved.
    lost += [
        Lost("socket", each[: extras.MOST_TEXT])
        for each in (*unknown, *(name for name, _ in renamed[extras.MOST_SOCKETS :]))
    ]
    cut = max(0, len(lost) - _MOST_TOLD) + max(0, len(saved) - extras.MOST) + max(0, len(processes) - extras.MOST)
    lost[_MOST_TOLD:] = [Lost("more", str(cut))] if cut else []
    files, volumes = etc.changed(spec, subject, _given(subject)), database.volume_options(subject)
    lost += [Lost("file", path, str(etc.LIMIT)) for path, data in files.items() if len(data) > etc.LIMIT]
    lost += [Lost("volume", each.name, each.device or each.type) for each in volumes if each.is_of_host]
    return Extras(
        lost=tuple(lost),
        threads=tuple(saved.values())[: extras.MOST],
        processes=tuple(processes.values())[: extras.MOST],
        files=tuple(extras.File(path, data) for path, data in files.items() if len(data) <= etc.LIMIT),  # type: ignore[arg-type]
        sockets=tuple(extras.Socket(bound, path) for bound, path in renamed[: extras.MOST_SOCKETS]),
        volumes=volumes,
    )


def _given(subject: Container) -> set[str]:
    try:
        return etc.given(origin.configuration(database.configuration(subject.bundle)).config)
    except (StorageError, UnsupportedError):  # an older podman's database
        return set()


def _usual_cpus(subject: Container, spec: oci.Bundle) -> frozenset[int]:
    """The processors of a process of the container that is bound to none: those of its conmon, which may be kept from
    some by its host (isolcpus, systemd's CPUAffinity)."""
    everywhere = attributes.all_cpus(cgroups.place_of(spec.linux.cgroups_path))
    with suppress(ProcessLookupError):
        return (everywhere & attributes.cpus(subject.conmon) if subject.conmon else everywhere) or everywhere
    return everywhere


def _thread(thread: threads.Thread, level: int, usual: frozenset[int]) -> extras.Thread:
    """What is unusual about a thread, by its id at that `level` of pid namespaces."""
    cpus, priority = attributes.cpus(thread.id), attributes.io_priority(thread.id)
    slack = attributes.timer_slack(thread.id)
    return extras.Thread(
        id=thread.ids[level - 1],
        cpus="" if cpus >= usual else f"{attributes.mask_of(cpus):x}",
        io_class=priority.kind if priority else 0,
        io_level=priority.level if priority else 0,
        timer_slack=None if slack == attributes.USUAL_SLACK else min(slack, extras.MOST_SLACK),
    )
