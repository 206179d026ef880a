"""Which hosts a lab has, and where everything is kept. Knows names and paths, does nothing.

Three places, and `lab down` empties all but the last:

    /run/ocickpt-lab/NAME/            pids of what runs, one file each
    CACHE/disks/NAME/                 a disk for each host, and what all hosts share
    CACHE/root-KEY, CACHE/images-KEY  built once; KEY is a hash of what they were built from
"""

import os
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from lablib import enter

HERE = Path(__file__).resolve().parent.parent
REPOSITORY = HERE.parent.parent

SUBNET = "10.203.77"
PREFIX = 24


class LabError(Exception):
    """Something the caller can do something about; its text is one line for them to read."""


@dataclass(frozen=True)
class Host:
    """One host of the lab."""

    name: str
    address: str
    systemd: bool = False
    """Whether its first process is systemd. Such a host comes up only when it is named."""


HOSTS = (
    Host("a", f"{SUBNET}.11"),
    Host("b", f"{SUBNET}.12"),
    Host("registry", f"{SUBNET}.5"),
    Host("systemd", f"{SUBNET}.21", systemd=True),
)


def host(name: str) -> Host:
    """The host called `name`. Raises LabError where there is none."""
    for known in HOSTS:
        if known.name == name:
            return known
    raise LabError(f"no host {name!r}; there are {', '.join(known.name for known in HOSTS)}")


@dataclass(frozen=True)
class Disk:
    """What a host keeps over a restart: one directory on a real filesystem."""

    path: Path

    @property
    def upper(self) -> Path:
        """What the host changed of the shared root."""
        return self.path / "upper"

    @property
    def work(self) -> Path:
        """overlayfs needs an empty directory beside `upper`."""
        return self.path / "work"

    @property
    def base(self) -> Path:
        """Names the root `upper` belongs to: over another root it would be nonsense."""
        return self.path / "base"

    def data(self, name: str) -> Path:
        """A directory that must not lie on an overlay: container storage, ocickpt's store, the registry's."""
        return self.path / "data" / name


@dataclass(frozen=True)
class Lab:
    """One lab: its name and its places. `OCICKPT_LAB_NAME` lets several live side by side."""

    name: str
    cache: Path

    @staticmethod
    def from_environment() -> "Lab":
        """The lab that the environment asks for. Raises LabError for a name that cannot be a file's."""
        name = os.environ.get("OCICKPT_LAB_NAME", "lab")
        if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,30}", name):
            raise LabError(f"OCICKPT_LAB_NAME={name!r}: use up to 31 small letters, digits and dashes")
        return Lab(name, Path(os.environ.get("OCICKPT_LAB_CACHE", "/var/cache/ocickpt-lab")).absolute())

    @cached_property
    def state(self) -> Path:
        """Records of what runs."""
        return Path(enter.state_dir())

    @property
    def machine_state(self) -> Path:
        """What all labs of this machine must agree on."""
        return self.state.parent

    @property
    def disks(self) -> Path:
        """The disks of this lab's hosts."""
        return self.cache / "disks" / self.name

    @property
    def share(self) -> Path:
        """Seen by every host as /srv/share, writable."""
        return self.disks / "share"

    def disk(self, name: str) -> Disk:
        """The disk of the host called `name`."""
        return Disk(self.disks / name)

    def cgroup(self, name: str) -> str:
        """The name of a host's cgroup, below the root of the cgroup2 hierarchy."""
        return f"ocickpt-lab-{self.name}.{name}"
