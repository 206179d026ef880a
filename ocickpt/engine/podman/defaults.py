"""What this host's podman gives a container that asks for nothing, for what is more than that to be told.

Source: containers.conf(5), `default_capabilities`; containers/common pkg/config/default.go, pkg/seccomp/conversion.go
and seccomp.json; podman pkg/specgen/generate/config_common.go (BlockAccessToKernelFilesystems).
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from ocickpt.engine import host
from ocickpt.errors import PrerequisiteError

_CONFIGURATION: Final = ("/usr/share/containers/containers.conf", "/etc/containers/containers.conf")
_DROP_INS: Final = "/etc/containers/containers.conf.d"
_SAYS: Final = re.compile(r"^[^#\n]*default_capabilities", re.MULTILINE)
_PROFILES: Final = ("/etc/containers/seccomp.json", "/usr/share/containers/seccomp.json")
_CAPABILITIES: Final = frozenset(
    {"CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "NET_BIND_SERVICE", "SETFCAP", "SETGID", "SETPCAP", "SETUID",
     "SYS_CHROOT"}
)  # fmt: skip
MASKED: Final = frozenset(
    {"/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/sched_debug", "/proc/scsi",
     "/proc/timer_list", "/proc/timer_stats", "/sys/firmware", "/sys/fs/selinux"}
)  # fmt: skip
READONLY: Final = frozenset(
    {"/proc/asound", "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
)  # fmt: skip
"""What every podman 5 hides and protects; some hide more."""
_CONDITION: Final = ("index", "op", "value", "valueTwo")
_ALLOWING: Final = ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE", "SCMP_ACT_NOTIFY")


def capabilities(root: Path = Path("/")) -> frozenset[str]:
    """The capabilities of a container that asks for none, without ``CAP_``; PrerequisiteError for a broken file."""
    found = _CAPABILITIES
    drop_ins = sorted((root / _DROP_INS.lstrip("/")).glob("*.conf"))
    for path in (*(root / each.lstrip("/") for each in _CONFIGURATION), *drop_ins):
        try:
            text = path.read_text("utf-8")
            # Such files are mostly comments, and long.
            value = tomllib.loads(text).get("containers", {}) if _SAYS.search(text) else {}
            value = value.get("default_capabilities")
        except FileNotFoundError:
            continue
        except (OSError, ValueError, AttributeError) as error:
            raise PrerequisiteError(f"{path} cannot be read: {error}") from error
        if isinstance(value, list):
            found = frozenset(str(each).upper().removeprefix("CAP_") for each in value)
    return found


def more_calls(profile: dict[str, Any], held: Iterable[str], root: Path = Path("/")) -> list[str]:
    """The system calls that a seccomp profile allows and podman's own, for a container that holds these capabilities,
    names and does not allow.

    Calls that podman's does not know are younger than it is, and are not counted.
    """
    path = next((each for each in (root / one.lstrip("/") for one in _PROFILES) if each.exists()), None)
    if path is None:
        return []
    try:
        default = json.loads(path.read_bytes())
        named = {name for rule in default["syscalls"] for name in _names(rule)}
        usual = [rule for rule in default["syscalls"] if _included(rule, frozenset(held))]
        always, sometimes = _allowed(usual)
        more, more_sometimes = _allowed(profile.get("syscalls") or ())
    except (OSError, ValueError, AttributeError, KeyError, TypeError) as error:
        raise PrerequisiteError(f"podman's seccomp profile {path} cannot be read: {error}") from error
    return sorted(named & ((more - always) | ({name for name, _ in more_sometimes - sometimes} - always)))


def _allowed(rules: Iterable[dict[str, Any]]) -> tuple[set[str], set[tuple[str, str]]]:
    """The calls that rules allow whatever their arguments are, and those that they allow with some: (name, which)."""
    always, sometimes = set[str](), set[tuple[str, str]]()
    for rule in rules:
        if rule["action"] not in _ALLOWING:
            continue
        if conditions := rule.get("args"):
            which = sorted(str([each.get(key) or 0 for key in _CONDITION]) for each in conditions)
            sometimes.update((name, " ".join(which)) for name in _names(rule))
        else:
            always.update(_names(rule))
    return always, sometimes


def _names(rule: dict[str, Any]) -> Iterator[str]:
    yield from (str(each) for each in rule.get("names") or ())
    if rule.get("name"):
        yield str(rule["name"])


def _included(rule: dict[str, Any], held: frozenset[str]) -> bool:
    """Whether a rule is for this architecture, and for a container with these capabilities."""
    wants, excludes = rule.get("includes") or {}, rule.get("excludes") or {}
    arch = host.arch()
    if wants.get("arches") and arch not in wants["arches"]:
        return False
    if arch in (excludes.get("arches") or ()):
        return False
    needed, forbidden = (
        {str(each).removeprefix("CAP_") for each in one.get("caps") or ()} for one in (wants, excludes)
    )
    return needed <= held and not forbidden & held
