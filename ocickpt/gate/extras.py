"""What CRIU and podman leave out is given back to a container that stands still (`artifact.extras`).

The artifact's author chose it: no thread gets more of it than a process of such a container can give itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ocickpt import oci
from ocickpt.artifact.extras import Extras
from ocickpt.engine import attributes, cgroups, freezer, mountinfo, sockets, threads
from ocickpt.engine.container import Running
from ocickpt.engine.podman import etc
from ocickpt.gate import confinement
from ocickpt.gate.expected import Expected, mounts_of

_SHOWN = 80
_VOLUME = re.compile(r"/volumes/([a-zA-Z0-9][a-zA-Z0-9_.-]*)/_data\Z")


def give_back(container: Running, saved: Extras, names: frozenset[str]) -> list[str]:
    """Give it back; `names` are those that the container had. In sentences, what cannot be, or is more than it may
    have."""
    told, spec = [str(each) for each in saved.lost], confinement.specification(container.bundle)
    expected = Expected.of(spec)
    if saved.threads or saved.processes:
        told += _attributes(container, saved, spec, expected)
    own = {container.name, container.id[:12], spec.hostname}
    places, fixed = etc.sources(spec, container.id), etc.read_only(spec)
    for file in saved.files:
        if file.path in fixed:
            told.append(f"its changes to {file.path} are not given back: the container cannot write it")
        elif file.path in places:
            with _told(f"its changes to {file.path}", told):
                etc.put_back(file.path, file.content, places[file.path], names, own)
    if saved.sockets:
        told += _sockets(container, saved, spec)
    return told


def _sockets(container: Running, saved: Extras, spec: oci.Bundle) -> Iterator[str]:
    """Only names that the container's own processes have bound, and only where nothing is the host's: the container
    may not be able to give them."""
    told, asked = list[str](), mounts_of(spec)
    host = {each.name for each in saved.volumes if each.is_of_host}
    storage = Path(*container.bundle.parts[:-3])

    def is_own(mount: mountinfo.Mount) -> bool:
        if mount.point == "/":
            return True
        if not (found := asked.get(mount.point)) or not found.is_bind:
            return found is not None
        # Where podman keeps volumes; one that is a directory of the host is that directory, wherever it is mounted.
        volume = _VOLUME.search(found.source)
        if volume and found.source == f"{storage}{volume[0]}":
            in_memory = mount.root == "/" and mount.kind in ("tmpfs", "ramfs")
            return volume[1] not in host and (in_memory or mount.root.endswith(volume[0]))
        return f"/overlay-containers/{container.id}/userdata/" in found.source

    with _told("the names of unix sockets", told):
        bound = sockets.Bound(container.pid, freezer.tree(container.pid))
        for socket in saved.sockets:
            with _told(f"the name {socket.path!r} of a unix socket", told):
                bound.rename(socket.bound, socket.path, is_own)
    yield from told


def _attributes(container: Running, saved: Extras, spec: oci.Bundle, expected: Expected) -> Iterator[str]:
    everywhere = attributes.mask_of(attributes.all_cpus(cgroups.place_of(spec.linux.cgroups_path)))
    by_id, leaders = _threads(container.pid)
    told, unbound, refused = list[str](), 0, 0
    for each in saved.threads:
        if (thread := by_id.get(each.id)) is None:
            continue
        wanted = int(each.cpus or "0", 16)
        if not wanted & everywhere:
            unbound |= wanted
        else:
            with _told(f"that thread {each.id} is bound to processors", told):
                attributes.bind(thread, attributes.numbers_of(wanted & everywhere))
        if each.io_class == attributes.REAL_TIME and not expected.may_have_realtime_io:
            refused += 1
        elif each.io_class:
            with _told(f"the I/O priority of thread {each.id}", told):
                attributes.set_io_priority(thread, attributes.IoPriority(each.io_class, each.io_level))
        if each.timer_slack is not None:
            with _told(f"the timer slack of thread {each.id}", told):
                attributes.set_timer_slack(thread, each.timer_slack)
    for process in saved.processes:
        if process.id in leaders:
            with _told(f"what a core dump of process {process.id} holds", told):
                attributes.set_core_filter(leaders[process.id], process.core_filter)
    if refused:
        told.append(f"threads had real-time I/O, which their container may not have: {refused} come back without")
    if unbound:
        numbers = ", ".join(map(str, attributes.numbers_of(unbound)[:_SHOWN]))
        told.append(f"threads were bound to processors that are not here ({numbers}): they run on any")
    yield from told


def _threads(first: int) -> tuple[dict[int, int], dict[int, int]]:
    """The threads, and the processes, of a container by their ids in its pid namespace."""
    by_id, leaders, level = dict[int, int](), dict[int, int](), 0
    for pid in freezer.tree(first):
        with suppress(FileNotFoundError, ProcessLookupError):  # where it runs already, a process may end
            for thread in threads.threads(pid):
                level = level or len(thread.ids)
                by_id[thread.ids[level - 1]] = thread.id
                if thread.id == pid:
                    leaders[thread.ids[level - 1]] = pid
    return by_id, leaders


@contextmanager
def _told(what: str, told: list[str]) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        told.append(f"{what[:200]} cannot be given back: {error.strerror or error}")
