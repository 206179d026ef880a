"""Each process and thread: its namespaces, credentials, filters, label, cgroup, scheduling and limits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from ocickpt import oci
from ocickpt.engine import cgroups, freezer, threads
from ocickpt.engine.container import Running
from ocickpt.engine.threads import Thread
from ocickpt.errors import IntegrityError
from ocickpt.gate import reach
from ocickpt.gate.expected import Expected
from ocickpt.gate.reach import Here

_LABELS = {"selinux": "attr/current", "apparmor": "attr/apparmor/current"}


def check(
    container: Running, tree: Iterable[int], spec: oci.Bundle, expected: Expected, filters: Mapping[int, int]
) -> None:
    """Refuse processes of the `tree` that the specification does not describe. IntegrityError.

    `filters` says how many seccomp filters each thread should have, by its id inside, as far as that is known.
    """
    outside = [threads.namespaces(Path(f"/proc/{pid}")) for pid in ("self", container.conmon)]
    networks = [each.path for each in spec.linux.namespaces if each.type == "network" and each.path]
    given = {"network": Path(networks[0]).stat().st_ino} if networks else {}
    first = threads.namespaces(Path(f"/proc/{container.pid}"))
    here, place = Here.of(expected), cgroups.place_of(spec.linux.cgroups_path)
    for pid in tree:
        if problem := _process(pid, place, expected, here):
            raise IntegrityError(f"the restored process {pid} {problem}")
        for thread in threads.threads(pid):
            problem = (
                _namespaces(thread.namespaces(), outside, given, expected)
                or _strays(thread.namespaces(), first, expected)
                or reach.identity(thread.credentials, expected)
                or reach.capabilities(thread.credentials, expected)
                or _unfiltered(thread, filters.get(thread.inner_id, 1), expected)
                or reach.label(_label(thread, here.module), expected, here)
                or reach.scheduling(thread.policy(), 0, thread.nice(), expected, here)
            )
            if problem:
                raise IntegrityError(f"the restored thread {thread.inner_id} {problem}")


def _process(pid: int, place: Path | None, expected: Expected, here: Here) -> str:
    score = int(Path(f"/proc/{pid}/oom_score_adj").read_text("ascii"))
    if place and not freezer.is_in(pid, place):
        return "is not in its container's cgroup"
    return reach.limits(threads.limits(pid), expected, here) or reach.spared(score, expected)


def _namespaces(
    found: Mapping[str, int], outside: Iterable[Mapping[str, int]], given: Mapping[str, int], expected: Expected
) -> str:
    """In which of the host's namespaces a thread is that it should not be in, or the other way round."""
    for kind, inode in found.items():
        shared = any(each.get(kind) == inode for each in outside)
        # Where CRIU leaves cgroups alone, it makes no cgroup namespace; one for clocks is no less of a confinement.
        if kind in expected.namespaces and shared and kind != "cgroup":
            return f"is in the {kind} namespace of this host"
        if kind not in expected.namespaces and not shared and kind not in ("cgroup", "time"):
            return f"is in a {kind} namespace that its container has not"
        if kind in given and inode != given[kind]:
            return f"is in another {kind} namespace than the one its container was given"
    return ""


def _strays(found: Mapping[str, int], first: Mapping[str, int], expected: Expected) -> str:
    others = [kind for kind, inode in found.items() if inode != first.get(kind)]
    return f"is in another {others[0]} namespace than its container" if others and not expected.may("SYS_ADMIN") else ""


def _unfiltered(thread: Thread, count: int, expected: Expected) -> str:
    if not expected.seccomp:
        return ""
    if not thread.filtered:
        return "runs without the container's seccomp filter"
    if thread.filters and thread.filters < count:
        return f"has {thread.filters} seccomp filters in force instead of {count}"
    return ""


def _label(thread: Thread, module: str) -> str:
    """The label of a thread under this host's security module."""
    if module not in _LABELS:
        return ""
    return (thread.place / _LABELS[module]).read_text("utf-8", "replace")


def mount_namespaces(tree: Iterable[int]) -> Iterator[int]:
    """One process of each mount namespace that there is in the `tree`."""
    seen = set[int]()
    for pid in tree:
        inode = Path(f"/proc/{pid}/ns/mnt").stat().st_ino
        if inode not in seen:
            seen.add(inode)
            yield pid
