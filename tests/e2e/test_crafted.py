"""Crafted checkpoints are refused, by everything that restores, with a sentence; nothing of them runs, nothing is left.

The cases are in `tests/hostile`. Each is played once here, by one way under one runtime; in a long run by every way
under both (`make test-hostile`).
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import pytest

from tests.e2e.conftest import LONG, Host
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


def test_nothing_of_them_runs(hosts: tuple[Host, Host], goods: str, runtime: str) -> None:
    _, b = hosts
    turn = ("runc", "crun").index(runtime)
    arguments = [runtime, goods, ",".join(WAYS), "all" if LONG else f"{turn}/2"]
    program = 'cd /usr/src/ocickpt && PYTHONDONTWRITEBYTECODE=1 exec python3 -m tests.hostile.run "$@"'
    done = subprocess.run(
        b.argv("sh", "-c", program, "run", *arguments), check=False, capture_output=True, text=True, timeout=HOUR
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines, done.stderr
    *problems, last = lines
    assert problems == [], done.stderr
    assert last["played"] == (len(CASES) * len(WAYS) if LONG else len([*CASES][turn::2])), done.stderr
