"""A virtual machine with a security module in force; `make test-vm` boots one for each and runs these tests inside.

Software emulates it, and an interpreter that starts takes seconds: so the verbs are called by ocickpt's public face
in this process, and what does not change is looked at in /proc rather than asked of podman. podman, the launcher, the
shim, the runtimes and CRIU are real. What the tests say goes line by line to descriptor 3, which
`contrib/vm/vmlib/cli.py` makes a table of.
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

import ocickpt
from ocickpt.engine import host
from ocickpt.errors import OcickptError
from ocickpt.gate import tasks
from tests.conftest import LANE

MODULE = os.environ.get("OCICKPT_VM", "")
REGISTRY = "localhost:5000"
IMAGE = "localhost/busybox"
SHARE = Path("/srv/share")
MARK = SHARE / "mark"
_PATIENCE = 600.0
_RESULTS = 3

# Some memory that has to come back, and processes that are made and end.
COUNTER = """
memory=$(head -c 4000000 /dev/zero | tr '\\0' x)
number=0
while :; do number=$((number + 1)); echo "$number ${#memory}" >/tmp/new; mv /tmp/new /tmp/count; sleep 0.3; done
"""
MARKER = f"while :; do mkdir {MARK} 2>/dev/null; done"
"""Makes the mark as soon as it runs, and has no file open there, which a restore would miss."""


def tell(**message: object) -> None:
    os.write(_RESULTS, json.dumps(message).encode() + b"\n")


def pytest_collection_finish(session: pytest.Session) -> None:
    rows = []
    for item in session.items:
        parameters = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
        way = getattr(item, "originalname", item.name).removeprefix("test_").replace("_", " ")
        ways = [way, *(str(value) for name, value in parameters.items() if name != "runtime" and value)]
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


def wait(true: Callable[[], object], what: str, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, what
        time.sleep(0.2)


def _label(process: Path) -> str:
    """What the security module says of a process (proc_pid_attr(5))."""
    where = "apparmor/current" if MODULE == "apparmor" else "current"
    return (process / "attr" / where).read_text().strip("\0\n")


@dataclass(frozen=True)
class Running:
    """A container of podman's, by its id."""

    id: str

    @property
    def pid(self) -> int:
        """Of its first process, as conmon noted it down."""
        return int(Path(f"/run/containers/storage/overlay-containers/{self.id}/userdata/pidfile").read_text())

    @property
    def count(self) -> int:
        """How far it has counted, 0 before it has; its memory is whole."""
        try:
            number, _, memory = Path(f"/proc/{self.pid}/root/tmp/count").read_text().partition(" ")
        except FileNotFoundError:
            return 0
        assert memory == "4000000\n"
        return int(number)

    def counts(self, after: int = 0) -> None:
        """It counts on from there, and does not start anew."""
        before = self.count
        assert before >= after
        wait(lambda: self.count > before, f"it stands at {before}")

    def labels(self) -> set[str]:
        """What confines its processes, as the kernel says: all in its pid namespace."""
        namespace = Path(f"/proc/{self.pid}/ns/pid").readlink()
        found = set()
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it has ended
                if (process / "ns/pid").readlink() == namespace:
                    found.add(_label(process))
        return found

    def executed(self) -> str:
        """What confines a process of `podman exec`."""
        where = "apparmor/current" if MODULE == "apparmor" else "current"
        return out("podman", "exec", self.id, "cat", f"/proc/self/attr/{where}").strip("\0\n")


@pytest.fixture(scope="session", autouse=True)
def machine() -> Iterator[None]:
    """The module is in force, there is a registry and an image, and podman calls the launcher."""
    assert LANE == "vm", "these tests run inside a virtual machine: `make test-vm`"
    assert host.lsm() == MODULE
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
    ocickpt.setup()
    tell(fact=f"Linux {host.kernel()}, criu {host.criu_version()}, podman {host.podman_version()}")
    checked = run("criu", "check", "--feature", "mem_dirty_track", check=False)
    tell(fact=f"criu check --feature mem_dirty_track: {(checked.stdout + checked.stderr).strip()}")
    tell(fact=f"ready {Path('/proc/uptime').read_text().split()[0]} s after its boot")
    yield
    registry.kill()
    registry.wait()


def fresh() -> str:
    """A reference in the machine's registry that nobody had."""
    return f"{REGISTRY}/t/{uuid.uuid4().hex[:12]}:1"


@pytest.fixture(scope="module", params=["runc", "crun"])
def runtime(request: pytest.FixtureRequest) -> str:
    return str(request.param)


only_crun = pytest.mark.parametrize("runtime", ["crun"], indirect=True, scope="module")


def start(runtime: str, name: str, *options: str, program: str = COUNTER) -> Running:
    """Start a container, and wait until it counts."""
    run_it = ("podman", "--runtime", runtime, "run", "--detach", "--network", "none", "--name", name)
    found = Running(out(*run_it, *options, IMAGE, "sh", "-c", program))
    if program == COUNTER:
        wait(lambda: found.count, f"{name} does not count")
    return found


def restore(ref: str, *, name: str | None = None, lazy: bool = False, allow: tuple[str, ...] = ()) -> Running:
    return Running(ocickpt.restore(ref, name=name, lazy=lazy, allow=allow).container_id)


def remove_all() -> None:
    """Remove all containers, and see to it that nothing of an operation is left."""
    run("podman", "rm", "--all", "--force", "--time", "0")
    wait(lambda: ocickpt.status() == [], "a lazy restore goes on without its container")
    left = [*Path("/run/ocickpt/op").glob("*"), *Path("/var/lib/ocickpt/journal").glob("*")]
    assert left == []


@pytest.fixture(scope="module")
def dumped(runtime: str) -> Iterator[Path]:
    """podman's archive of a container that makes the mark all the time."""
    archive = Path("/var/tmp/web.tar")
    start(runtime, "marking", "--volume", f"{SHARE}:{SHARE}", program=MARKER)
    wait(MARK.exists, "the program does not make its mark")
    export = ("--leave-running", "--compress", "none", "--export", str(archive))
    run("podman", "container", "checkpoint", *export, "marking")
    remove_all()
    yield archive
    archive.unlink()


def stopped(ref: str, *, lazy: bool) -> str:
    """What `restore` says when it does not let `ref` run: not one instruction, and nothing is left of it."""
    if MARK.exists():
        MARK.rmdir()
    try:
        restore(ref, lazy=lazy, allow=(f"mount={SHARE}",))
        said = ""
    except OcickptError as error:
        said = error.message
    ran = MARK.exists()
    processes = run("pgrep", "-f", f"mkdir {MARK}", check=False).stdout
    containers = out("podman", "ps", "--all", "--quiet")
    remove_all()
    assert said, "it runs"
    assert not ran, f"it ran before it was stopped: {said}"
    assert (processes, containers) == ("", "")
    return said


@pytest.fixture
def blind(monkeypatch: pytest.MonkeyPatch) -> None:
    """The gate looks at no label: what the kernel says must tell."""
    monkeypatch.setattr(tasks, "_label", lambda *_: "")
