"""What a process of a specification can come to be: rules for what images say and for what the kernel says alike.

Not what it started as: programs that are setuid are started (sudo), privileges are dropped, filters are added.

Source: capabilities(7), "Transformation of capabilities during execve()"; credentials(7); sched(7); setrlimit(2).
"""

from __future__ import annotations

import os
import resource
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

from ocickpt.engine import host
from ocickpt.engine.threads import LIMITS, Credentials
from ocickpt.gate.expected import Expected
from ocickpt.trust.capabilities import capability_names

OPEN_PROTOCOLS: Final = (0, 7, 15, 16)
"""NETLINK_ROUTE, SELINUX, KOBJECT_UEVENT, GENERIC: everybody may listen to these (NL_CFG_F_NONROOT_RECV)."""
MOST_BUFFER: Final = 1 << 28
"""The kernel lets a connection grow to tcp_rmem and tcp_wmem of its host: this is beyond what they are anywhere."""
_USUAL_POLICIES: Final = (0, 3, 5)
"""SCHED_OTHER, SCHED_BATCH, SCHED_IDLE (sched(7))."""
_RESET_ON_FORK: Final = 1 << 30
"""SCHED_RESET_ON_FORK, which takes something away."""
_BY_DEFAULT: Final = {"NICE": 0, "RTPRIO": 0, "MSGQUEUE": 819200}
"""What the kernel limits on every machine alike, for what is not the process's own (asm-generic/resource.h)."""
_NO_LIMIT: Final = (1 << 64) - 1


@dataclass(frozen=True)
class Here:
    """What this host gives a container as its specification says, or says nothing of."""

    module: str
    """The security module whose labels are in force."""
    limits: Mapping[str, int]
    """The most of each limit."""
    nice: int
    """The lowest nice value."""

    @classmethod
    def of(cls, expected: Expected) -> Self:
        """For a container as `expected`."""
        # RLIMIT_NICE is 20 less the lowest value (setrlimit(2)); whoever restores hands on his own, as to anybody.
        nice = min(0, os.getpriority(os.PRIO_PROCESS, 0), 20 - expected.hard_limits.get("NICE", 20))
        return cls(host.lsm(), {name: expected.hard_limits.get(name, unnamed(name)) for name in LIMITS}, nice)


def unnamed(name: str) -> int:
    """The most that a container has of what its specification does not limit.

    It has that of who starts it. What this is depends on the machine's memory, and a container may come from a larger
    one: so only what a kernel gives nobody by itself is held, against what whoever restores has himself.
    """
    if name not in _BY_DEFAULT:
        return _NO_LIMIT
    own = resource.getrlimit(getattr(resource, f"RLIMIT_{name}"))[1]
    return max(_BY_DEFAULT[name], _NO_LIMIT if own == resource.RLIM_INFINITY else own)


def identity(found: Credentials, expected: Expected) -> str:
    """Who a thread is that no process of the container can become; nothing if it can."""
    if expected.no_new_privileges and not found.no_new_privileges:
        return "does without the container's no_new_privs"
    for uid in found.uids:
        if not expected.is_user(uid):
            return f"is user {uid}, which user {expected.uid} cannot become under no_new_privs"
    for gid in found.gids:
        if not expected.is_in(gid):
            return f"is in group {gid}, which cannot be joined under no_new_privs"
    return ""


def capabilities(found: Credentials, expected: Expected) -> str:
    """What a thread has that no process of the container can come to have."""
    held = found.permitted | found.effective | found.ambient
    extra = (found.bounding | found.inheritable & ~expected.inheritable) & ~expected.bounding
    extra |= held & ~expected.reachable
    return f"has capabilities that its container cannot have: {' '.join(capability_names(extra))}" if extra else ""


def label(found: str, expected: Expected, here: Here) -> str:
    """A label that confines otherwise than the container's, by this host's module; categories are a copy's own."""
    found = found.strip("\0\n").partition(" (")[0]
    if here.module == "selinux" and expected.selinux and found.split(":")[:3] != expected.selinux.split(":")[:3]:
        return f"would run as {found[:200] or 'nothing'} instead of {expected.selinux}"
    if here.module == "apparmor" and expected.apparmor and not f"{found}//".startswith(f"{expected.apparmor}//"):
        return f"would run as {found[:200] or 'nothing'} instead of {expected.apparmor}"
    return ""


def scheduling(policy: int, priority: int, nice: int, expected: Expected, here: Here) -> str:
    """What goes before others; nothing for the usual policies and nice values."""
    policy &= ~_RESET_ON_FORK
    if expected.may("SYS_NICE"):
        return ""
    if policy not in _USUAL_POLICIES and not expected.realtime:
        return f"has the real-time policy {policy}: it takes CAP_SYS_NICE"
    if priority and policy in _USUAL_POLICIES:
        return f"has the real-time priority {priority} under a policy that has none"
    if nice < here.nice:
        return f"has the nice value {nice}: it takes CAP_SYS_NICE"
    return ""


def limits(found: Mapping[str, tuple[int, int]], expected: Expected, here: Here) -> str:
    """A limit (soft, hard) above the container's; nothing if there is none."""
    if expected.may("SYS_RESOURCE"):
        return ""
    for name, each in found.items():
        if max(each) > (most := here.limits[name]):
            return f"may have {max(each)} of {name}, its container {most} (RLIMIT_{name})"
    return ""


def spared(oom_score_adj: int, expected: Expected) -> str:
    """Whether a process is spared more than its container when memory is short."""
    if oom_score_adj >= min(0, expected.oom_score_adj) or expected.may("SYS_RESOURCE"):
        return ""
    return f"has the oom_score_adj {oom_score_adj}, its container {expected.oom_score_adj}"
