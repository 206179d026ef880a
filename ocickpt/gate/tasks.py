"""What CRIU would make of processes and threads: namespaces, credentials, scheduling, limits.

Source: images/core.proto, creds.proto; criu/pstree.c (get_clone_mask), criu/cr-restore.c;
capabilities(7), "Transformation of capabilities during execve()".
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from ocickpt.engine.threads import LIMITS, Credentials
from ocickpt.errors import IntegrityError, UnsupportedError
from ocickpt.gate import reach
from ocickpt.gate.cgroups import check_values
from ocickpt.gate.expected import Expected
from ocickpt.gate.images import Images, Message, text
from ocickpt.gate.reach import Here

_NAMESPACES: Final = {
    "pid": "pid_ns_id", "network": "net_ns_id", "ipc": "ipc_ns_id", "uts": "uts_ns_id", "mount": "mnt_ns_id",
    "user": "user_ns_id", "cgroup": "cgroup_ns_id", "time": "time_ns_id",
}  # fmt: skip
_ALIVE, _STOPPED, _DEAD, _ZOMBIE = 1, 3, 2, 6
"""task_state (criu/include/pid.h)."""
_MOST_PIDS: Final = 1 << 22
"""PID_MAX_LIMIT (linux/threads.h)."""
_KEEP_CAPS: Final = 1 << 4
"""The one securebit that takes no CAP_SETPCAP (capabilities(7))."""
_RUN: Final = re.compile(r"[0-9a-f-]{0,64}", re.ASCII)
_LOOPBACK: Final = 1
"""nd_type (images/netdev.proto)."""
_NETWORK: Final = "extRootNetNS"
"""What both runtimes call the network namespace that they hand over (runc criu_linux.go, crun criu.c)."""


def check_processes(images: Images, expected: Expected) -> None:
    """Refuse processes that a container as `expected` cannot have. IntegrityError, UnsupportedError."""
    tasks = images.messages("pstree")
    if not tasks:
        raise IntegrityError("the checkpoint has no processes")
    if not _RUN.fullmatch(text(images.one("inventory").dump_criu_run_id)):
        raise IntegrityError(
            "the checkpoint's inventory names its dump as CRIU does not, and CRIU makes a command of that name"
        )
    _check_namespaces(images, expected, [task.pid for task in tasks])
    cores = images.numbered("core")
    # The first is the process itself; for one that has ended CRIU writes any number (dump_pstree in criu/pstree.c).
    threads = {thread for task in tasks for thread in (task.pid, *task.threads[1:])}
    if max(threads) >= _MOST_PIDS:
        raise IntegrityError(f"the checkpoint has the thread {max(threads)}, a number that no thread has")
    if cores.keys() - threads:
        raise IntegrityError(
            f"the checkpoint has an image of thread {min(cores.keys() - threads)}, which no process has"
        )
    ended = {task.pid for task in tasks if _has_ended(images, task.pid)}
    if orphans := {task.pid for task in tasks if task.ppid in ended}:
        raise IntegrityError(f"process {min(orphans)} of the checkpoint is the child of one that has ended")
    sets = {each.id for cgroup in images.messages("cgroup") for each in cgroup.sets}
    sets |= {0, images.one("inventory").root_cg_set}
    here = Here.of(expected)
    for number, found in cores.items():
        if len(found) != 1:
            raise IntegrityError(f"core-{number}.img has {len(found)} messages instead of one")
        _check_core(number, found[0], expected, here, sets)
    check_values(images.messages("cgroup"), expected)


def _check_namespaces(images: Images, expected: Expected, pids: Iterable[int]) -> None:
    """Where a process has the id of CRIU's own namespace it stays in that: in the host's, or the restoring engine's."""
    roots, first = images.one("inventory").root_ids, None
    ids = images.numbered("ids")
    for pid in pids:
        if pid not in ids and first and _has_ended(images, pid):
            continue
        if pid not in ids or len(ids[pid]) != 1:
            raise IntegrityError(f"the checkpoint does not say which namespaces process {pid} has")
        own = ids[pid][0]
        first = first or own
        for kind, field in _NAMESPACES.items():
            if not (own.HasField(field) and roots.HasField(field)) and (kind in expected.namespaces or kind == "user"):
                raise IntegrityError(f"the checkpoint does not say which {kind} namespace process {pid} has")
            shared = getattr(own, field) == getattr(roots, field)
            # A container that was restored once where CRIU leaves cgroups alone is in the host's cgroup namespace.
            if kind in expected.namespaces and shared and kind != "cgroup":
                raise IntegrityError(f"process {pid} of the checkpoint would get the {kind} namespace of this host")
            # CRIU gives a container whose clocks must go on a time namespace, and that is no less of a confinement.
            if kind not in expected.namespaces and not shared and kind in ("user", "pid"):
                raise UnsupportedError(f"process {pid} of the checkpoint has a {kind} namespace its container has not")
            if getattr(own, field) != getattr(first, field) and not expected.may("SYS_ADMIN"):
                raise IntegrityError(f"process {pid} of the checkpoint has another {kind} namespace than its container")
    _check_network(images, expected)


