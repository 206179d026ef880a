"""A virtual machine with a security module in force; `make test-vm` boots one for each and runs these tests inside.

What the tests say goes line by line to descriptor 3, which `contrib/vm/vmlib/cli.py` makes a table of.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from ocickpt.engine import host
from tests.conftest import LANE

MODULE = os.environ.get("OCICKPT_VM", "")
REGISTRY = "localhost:5000"
IMAGE = "localhost/busybox"
SHARE = Path("/srv/share")
_PATIENCE = 120.0
_RESULTS = 3

# Some memory that has to come back, and processes that are made and end.
COUNTER = """
memory=$(head -c 4000000 /dev/zero | tr '\\0' x)
number=0
while :; do number=$((number + 1)); echo "$number ${#memory}" >/tmp/count; sleep 0.3; done
"""


def tell(**message: object) -> None:
    os.write(_RESULTS, json.dumps(message).encode() + b"\n")


def pytest_collection_finish(session: pytest.Session) -> None:
    rows = []
    for item in session.items:
        parameters = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
        way = getattr(item, "originalname", item.name).removeprefix("test_").replace("_", " ")
        ways = [way, *(str(value) for name, value in parameters.items() if name != "runtime")]
        rows.append({"name": item.nodeid, "runtime": parameters.get("runtime", "-"), "way": ", ".join(ways)})
    if LANE == "vm":
        tell(rows=rows)


_FAILED: dict[str, str] = {}


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """A phase of a test: what was skipped has failed, for the machine was made for it."""
    if not report.passed:
        _FAILED[report.nodeid] = f"{_FAILED.get(report.nodeid, '')}{report.longreprtext}\n"
    why = _FAILED.get(report.nodeid, "")
    if LANE == "vm":
        result, last = "failed" if why else "passed", report.when == "teardown"
        tell(name=report.nodeid, result=result, seconds=report.duration, why=why, last=last)


def pytest_sessionfinish(exitstatus: int) -> None:
    if LANE == "vm":
        tell(end=int(exitstatus))


def run(*command: str, check: bool = True, stdin: str = "") -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, check=False, capture_output=True, text=True, input=stdin, timeout=_PATIENCE)
    if check and done.returncode:
        raise AssertionError(f"{' '.join(command)}\nexit {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done


def out(*command: str) -> str:
    return run(*command).stdout.strip()


def wait(true: Callable[[], object], what: str, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, what
        time.sleep(0.2)


@dataclass(frozen=True)
class Running:
    """A container of podman's."""

    name: str

    @property
    def state(self) -> str:
        return out("podman", "inspect", "--format", "{{.State.Status}}", self.name)

    @property
    def count(self) -> int:
        """How far it has counted; its memory is whole."""
        number, _, memory = out("podman", "exec", self.name, "cat", "/tmp/count").partition(" ")
        assert memory == "4000000"
        return int(number)

    def goes_on(self, after: int) -> None:
        """It counts on from where it was, and does not start anew."""
        wait(lambda: self.count > after + 1, f"{self.name} does not go on from {after}")

    def labels(self) -> set[str]:
        """What confines its processes, as the kernel says: all in its pid namespace."""
        first = out("podman", "inspect", "--format", "{{.State.Pid}}", self.name)
        namespace = Path(f"/proc/{first}/ns/pid").readlink()
        found = set()
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it has ended
                if (process / "ns/pid").readlink() == namespace:
                    found.add(label(process))
        return found

    def executed(self) -> str:
        """What confines a process of `podman exec`."""
        where = "apparmor/current" if MODULE == "apparmor" else "current"
        return out("podman", "exec", self.name, "cat", f"/proc/self/attr/{where}").strip("\0\n")


def label(process: Path) -> str:
    """What the security module says of a process (proc_pid_attr(5))."""
    where = "apparmor/current" if MODULE == "apparmor" else "current"
    return (process / "attr" / where).read_text().strip("\0\n")


