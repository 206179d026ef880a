"""What CRIU restored stands still until the kernel was asked, and where it is refused nothing of it has run.

A stand-in for the kernel's answer is put into a copy of ocickpt, and all else is real.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

from tests.e2e.conftest import LONG, Host, Start

MARKER, CONFIG = "/srv/share/marker", "/etc/ocickpt/config.toml"
COUNT = "i=0; while :; do i=$((i+1)); echo $i >/marker/count; done"
NO_CGROUP = """

def place_of(_: str) -> None:
    return None
"""
REFUSING = """

def verify(*_: object) -> None:
    import time
    time.sleep({seconds})
    raise IntegrityError("this is not as it should be")
"""
SENTENCE = "this is not as it should be"
TIMES = 50 if LONG else 1
WITHIN = 3.0

Variant = Callable[..., list[str]]


@pytest.fixture
def variant(hosts: tuple[Host, Host]) -> Iterator[Variant]:
    """An ocickpt on host b with more at the end of some of its modules (ROOM__MODULE); its launcher is in place."""
    _, b = hosts

    def made(**changes: str) -> list[str]:
        b.sh("rm -rf /tmp/variant; mkdir /tmp/variant; cp -r /usr/src/ocickpt/ocickpt /tmp/variant")
        for module, code in changes.items():
            b.run("sh", "-c", f"cat >>/tmp/variant/ocickpt/{module.replace('__', '/')}.py", stdin=code)
        program = ["env", "PYTHONDONTWRITEBYTECODE=1", "PYTHONPATH=/tmp/variant", "python3", "-m", "ocickpt"]
        b.run(*program, "setup")
        return program

    yield made
    b.sh("rm -rf /tmp/variant")
    b.ocickpt("setup")


@pytest.fixture
def counting(hosts: tuple[Host, Host], start: Start, ref: str, runtime: str) -> Iterator[str]:
    """The checkpoint of a container that counts in a directory of the host as fast as it can."""
    a, b = hosts
    a.sh(f"mkdir -p {MARKER}; rm -f {MARKER}/*")
    b.sh(f"mkdir -p /etc/ocickpt; printf '[restore-on-start]\\nallow = [\"{ref.rpartition(':')[0]}\"]\\n' >{CONFIG}")
    start("web", "--volume", f"{MARKER}:/marker", "localhost/busybox", "sh", "-c", COUNT)
    a.wait("test", "-s", f"{MARKER}/count")
    pinned = a.ocickpt("checkpoint", "--quiet", "web", ref).stdout.strip()
    a.run("podman", "rm", "web")
    yield pinned
    b.clean()  # what counts there makes files all the time
    a.run("rm", "-r", MARKER)
    b.run("rm", "-f", CONFIG)


def count(host: Host) -> str:
    return host.out("cat", f"{MARKER}/count")


def command(program: list[str], way: str, runtime: str, pinned: str) -> list[str]:
    if way == "start":
        annotation = f"io.ocickpt.restore={pinned}"
        options = ["--annotation", annotation, "--volume", f"{MARKER}:/marker", "localhost/busybox", "sh", "-c", COUNT]
        return ["podman", "--runtime", runtime, "run", "--detach", "--name", "web", *options]
    lazily = ["--lazy"] if way == "lazy" else []
    return [*program, "restore", *lazily, "--allow", f"mount={MARKER}", pinned]


@pytest.mark.parametrize("way", ["restore", "lazy", "start"])
def test_nothing_has_run(hosts: tuple[Host, Host], variant: Variant, counting: str, runtime: str, way: str) -> None:
    """Again and again: a sentence, soon, and nothing is left."""
    _, b = hosts
    before, program = count(b), variant(gate__confinement=REFUSING.format(seconds=0))
    for _ in range(TIMES):
        began = time.monotonic()
        done = b.run(*command(program, way, runtime, counting), check=False)
        took = time.monotonic() - began
        assert done.returncode != 0
        assert SENTENCE in done.stderr
        assert took < WITHIN or not LONG, f"{took:.1f} s"
        if way == "start":
            b.run("podman", "rm", "--ignore", "web")  # a container that podman could not start stays, as always
        assert b.leftovers() == []
        assert count(b) == before
    program = variant(gate__confinement=REFUSING.format(seconds=2))
    assert SENTENCE in b.run(*command(program, way, runtime, counting), check=False).stderr
    assert count(b) == before, "it stands still for as long as it takes"


@pytest.mark.parametrize(("way", "killed"), [("restore", "shim"), ("restore", "flow"), ("start", "shim")])
def test_who_looks_is_killed(
    hosts: tuple[Host, Host], variant: Variant, counting: str, runtime: str, way: str, killed: str
) -> None:
    """While the container stands still: it never runs, and whoever comes next takes it back."""
    _, b = hosts
    before, program = count(b), variant(gate__confinement=REFUSING.format(seconds=5))
    call = b.argv(*command(program, way, runtime, counting))
    with subprocess.Popen(call, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as restoring:
        b.wait("sh", "-c", "grep -q 'frozen 1' /sys/fs/cgroup/libpod_parent/libpod-*/cgroup.events")
        pattern = "ocickpt[.]shim" if killed == "shim" else "ocickpt[ ]restore"
        b.run("pkill", "-KILL", "-f", pattern)
        restoring.wait(60)
    b.ocickpt("doctor", check=False)
    if way == "start":
        b.run("podman", "rm", "--force", "--time", "0", "--ignore", "web")
    assert b.leftovers() == []
    assert count(b) == before
    assert b.out("podman", "ps", "--all", "--quiet") == ""


@pytest.mark.parametrize("way", ["restore", "lazy", "start"])
def test_without_a_cgroup(hosts: tuple[Host, Host], variant: Variant, counting: str, runtime: str, way: str) -> None:
    """Nothing can be frozen where there is none: it is looked at while CRIU holds it."""
    _, b = hosts
    before = count(b)
    program = variant(engine__cgroups=NO_CGROUP, gate__confinement=REFUSING.format(seconds=1))
    done = b.run(*command(program, way, runtime, counting), check=False)
    assert SENTENCE in done.stderr
    if way == "start":
        b.run("podman", "rm", "--ignore", "web")
    assert count(b) == before
    assert b.leftovers() == []
    b.run(*command(variant(engine__cgroups=NO_CGROUP), way, runtime, counting))
    b.wait("sh", "-c", f"[ $(cat {MARKER}/count) -gt {before} ]")
