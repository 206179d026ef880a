"""What neither podman nor CRIU saves of a container, taken while it stands still (`artifact.extras`)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from ocickpt.artifact import extras
from ocickpt.artifact.extras import Extras, Lost
from ocickpt.engine import attributes, cgroups, freezer, sockets, threads
from ocickpt.engine.container import Container, Volume
from ocickpt.engine.podman import database, etc
from ocickpt.gate import confinement


def take(subject: Container, work: Path) -> Extras:
    """Write what there is of `subject` into `work`, and give it back. OSError.

    Of a process that ends meanwhile, for the container does not stand still, nothing is taken.
    """
    found = _of(subject)
    (work / extras.NAME).write_bytes(found.to_bytes())
    return found


def with_content(subject: Container) -> list[Volume]:
    """Those of its volumes whose content is its own. UnsupportedError for one that cannot be made again."""
    host = {each.name for each in database.volume_options(subject) if each.is_of_host}
    return [each for each in subject.volumes if each.name not in host]


def _of(subject: Container) -> Extras:
    spec, tree = confinement.specification(subject.bundle), freezer.tree(subject.pid) if subject.pid else []
    level = 0
    saved, processes, lost = list[extras.Thread](), list[extras.Process](), list[Lost]()
    everywhere = attributes.all_cpus(cgroups.place_of(spec.linux.cgroups_path))
    for pid in tree:
        with suppress(FileNotFoundError, ProcessLookupError):
            for thread in threads.threads(pid):
                level = level or len(thread.ids)
                saved += _thread(thread, level, everywhere)
                if thread.id == pid:
                    number = thread.ids[level - 1]
                    if (mask := attributes.core_filter(pid)) != attributes.USUAL_CORE:
                        processes.append(extras.Process(number, mask))
                    if value := attributes.personality(pid, thread.id):
                        lost.append(Lost("personality", str(number), f"{value:#x}"))
    renamed, unknown = sockets.Bound(subject.pid, tree).renamed() if tree else ([], [])
    lost += [Lost("socket", each) for each in unknown]
    files, volumes = etc.changed(spec, subject), database.volume_options(subject)
    lost += [Lost("volume", each.name, each.device or each.type) for each in volumes if each.is_of_host]
    return Extras(
        lost=tuple(lost),
        threads=tuple(saved),
        processes=tuple(processes),
        files=tuple(extras.File(path, data) for path, data in files.items()),  # type: ignore[arg-type]
        sockets=tuple(extras.Socket(bound, path) for bound, path in renamed),
        volumes=volumes,
    )


def _thread(thread: threads.Thread, level: int, everywhere: frozenset[int]) -> Iterator[extras.Thread]:
    """What is unusual about a thread, by its id at that `level` of pid namespaces."""
    cpus, priority = attributes.cpus(thread.id), attributes.io_priority(thread.id)
    slack = attributes.timer_slack(thread.id)
    found = extras.Thread(
        id=thread.ids[level - 1],
        cpus=() if cpus >= everywhere else tuple(sorted(cpus)),
        io_class=priority.kind if priority else 0,
        io_level=priority.level if priority else 0,
        timer_slack=None if slack == attributes.USUAL_SLACK else slack,
    )
    if found != extras.Thread(found.id):
        yield found
