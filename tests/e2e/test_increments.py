"""The next checkpoint of a container sends what changed since the last one, page by page."""

from __future__ import annotations

import json

import pytest

from tests.e2e.conftest import Host, Start

MIB = 96
PAGE = 4096
GENERATIONS = 4
DISK = 16 << 20
CHANGE = """
import os, random, sys
file = os.open("/data/disk", os.O_RDWR)
for page in random.sample(range({pages}), {count}):
    os.pwrite(file, os.urandom({page}), page * {page})
"""


def sent(a: Host, ref: str, *options: str) -> int:
    """What a checkpoint of the running container sends."""
    done = a.ocickpt("checkpoint", "-R", *options, "service", ref, "--format", "json")
    return int(json.loads(done.stdout)["sent"])


@pytest.mark.parametrize("lazy", [False, True], ids=["eager", "lazy"])
def test_what_changed_is_what_is_sent(hosts: tuple[Host, Host], start: Start, ref: str, lazy: bool) -> None:
    """2 % of the pages, scattered, each time; what is restored of the last of the line is all that there was."""
    a, b = hosts
    start("service", "localhost/python", "python3", "/memory.py", str(MIB))
    first, idle = sent(a, ref), sent(a, ref)
    assert idle < first / 20
    changed = (MIB << 20) // PAGE // 50
    for _ in range(GENERATIONS):
        a.ask("service", f"/change/{changed}")
        assert sent(a, ref) - idle <= 1.15 * changed * PAGE
    known = a.ask("service", "/hash")
    b.ocickpt("restore", *(("--lazy",) if lazy else ()), ref)
    assert b.ask("service", "/hash") == known


def test_large_files(hosts: tuple[Host, Host], start: Start, ref: str) -> None:
    """Of a volume, as of memory."""
    a, b = hosts
    start("service", "--volume", "data:/data", "localhost/python", "python3", "/memory.py", "1")
    a.execute("service", "sh", "-c", f"head -c {DISK} /dev/urandom >/data/disk")
    sent(a, ref)
    idle, count = sent(a, ref), DISK // PAGE // 50
    a.execute("service", "python3", "-c", CHANGE.format(pages=DISK // PAGE, count=count, page=PAGE))
    assert sent(a, ref) - idle <= 1.15 * count * PAGE
    known = a.execute("service", "sha256sum", "/data/disk")
    b.ocickpt("restore", ref)
    assert b.execute("service", "sha256sum", "/data/disk") == known


@pytest.mark.parametrize("what", ["missing", "damaged"])
def test_without_marks_it_is_larger_and_right(hosts: tuple[Host, Host], start: Start, ref: str, what: str) -> None:
    """They are a cache: who takes them away, or writes to them, gets a larger checkpoint."""
    a, b = hosts
    start("service", "localhost/python", "python3", "/memory.py", str(MIB))
    sent(a, ref)
    marks = "/var/lib/ocickpt/marks"
    if what == "missing":
        a.run("rm", "-r", marks)
    else:
        # Every mark is that of another page now.
        a.sh(f"for each in {marks}/??????*; do printf x | dd of=$each bs=1 seek=5000 conv=notrunc; done 2>/dev/null")
    changed = (MIB << 20) // PAGE // 50
    a.ask("service", f"/change/{changed}")
    assert sent(a, ref) > 5 * changed * PAGE
    known = a.ask("service", "/hash")
    b.ocickpt("restore", ref)
    assert b.ask("service", "/hash") == known


def test_what_remains_needs_nothing_of_what_goes(
    hosts: tuple[Host, Host], registry: Host, start: Start, ref: str
) -> None:
    """Of a line of checkpoints the old ones are pruned, the registry collects its garbage, and the last is whole."""
    a, b = hosts
    start("service", "localhost/python", "python3", "/memory.py", str(MIB))
    repository = ref.rpartition(":")[0]
    for number in range(4):
        a.ask("service", "/change/100")
        sent(a, f"{repository}:{number}")
    known = a.ask("service", "/hash")
    keep = ("prune", repository, "--keep-last", "1", "--keep-tag", "1")
    told = a.ocickpt(*keep, "--dry-run").stdout
    assert told.count("would be removed") == 2
    assert len(json.loads(a.ocickpt("list", repository, "--format", "json").stdout)) == 4
    assert a.ocickpt(*keep).stdout == told.replace("would be removed", "removed")
    left = json.loads(a.ocickpt("list", repository, "--format", "json").stdout)
    assert [each["name"].rpartition(":")[2] for each in left] == ["1", "3"]
    registry.sh("docker-registry garbage-collect --delete-untagged /etc/docker/registry/config.yml >/dev/null 2>&1")
    for number in (1, 3):
        b.ocickpt("restore", f"{repository}:{number}")
        assert number == 1 or b.ask("service", "/hash") == known
        b.clean()
