"""Real podman, runc, crun, CRIU and a registry, on the lab's hosts; the lab must be up (`make test` sees to it).

Each process of pytest-xdist has a lab of its own, called as the one asked for and the process: `lab-gw0`, `lab-gw1`.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import time
import uuid
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ocickpt.errors import PrerequisiteError

WORKER = os.environ.get("PYTEST_XDIST_WORKER", "")
if WORKER:
    os.environ["OCICKPT_LAB_NAME"] = f"{os.environ.get('OCICKPT_LAB_NAME', 'lab')}-{WORKER}"

LAB = Path(__file__).parents[2] / "contrib" / "lab" / "lab"
REGISTRY = "registry:5000"
CONFIG = "/etc/ocickpt/config.toml"
"""What a host decides about checkpoints."""
TIMEOUT = 180.0
LONG = os.environ.get("OCICKPT_LONG") == "1"
"""Whether everything is to be run (`make test-long`), not a representative of each kind."""
SEED = int(os.environ.get("OCICKPT_SEED") or (time.time_ns() % 1_000_000 if LONG else 20))
"""Of what is drawn at random; it is told at the end."""
os.environ["OCICKPT_SEED"] = str(SEED)  # the processes of pytest-xdist must draw the same
KILLED: list[str] = []
"""What the test that runs has killed when, a line each."""
TOLD: list[str] = []
"""The same of all tests, in the process that tells."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what only the long run plays."""
    left = [] if LONG else [item for item in items if item.get_closest_marker("long")]
    config.hook.pytest_deselected(items=left)
    items[:] = [item for item in items if item not in left]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    item.user_properties += [("killed", line) for line in KILLED]
    KILLED.clear()
    return (yield)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call":
        TOLD.extend(str(line) for key, line in report.user_properties if key == "killed")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if TOLD:
        terminalreporter.section(f"killed at a moment, OCICKPT_SEED={SEED}")
        for line in TOLD if LONG else TOLD[:3]:
            terminalreporter.write_line(line)
        if not LONG:
            terminalreporter.write_line(f"… {len(TOLD)} in all")


# What a reboot leaves of a host: no process, no mount, nothing below /run.
REBOOT = """
    cd /
    pkill -KILL 'conmon|criu|python3'
    for cgroup in $(find /sys/fs/cgroup -type d -name 'libpod-*'); do echo 1 >$cgroup/cgroup.kill; done
    sleep 0.5
    findmnt --noheadings --list --output TARGET | grep -E '/(merged|userdata/shm)$|^/run/netns/' | xargs -rn1 umount -l
    rm -rf /run/containers /run/libpod /run/netns/* /run/ocickpt /run/runc /run/crun /run/crun.*
    find /sys/fs/cgroup -depth -type d -name 'libpod-*' -exec rmdir {} +
"""


