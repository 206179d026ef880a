"""What this host's podman gives a container that asks for nothing, for what is more than that to be told.

Source: containers.conf(5), `default_capabilities`, `stop_timeout`, `default_network`, `hooks_dir`; containers/common
pkg/config/default.go, pkg/seccomp/conversion.go and seccomp.json; podman pkg/specgen/generate/config_common.go
(BlockAccessToKernelFilesystems).
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from ocickpt import oci, structs
from ocickpt.engine import host
from ocickpt.errors import IntegrityError, PrerequisiteError

_CONFIGURATION: Final = ("/usr/share/containers/containers.conf", "/etc/containers/containers.conf")
_DROP_INS: Final = "/etc/containers/containers.conf.d"
_HOOKS: Final = ("/usr/share/containers/oci/hooks.d", "/etc/containers/oci/hooks.d")
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
_ALLOWING: Final = ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE", "SCMP_ACT_NOTIFY")


def capabilities(root: Path = Path("/")) -> frozenset[str]:
    """The capabilities of a container that asks for none, without ``CAP_``; PrerequisiteError for a broken file."""
    found = _setting("containers", "default_capabilities", root)
    if isinstance(found, list):
        return frozenset(str(each).upper().removeprefix("CAP_") for each in found)
    return _CAPABILITIES


def network(root: Path = Path("/")) -> str:
    """The network of a container that names none; errors as of `capabilities`."""
    found = _setting("network", "default_network", root)
    return found if isinstance(found, str) and found else "podman"


def stop_timeout(root: Path = Path("/")) -> int:
    """For so many seconds a container that is stopped may go on; errors as of `capabilities`."""
    found = _setting("containers", "stop_timeout", root)
    return found if isinstance(found, int) else 10


def hook_directories(root: Path = Path("/")) -> tuple[str, ...]:
    """Where podman looks for hooks, or did without the file that says last; errors as of `capabilities`."""
    lists = (found for found in _settings("engine", "hooks_dir", root) if isinstance(found, list))
    return (*_HOOKS, *(each for found in lists for each in found if isinstance(each, str)))


def _setting(table: str, key: str, root: Path) -> object:
    """What the last of podman's configuration files says that says something; None when none does."""
    found = None
    for value in _settings(table, key, root):
        found = value
    return found


def _settings(table: str, key: str, root: Path) -> Iterator[object]:
    """What each of podman's configuration files says that says something."""
    drop_ins = sorted((root / _DROP_INS.lstrip("/")).glob("*.conf"))
    for path in (*(root / each.lstrip("/") for each in _CONFIGURATION), *drop_ins):
        try:
            text = path.read_text("utf-8")
            # Such files are mostly comments, and long.
            says = re.search(rf"^[^#\n]*{key}", text, re.MULTILINE)
            value = tomllib.loads(text).get(table, {}).get(key) if says else None
        except FileNotFoundError:
            continue
        except (OSError, ValueError, AttributeError) as error:
            raise PrerequisiteError(f"{path} cannot be read: {error}") from error
        if value is not None:
            yield value


class _When(msgspec.Struct, frozen=True):
    """What has to be for a rule to be in force, or must not be."""

    arches: tuple[str, ...] = ()
    caps: tuple[str, ...] = ()

    @property
    def capabilities(self) -> frozenset[str]:
        return frozenset(each.removeprefix("CAP_") for each in self.caps)


class _Rule(msgspec.Struct, frozen=True):
    """A rule of podman's own profile, which is of another form than those of specifications."""

    action: str
    names: tuple[str, ...] = ()
    name: str = ""
    args: tuple[oci.Condition, ...] = ()
    includes: _When = _When()
    excludes: _When = _When()

    def is_for(self, held: frozenset[str]) -> bool:
        """Whether it is in force on this architecture, for a container with these capabilities."""
        arch = host.arch()
        if (self.includes.arches and arch not in self.includes.arches) or arch in self.excludes.arches:
            return False
        return self.includes.capabilities <= held and not self.excludes.capabilities & held

    @property
    def plain(self) -> oci.Rule:
        return oci.Rule((*self.names, self.name) if self.name else self.names, self.action, args=self.args)


class _Profile(msgspec.Struct, frozen=True):
    syscalls: tuple[_Rule, ...]


def more_calls(profile: oci.Seccomp, held: Iterable[str], root: Path = Path("/")) -> list[str]:
    """The system calls that a seccomp profile allows and podman's own, for a container that holds these capabilities,
    names and does not allow.

    Calls that podman's does not know are younger than it is, and are not counted.
    """
    path = next((each for each in (root / one.lstrip("/") for one in _PROFILES) if each.exists()), None)
    if path is None:
        return []
    try:
        default = structs.read(json.loads(path.read_bytes()), _Profile, "file")
    except (OSError, ValueError) as error:
        raise PrerequisiteError(f"podman's seccomp profile {path} cannot be read: {error}") from error
    except IntegrityError as error:
        raise PrerequisiteError(f"podman's seccomp profile {path} cannot be used: {error.message}") from error
    named = {name for rule in default.syscalls for name in rule.plain.names}
    always, sometimes = _allowed(rule.plain for rule in default.syscalls if rule.is_for(frozenset(held)))
    more, more_sometimes = _allowed(profile.syscalls)
    return sorted(named & ((more - always) | ({name for name, _ in more_sometimes - sometimes} - always)))


def _allowed(rules: Iterable[oci.Rule]) -> tuple[set[str], set[tuple[str, tuple[oci.Condition, ...]]]]:
    """The calls that rules allow whatever their arguments are, and those that they allow with some: (name, which)."""
    always, sometimes = set[str](), set[tuple[str, tuple[oci.Condition, ...]]]()
    for rule in rules:
        if rule.action not in _ALLOWING:
            continue
        if rule.args:
            which = tuple(sorted(rule.args, key=repr))
            sometimes.update((name, which) for name in rule.names)
        else:
            always.update(rule.names)
    return always, sometimes