@pytest.fixture(scope="session", autouse=True)
def machine() -> Iterator[None]:
    """The module is in force, there is a registry and an image, and podman calls the launcher."""
    assert LANE == "vm", "these tests run inside a virtual machine: `make test-vm`"
    assert host.lsm() == MODULE
    tell(fact=f"uptime {Path('/proc/uptime').read_text().split()[0]} s when tests began")
    registry = subprocess.Popen(
        ["docker-registry", "serve", "/etc/docker/registry/config.yml"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    tree = Path("/var/tmp/tree")
    (tree / "tmp").mkdir(parents=True)
    script = f"""
        cd {tree} && mkdir bin etc && cp /usr/bin/busybox bin/ && chroot . /bin/busybox --install -s /bin
        echo root:x:0:0:root:/root:/bin/sh >etc/passwd
        tar -c . | podman import --quiet - {IMAGE}
    """
    run("sh", "-euc", script)
    SHARE.mkdir(exist_ok=True)
    run("ocickpt", "setup")
    told = run("criu", "check", "--feature", "mem_dirty_track", check=False)
    tell(fact=f"Linux {host.kernel()}, criu {host.criu_version()}, podman {host.podman_version()}")
    tell(fact=f"uptime {Path('/proc/uptime').read_text().split()[0]} s when all was ready")
    tell(fact=f"criu check --feature mem_dirty_track: {(told.stdout + told.stderr).strip()} (status {told.returncode})")
    yield
    registry.kill()
    registry.wait()


@pytest.fixture
def ref() -> str:
    """A fresh reference in the machine's registry."""
    return f"{REGISTRY}/t/{uuid.uuid4().hex[:12]}:1"


@pytest.fixture(params=["runc", "crun"])
def runtime(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(autouse=True)
def _clean() -> Iterator[None]:
    """No container is left over from one test to the next, and nothing of ocickpt's."""
    yield
    run("podman", "rm", "--all", "--force", "--time", "0")
    left = [*Path("/run/ocickpt/op").glob("*"), *Path("/var/lib/ocickpt/journal").glob("*")]
    assert left == []


Start = Callable[..., Running]


@pytest.fixture
def start(runtime: str) -> Start:
    """Start a container with the runtime of this test, and wait until it counts."""

    def started(name: str, *options: str, program: str = COUNTER) -> Running:
        run("podman", "--runtime", runtime, "run", "--detach", "--name", name, *options, IMAGE, "sh", "-c", program)
        return Running(name)

    return started


def counting(container: Running) -> Running:
    """When it has counted."""
    ready = ("podman", "exec", container.name, "test", "-s", "/tmp/count")
    wait(lambda: run(*ready, check=False).returncode == 0, f"{container.name} does not count")
    return container


MARK = SHARE / "mark"
MARKING = f"while :; do echo >{MARK}; done"
"""A program that makes the mark whenever it runs an instruction."""
MOUNTED = ("--volume", f"{SHARE}:{SHARE}")
_BLIND = """
import sys
from ocickpt.__main__ import main
from ocickpt.gate import tasks
assert tasks._label
tasks._label = lambda *_: ""
sys.exit(main())
"""


@pytest.fixture
def dumped(start: Start) -> Iterator[Path]:
    """podman's archive of a container that makes the mark all the time; neither container nor mark is left."""
    archive = Path("/var/tmp/web.tar")
    start("web", *MOUNTED, program=MARKING)
    wait(MARK.exists, "the program makes its mark")
    run("podman", "container", "checkpoint", "--leave-running", "--export", str(archive), "--compress", "none", "web")
    run("podman", "rm", "--force", "--time", "0", "web")
    MARK.unlink()
    yield archive
    archive.unlink()
    MARK.unlink(missing_ok=True)


def stopped(ref: str, way: str, *, blind: bool) -> str:
    """What `restore` says when it does not let `ref` run: not one instruction, and nothing is left of it.

    `blind`: the gate looks at no label, and only what the kernel says can tell.
    """
    ocickpt = ["python3", "-c", _BLIND] if blind else ["ocickpt"]
    options = ["--allow", f"mount={SHARE}", *(["--lazy"] if way == "lazy" else [])]
    done = run(*ocickpt, "restore", *options, ref, check=False)
    ran = MARK.exists()
    assert done.returncode, done.stdout
    assert not ran, f"it ran before it was stopped: {done.stderr}"
    assert "this is a bug" not in done.stderr
    assert out("podman", "ps", "--all", "--quiet") == ""
    assert run("pgrep", "-f", MARKING, check=False).stdout == ""
    return done.stderr
