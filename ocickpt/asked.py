"""What a container asks for that podman gives nobody unasked, each as the option that allows it.

KIND=VALUE      cap=sys_admin   mount=/srv/data:ro   port=127.0.0.1:8080   device=/dev/fuse:c10:229   namespace=pid   …

It is podman's own spelling of a value wherever podman has an option for it. Who asks, and who may be given what, is
not known here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from ocickpt.errors import IntegrityError, UsageError

KINDS = (
    *(
        "annotation",
        "apparmor",
        "blkio-weight",
        "cap",
        "cgroup-conf",
        "cgroup-parent",
        "cgroups",
        "cpu-rt-runtime",
        "cpu-shares",
    ),
    *("device", "device-cgroup-rule", "filesystem", "hostuser", "label", "log-driver", "memory-reservation", "mount"),
    *("namespace", "network", "oom-kill-disable", "oom-score-adj", "port", "privileged", "propagation", "restart"),
    *(
        "scheduling",
        "seccomp",
        "secret",
        "selinux",
        "stop-timeout",
        "syscall",
        "ulimit",
        "unmask",
        "volume",
        "volume-opt",
    ),
)
READ_ONLY = ":ro"
_TCP = "/tcp"


@dataclass(frozen=True, slots=True)
class Asked:
    """One thing: its kind, which of that kind ("" where there is one only), and what it is in words."""

    kind: str
    value: str
    meaning: str
    optional: bool = False
    """Whether the container is restored without it where it is not allowed; else it is not restored at all."""

    def __post_init__(self) -> None:
        """IntegrityError for what cannot be shown to who is asked for it."""
        if not f"{self.value}{self.meaning}".isprintable():
            raise IntegrityError(
                f"the container asks for a {self.kind} whose name cannot be shown: {self.value[:200]!r}"
            )

    @property
    def option(self) -> str:
        """What allows it."""
        return f"{self.kind}={self.value}" if self.value else self.kind


def not_allowed(asked: Iterable[Asked], allowed: Collection[str]) -> list[Asked]:
    """Those that none of the options `allowed` allows. UsageError for an option that is none."""
    given = {_plain(each) for each in allowed}
    return [each for each in asked if given.isdisjoint(_allowing(_plain(each.option)))]


def check(options: Iterable[str]) -> None:
    """UsageError for an option that is none."""
    for each in options:
        _plain(each)


def _allowing(option: str) -> tuple[str, ...]:
    """The options that allow it: who may write may read, who may listen everywhere may do so at one address."""
    kind, _, value = option.partition("=")
    if kind == "mount":
        return option, option.removesuffix(READ_ONLY)
    if kind == "port":
        return option, f"port={value.rpartition(':')[2]}"
    return (option,)


def _plain(option: str) -> str:
    """An option as it is compared: capabilities in whatever case, with CAP_ or without; a port is one of TCP."""
    kind, _, value = option.partition("=")
    if kind not in KINDS:
        raise UsageError(
            f"{option[:200]!r} says nothing that can be allowed", hint=f"KIND=VALUE, where KIND is {', '.join(KINDS)}"
        )
    if kind == "cap":
        return f"cap={value.lower().removeprefix('cap_')}"
    return option.removesuffix(_TCP) if kind == "port" else option