@dataclass(frozen=True)
class Host:
    """One host of the lab."""

    name: str

    def argv(self, *command: str) -> list[str]:
        return [str(LAB), "exec", self.name, *command]

    def run(self, *command: str, check: bool = True, stdin: str = "") -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            self.argv(*command), check=False, capture_output=True, text=True, input=stdin, timeout=TIMEOUT
        )
        if check and done.returncode:
            raise AssertionError(
                f"{self.name}# {' '.join(command)}\nexit {done.returncode}\n{done.stdout}\n{done.stderr}"
            )
        return done

    def out(self, *command: str) -> str:
        return self.run(*command).stdout.strip()

    def sh(self, script: str) -> str:
        return self.out("sh", "-c", script)

    def ocickpt(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.run("ocickpt", *arguments, check=check)

    def inspect(self, container: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.out("podman", "container", "inspect", container))[0]
        return found

    def address(self, container: str) -> str:
        return str(self.inspect(container)["NetworkSettings"]["IPAddress"])

    def ask(self, container: str, path: str = "/") -> str:
        """What a container's web service answers on port 8080; waits until it listens."""
        url = f"http://{self.address(container)}:8080{path}"
        return self.wait("curl", "-sS", "--fail", "--max-time", "20", url)

    def execute(self, container: str, *command: str) -> str:
        """What a command prints in a container."""
        return self.out("podman", "exec", container, *command)

    def wait(self, *command: str, seconds: float = 30) -> str:
        """Run `command` until it succeeds."""
        end = time.monotonic() + seconds
        while True:
            done = self.run(*command, check=False)
            if done.returncode == 0:
                return done.stdout.strip()
            assert time.monotonic() < end, f"{command}: {done.stderr}"
            time.sleep(0.1)

    def refused(self, *command: str) -> list[str]:
        """The options that `ocickpt` says would allow what it refuses, as its words can be typed."""
        done = self.ocickpt(*command, check=False)
        assert done.returncode == PrerequisiteError.exit_code, done.stderr
        lines = [shlex.split(line) for line in done.stderr.splitlines() if line.startswith("  --allow ")]
        assert lines, done.stderr
        return [word for line in lines for word in line[:2]]

    def decides(self, text: str) -> None:
        """Write the host's configuration."""
        self.run("sh", "-c", f"mkdir -p $(dirname {CONFIG}); cat >{CONFIG}", stdin=text)

    def clean(self) -> None:
        self.run("podman", "rm", "--all", "--force", "--time", "0")
        self.run("podman", "volume", "prune", "--force", check=False)
        self.run("sh", "-c", "podman volume ls -q | xargs -r podman volume rm -f", check=False)

    def forget(self) -> None:
        """What an earlier test that failed has left."""
        self.sh("rm -rf /var/lib/containers/storage/ocickpt /run/ocickpt/op/* /run/ocickpt/lazy/* /var/lib/ocickpt/*")

    def traces(self) -> list[str]:
        """Whatever an operation must not leave: work directories, journals, sockets, temporary files, processes."""
        script = """
            ls -d /var/lib/containers/storage/ocickpt/* /run/ocickpt/op/* /var/lib/ocickpt/journal/*
            find /var/lib/ocickpt -name '.ocickpt-*'
            pgrep -a -f 'ocickpt|criu' | grep -v -e pgrep -e bin/conmon
            true
        """
        return self.sh(f"( {script} ) 2>/dev/null").splitlines()

    def reboot(self) -> None:
        """As near to a reboot as a host can come that shares its kernel."""
        self.run("sh", "-c", REBOOT)

    def leftovers(self) -> list[str]:
        """Traces, and what containers leave that are not quite gone: mounts, network namespaces, cgroups."""
        script = """
            findmnt --noheadings --list --output TARGET | grep -E '/(merged|userdata/shm)$'
            ls -d /run/netns/* /sys/fs/cgroup/libpod_parent/libpod-*
            true
        """
        return self.traces() + self.sh(f"( {script} ) 2>/dev/null").splitlines()


def flip_a_bit(digest: str) -> None:
    """Alter a bit in the middle of a blob that the lab's registry keeps; once more puts it right."""
    name = digest.removeprefix("sha256:")
    path = f"/var/lib/docker-registry/docker/registry/v2/blobs/sha256/{name[:2]}/{name}/data"
    script = f"p = open({path!r}, 'r+b'); b = p.read(); p.seek(len(b) // 2); p.write(bytes([b[len(b) // 2] ^ 1]))"
    Host("registry").run("python3", "-c", script)


def manifest_of(host: Host, pinned: str) -> dict[str, Any]:
    """The manifest of an artifact in the lab's registry, from a reference with its digest."""
    repository, _, digest = pinned.partition("@")
    reference = f"docker://{repository.rpartition(':')[0]}@{digest}"
    found: dict[str, Any] = json.loads(host.out("skopeo", "inspect", "--raw", "--tls-verify=false", reference))
    return found


DESCRIBE = (Path(__file__).parent / "programs" / "describe.py").read_text()
Tree = dict[str, dict[str, Any]]


def describe(host: Host, container: str, *directories: str) -> Tree:
    """Every file of a container below `directories`, with all there is to say of it."""
    found: Tree = json.loads(
        host.run("podman", "exec", "-i", container, "python3", "-", *directories, stdin=DESCRIBE).stdout
    )
    return found


@pytest.fixture(scope="session")
def lab() -> Iterator[dict[str, Host]]:
    hosts = {name: Host(name) for name in ("a", "b")}
    for host in hosts.values():
        host.ocickpt("setup")
    yield hosts
    for host in hosts.values():
        host.ocickpt("setup", "--undo")


@pytest.fixture
def hosts(lab: dict[str, Host]) -> Iterator[tuple[Host, Host]]:
    """Hosts a and b, without containers; nothing may be left behind on either."""
    a, b = lab["a"], lab["b"]
    for host in (a, b):
        host.clean()
        host.forget()
    yield a, b
    for host in (a, b):
        host.clean()
    assert a.leftovers() == []
    assert b.leftovers() == []


@pytest.fixture
def shared(hosts: tuple[Host, Host]) -> Iterator[str]:
    """An empty directory that both hosts see."""
    path = f"/srv/share/{uuid.uuid4().hex[:12]}"
    hosts[0].run("mkdir", path)
    yield path
    hosts[0].run("rm", "-rf", path)


@pytest.fixture
def registry(hosts: tuple[Host, Host]) -> Iterator[Host]:
    """The registry's host."""
    host = Host("registry")
    yield host
    host.run("tc", "qdisc", "del", "dev", "eth0", "root", check=False)


def slow_down(registry: Host) -> None:
    """Have it send 20 Mbit/s only."""
    registry.sh("tc qdisc add dev eth0 root tbf rate 20mbit burst 256k latency 400ms")


def fast_again(registry: Host) -> None:
    registry.run("tc", "qdisc", "del", "dev", "eth0", "root")


@pytest.fixture
def slow_registry(registry: Host) -> Host:
    slow_down(registry)
    return registry


@pytest.fixture(scope="session")
def with_systemd() -> Iterator[Host]:
    subprocess.run([str(LAB), "up", "systemd"], check=True, capture_output=True, timeout=TIMEOUT)
    host = Host("systemd")
    host.ocickpt("setup")
    yield host
    host.ocickpt("setup", "--undo")


@pytest.fixture
def target(with_systemd: Host) -> Iterator[Host]:
    with_systemd.clean()
    yield with_systemd
    with_systemd.clean()
    assert with_systemd.leftovers() == []


@pytest.fixture
def ref() -> str:
    """A fresh reference in the lab's registry."""
    return f"{REGISTRY}/t/{uuid.uuid4().hex[:12]}:1"


@pytest.fixture(params=["runc", "crun"])
def runtime(request: pytest.FixtureRequest) -> str:
    return str(request.param)


Start = Callable[..., str]


@pytest.fixture
def start(hosts: tuple[Host, Host], runtime: str) -> Start:
    """Start a container on host a with the runtime of this test."""
    a, _ = hosts

    def run(name: str, *arguments: str) -> str:
        return a.out("podman", "--runtime", runtime, "run", "--detach", "--name", name, *arguments)

    return run


Move = Callable[..., dict[str, Any]]


@pytest.fixture
def move(hosts: tuple[Host, Host], ref: str) -> Move:
    """Checkpoint a container on host a, remove it there, restore it on host b; what the checkpoint's JSON says.

    With `asking` it is refused first, and allowed as the refusal says.
    """
    a, b = hosts

    def run(name: str, *options: str, asking: bool = False) -> dict[str, Any]:
        published: dict[str, Any] = json.loads(a.ocickpt("checkpoint", "--format", "json", *options, name, ref).stdout)
        a.run("podman", "rm", name)
        given = b.refused("restore", published["reference"]) if asking else []
        b.ocickpt("restore", *given, published["reference"])
        return published

    return run


@pytest.fixture
def saved(hosts: tuple[Host, Host], start: Start, ref: str) -> str:
    """A container with memory, checkpointed under `ref`; the hash of its memory."""
    a, _ = hosts
    start("web", "localhost/python", "python3", "/memory.py", "96")
    digest = a.ask("web", "/hash")
    a.ocickpt("checkpoint", "--quiet", "web", ref)
    return digest


def states(host: Host) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(host.ocickpt("status", "--format", "json").stdout)
    return found


def until_arrived(host: Host, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while states(host):
        assert time.monotonic() < end, states(host)
        time.sleep(0.1)
