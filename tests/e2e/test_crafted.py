"""Crafted checkpoints are refused, by everything that restores, with a sentence; nothing of them runs, nothing is left.

The cases are in `tests/hostile`. Every fourth is played here, by one way under one runtime; in a long run all, by every
way under both (`make test-hostile`).
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence

import pytest

from tests.e2e.conftest import LONG, Host
from tests.hostile import kernel
from tests.hostile.case import OPTIONS, command
from tests.hostile.cases import CASES
from tests.hostile.run import REPOSITORY, WAYS

CONFIG = "/etc/ocickpt/config.toml"
HOUR = 3600.0


@pytest.fixture
def goods(hosts: tuple[Host, Host], runtime: str) -> Iterator[str]:
    """A directory with a good archive of each kind; host b restores on start what is made of them."""
    a, b = hosts
    directory = f"/srv/share/hostile-{runtime}"
    a.run("mkdir", directory)
    for name, options in OPTIONS.items():
        a.run(
            "podman",
            "--runtime",
            runtime,
            "run",
            "--detach",
            "--name",
            "web",
            *options,
            *command(name),
        )
        a.wait("podman", "exec", "web", "test", "-s", "/tmp/count")
        a.run("podman", "container", "checkpoint", "--compress", "none", "--export", f"{directory}/{name}.tar", "web")
        a.clean()
    b.sh(f"mkdir -p /etc/ocickpt; printf '[restore-on-start]\\nallow = [\"{REPOSITORY}\"]\\n' >{CONFIG}")
    yield directory
    b.run("rm", "-f", CONFIG)
    a.run("rm", "-r", directory)


def played(host: Host, runtime: str, goods: str, ways: Sequence[str], *more: str) -> int:
    """How many cases ended as they should; all must."""
    program = 'cd /usr/src/ocickpt && PYTHONDONTWRITEBYTECODE=1 exec python3 -m tests.hostile.run "$@"'
    argv = host.argv("sh", "-c", program, "run", runtime, goods, ",".join(ways), *more)
    done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=HOUR)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines, done.stderr
    *problems, last = lines
    assert problems == [], done.stderr
    assert "played" in last, done.stderr
    return int(last["played"])


def test_nothing_of_them_runs(hosts: tuple[Host, Host], goods: str, runtime: str) -> None:
    turn = ("runc", "crun").index(runtime)
    found = played(hosts[1], runtime, goods, WAYS, "all" if LONG else f"{2 * turn}/8")
    assert found == (len(CASES) * len(WAYS) if LONG else len([*CASES][2 * turn :: 8]))


def test_the_kernel_alone_shows_them(hosts: tuple[Host, Host], goods: str, runtime: str) -> None:
    """Where nobody looks at CRIU's images: they are restored, stand still, and never run. Of `test_in_process` it is
    the other half, where nobody asks the kernel."""
    turn, ways = ("runc", "crun").index(runtime), ("restore", "lazy", "start")
    found = played(hosts[1], runtime, goods, ways, "all" if LONG else f"{turn}/8", "kernel")
    cases = [*kernel.of(runtime)]
    assert found == (len(cases) * len(ways) if LONG else len(cases[turn::8]))
