"""What a process of a specification can come to be: rules for what images say and for what the kernel says alike.

Not what it started as: programs that are setuid are started (sudo), privileges are dropped, filters are added.

Source: capabilities(7), "Transformation of capabilities during execve()"; credentials(7); sched(7); setrlimit(2).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ocickpt.engine.threads import Credentials
from ocickpt.gate.expected import Expected
from ocickpt.trust.capabilities import capability_mask, capability_names

_USUAL_POLICIES: Final = (0, 3, 5)
"""SCHED_OTHER, SCHED_BATCH, SCHED_IDLE (sched(7))."""
_UNLIMITED: Final = (1 << 64) - 1


def beyond(found: Credentials, expected: Expected) -> str:
    """Who a thread is, or what it may, that no process as `expected` can; nothing if there is no such thing."""
    return _identity(found, expected) or _capabilities(found, expected)


def _identity(found: Credentials, expected: Expected) -> str:
    if expected.no_new_privileges and not found.no_new_privileges:
        return "does without the container's no_new_privs"
    if not expected.no_new_privileges:
        return ""  # a program that is setuid may be started, and one that is root may drop it
    others = found.uids - {expected.uid}
    if others and not expected.permitted & capability_mask(("SETUID",)):
        return f"is user {min(others)}, which user {expected.uid} cannot become under no_new_privs"
    groups = found.gids - expected.groups
    if groups and not expected.permitted & capability_mask(("SETGID",)):
        return f"is in group {min(groups)}, which cannot be joined under no_new_privs"
    return ""


def _capabilities(found: Credentials, expected: Expected) -> str:
    held = found.permitted | found.effective | found.ambient
    extra = (held | found.bounding | found.inheritable & ~expected.inheritable) & ~expected.bounding
    if not extra and expected.no_new_privileges:
        extra = held & ~expected.permitted
    if extra:
        return f"has capabilities that its container cannot have: {' '.join(capability_names(extra))}"
    return ""


def labelled_otherwise(label: str, module: str, expected: Expected) -> str:
    """The label that confines a thread otherwise than the container's; categories are a copy's own."""
    label = label.strip("\0\n").partition(" (")[0]
    if module == "selinux" and expected.selinux and label.split(":")[:3] != expected.selinux.split(":")[:3]:
        return f"would run as {label[:200] or 'nothing'} instead of {expected.selinux}"
    if module == "apparmor" and expected.apparmor and not f"{label}//".startswith(f"{expected.apparmor}//"):
        return f"would run as {label[:200] or 'nothing'} instead of {expected.apparmor}"
    return ""


def goes_before(policy: int, expected: Expected) -> str:
    """A scheduling policy that goes before others'; nothing for the usual ones."""
    if policy in _USUAL_POLICIES or expected.realtime or expected.may("SYS_NICE"):
        return ""
    return f"has the real-time policy {policy}: it takes CAP_SYS_NICE"


def above_limits(limits: Mapping[str, tuple[int, int]], expected: Expected) -> str:
    """A limit (soft, hard) above the specification's; nothing if there is none."""
    if expected.may("SYS_RESOURCE"):
        return ""
    for name, found in limits.items():
        most = expected.hard_limits.get(name, _UNLIMITED)
        if max(found) > most:
            return f"may have {max(found)} of {name}, its container {most} (RLIMIT_{name})"
    return ""


def spared(oom_score_adj: int, expected: Expected) -> str:
    """Whether a process is spared more than its container when memory is short."""
    if oom_score_adj >= min(0, expected.oom_score_adj) or expected.may("SYS_RESOURCE"):
        return ""
    return f"has the oom_score_adj {oom_score_adj}, its container {expected.oom_score_adj}"