def _has_ended(images: Images, pid: int) -> bool:
    """Whether this is a zombie, which has nothing but its exit code (dump_one_zombie in criu/cr-dump.c)."""
    core = images.messages(f"core-{pid}")
    return len(core) == 1 and _is_over(core[0])


def _is_over(core: Message) -> bool:
    return bool(core.HasField("tc") and core.tc.task_state in (_DEAD, _ZOMBIE) and not core.HasField("thread_core"))


def _check_network(images: Images, expected: Expected) -> None:
    """A network is given to the container, or has a loopback device only: others CRIU would make with root's tools."""
    given = expected.joins_network or "network" not in expected.namespaces
    for number, networks in images.numbered("netns").items():
        for network in networks:
            named = network.ext_key == _NETWORK and [field.name for field, _ in network.ListFields()] == ["ext_key"]
            if not named and (given or network.ext_key or network.nsids):
                raise IntegrityError(
                    f"the checkpoint's netns-{number}.img would make a network; the container is given one"
                )
    for number, devices in images.numbered("netdev").items():
        if given or [device.type for device in devices] != [_LOOPBACK] or devices[0].name != "lo":
            raise IntegrityError(f"the checkpoint's netdev-{number}.img would make network devices")


def _check_core(number: int, core: Message, expected: Expected, here: Here, sets: set[int]) -> None:
    """`core` is that of a thread; of a process's first there is more."""
    process = core.tc if core.HasField("tc") else None
    if _is_over(core):
        return
    if process and process.task_state not in (_ALIVE, _STOPPED):
        raise UnsupportedError(f"process {number} of the checkpoint is in the state {process.task_state}")
    thread = core.thread_core
    if not core.HasField("thread_core") or not thread.HasField("creds"):
        raise IntegrityError(f"the checkpoint does not say who thread {number} is: it has no credentials")
    creds, found = thread.creds, _credentials(thread.creds)
    problem = _identity(found, expected) or _capabilities(creds, found, expected) or _label(creds, expected, here)
    if problem := problem or _scheduling(thread, expected, here):
        raise IntegrityError(f"thread {number} of the checkpoint {problem}")
    if {core.thread_core.cg_set, process.cg_set if process else 0} - sets:
        raise IntegrityError(f"thread {number} of the checkpoint is in a cgroup that its images do not name")
    if process and (problem := _limits(process, expected, here)):
        raise IntegrityError(f"process {number} of the checkpoint {problem}")


def _identity(found: Credentials, expected: Expected) -> str:
    return reach.identity(found, expected)


def _capabilities(creds: Message, found: Credentials, expected: Expected) -> str:
    if problem := reach.capabilities(found, expected):
        return problem
    if creds.secbits & ~_KEEP_CAPS and not expected.may("SETPCAP"):
        return f"has the securebits {creds.secbits:#x}, which take CAP_SETPCAP"
    return ""


def _label(creds: Message, expected: Expected, here: Here) -> str:
    """What the images say of their module is no help: without one CRIU takes any label."""
    sockets = text(creds.lsm_sockcreate)
    return reach.label(text(creds.lsm_profile), expected, here) or (
        reach.label(sockets, expected, here) if sockets else ""
    )


def _scheduling(thread: Message, expected: Expected, here: Here) -> str:
    return reach.scheduling(thread.sched_policy, thread.sched_prio, thread.sched_nice, expected, here)


def _limits(process: Message, expected: Expected, here: Here) -> str:
    if process.HasField("old_seccomp_mode") or process.HasField("old_seccomp_filter"):
        return "has a seccomp filter of the old format, which would take the place of its own"
    found = {name: (each.cur, each.max) for name, each in zip(LIMITS, process.rlimits.rlimits, strict=False)}
    return reach.limits(found, expected, here) or reach.spared(process.oom_score_adj, expected)


def _credentials(creds: Message) -> Credentials:
    inheritable, permitted, effective, bounding, ambient = (
        _mask(getattr(creds, f"cap_{name}")) for name in ("inh", "prm", "eff", "bnd", "amb")
    )
    return Credentials(
        uids=frozenset((creds.uid, creds.euid, creds.suid, creds.fsuid)),
        gids=frozenset((creds.gid, creds.egid, creds.sgid, creds.fsgid, *creds.groups)),
        inheritable=inheritable,
        permitted=permitted,
        effective=effective,
        bounding=bounding,
        ambient=ambient,
        no_new_privileges=bool(creds.no_new_privs),
    )


def _mask(words: Iterable[int]) -> int:
    return sum(word << 32 * position for position, word in enumerate(words))
