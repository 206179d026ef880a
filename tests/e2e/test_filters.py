"""A container keeps the seccomp filters that it has, however often it is moved; a crafted one gets its own, once."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from statistics import median

import pytest

from tests.e2e.conftest import LONG, Host, Start
from tests.hostile.case import ASK, LOOK

MOVES = 100 if LONG else 3
CRAFT = """
import sys
from pathlib import Path
from tests.hostile.cases import CASES
from tests.hostile.run import crafted, members_of
name, good = sys.argv[1:]
print(crafted(CASES[name], members_of(Path(good)), Path(good).with_name("evil.tar")))
"""
IMAGE = ("localhost/python", "python3", "-c", ASK)


def seen(host: Host) -> str:
    """What its two threads are told that ask for what is forbidden, and how many filters each of them has."""
    return host.execute("web", "sh", "-c", LOOK)


def moved(source: Host, target: Host, ref: str, *options: str) -> float:
    """Move the container from one host to another; the seconds that the restore took."""
    reference = json.loads(source.ocickpt("checkpoint", "--format", "json", "web", ref).stdout)["reference"]
    source.run("podman", "rm", "web")
    begun = time.monotonic()
    target.ocickpt("restore", *options, reference)
    return time.monotonic() - begun


def test_a_container_that_is_moved_has_the_filters_it_had(hosts: tuple[Host, Host], start: Start, ref: str) -> None:
    start("web", *IMAGE)
    before = seen(hosts[0])
    assert before == "refused refused 1 1"
    seconds = []
    for move in range(MOVES):
        source, target = hosts[move % 2], hosts[1 - move % 2]
        seconds.append(moved(source, target, ref))
        assert seen(target) == before, f"after move {move + 1}"
    first, last = median(seconds[: len(seconds) // 2 or 1]), median(seconds[len(seconds) // 2 :])
    print(f"{MOVES} moves: {first:.2f} s a restore in the first half, {last:.2f} s in the second, {last / first:.2f}")


@pytest.fixture
def good(hosts: tuple[Host, Host], start: Start, shared: str) -> Iterator[str]:
    """An archive of such a container."""
    a, _ = hosts
    start("web", *IMAGE)
    seen(a)
    a.run("podman", "container", "checkpoint", "--compress", "none", "--export", f"{shared}/good.tar", "web")
    a.run("podman", "rm", "web")
    yield f"{shared}/good.tar"


@pytest.mark.parametrize("name", ["a filter that allows everything", "a thread's filter that allows everything"])
def test_a_crafted_chain_grows_once(hosts: tuple[Host, Host], good: str, name: str, ref: str) -> None:
    a, b = hosts
    program = 'cd /usr/src/ocickpt && PYTHONDONTWRITEBYTECODE=1 exec python3 -c "$@"'
    reference = a.out("sh", "-c", program, "craft", CRAFT, name, good)
    b.ocickpt("restore", reference)
    found = seen(b)
    assert found in ("refused refused 2 2", "refused refused 1 2")
    for source, target in ((b, a), (a, b)):
        moved(source, target, ref)
        assert seen(target) == found
