"""Containers that count in memory, and keep a name there that is theirs alone: who goes on counting is who it was."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from tests.e2e.conftest import Host

T = TypeVar("T")
R = TypeVar("R")

# Written by rename, into the root filesystem and into a volume.
SCRIPT = """
me=$(cat /proc/sys/kernel/random/uuid) n=0
while :; do
    n=$((n + 1))
    for place in / /data/; do
        echo "$me $n" >$place.count && mv $place.count ${place}count
    done
    sleep 0.05
done
"""


@dataclass(frozen=True)
class Count:
    """What a container has written last."""

    who: str
    number: int


@dataclass(frozen=True)
class Counter:
    """A counting container; it has one volume, named like itself."""

    name: str
    options: tuple[str, ...] = ()
    """Of `podman run`."""
    runtime: str = "crun"

    @property
    def removed(self) -> bool:
        """Whether podman removes it when it ends."""
        return "--rm" in self.options

    def start(self, host: Host) -> Count:
        """Run it, and wait until it has counted."""
        options = ["--detach", "--name", self.name, "--volume", f"{self.name}:/data", *self.options]
        host.run("podman", "--runtime", self.runtime, "run", *options, "localhost/busybox", "sh", "-c", SCRIPT)
        return self.count(host)

    def count(self, host: Host) -> Count:
        """How far it is; both places must say the same, give or take the moment between."""
        text = host.wait("podman", "exec", self.name, "cat", "/count", "/data/count", seconds=10)
        (who, number), (same, other) = (line.split() for line in text.splitlines())
        assert who == same
        assert abs(int(number) - int(other)) <= 1
        return Count(who, int(number))

    def goes_on(self, host: Host, since: Count) -> Count:
        """Check that it goes on from where it was, and is not started anew or held."""
        first = self.count(host)
        assert first.who == since.who, f"{self.name} was started anew"
        assert first.number >= since.number, f"{self.name} went back from {since.number} to {first.number}"
        end = time.monotonic() + 5
        while (now := self.count(host)).number == first.number:
            assert time.monotonic() < end, f"{self.name} stands still"
        return now

    def state(self, host: Host) -> dict[str, Any]:
        """podman's view of it; nothing when it is not there."""
        there = host.run("podman", "container", "exists", self.name, check=False)
        state: dict[str, Any] = host.inspect(self.name)["State"] if there.returncode == 0 else {}
        return state

    def runs(self, host: Host) -> bool:
        return bool(self.state(host).get("Running"))


def at_once(work: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """`work` on every item, all at the same time."""
    wanted = list(items)
    with ThreadPoolExecutor(len(wanted) or 1) as pool:
        return list(pool.map(work, wanted))
