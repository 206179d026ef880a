"""Whoever called for a lazy restore is killed, with all there is in his cgroup: the container does not notice."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.e2e.conftest import Host, fast_again, until_arrived

CALLER = "/sys/fs/cgroup/caller"
RETURNED = "/run/returned"
CONFIG = "/etc/ocickpt/config.toml"
SCOPES = "/etc/containers/containers.conf.d/90-scopes.conf"


def call_and_kill(host: Host, command: str) -> None:
    """Run a command in a cgroup of its own, and kill all that is in there once it has returned."""
    host.sh(f"""
        mkdir {CALLER}
        sh -c 'echo 0 >{CALLER}/cgroup.procs; {command} >{RETURNED}; exec sleep 60' &
        for _ in $(seq 600); do [ -s {RETURNED} ] && break; sleep 0.05; done
        echo 1 >{CALLER}/cgroup.kill
        wait
        rm {RETURNED}
        while [ -e {CALLER} ]; do rmdir {CALLER} 2>/dev/null || sleep 0.05; done
    """)


def assert_unharmed(host: Host, digest: str, registry: Host) -> None:
    """The memory of `web` goes on to arrive, and podman goes on to look after it."""
    assert len(host.out("pgrep", "-f", "import guard|import pageserver|lazy-pages").split()) == 3
    fast_again(registry)
    assert host.ask("web", "/hash") == digest
    until_arrived(host)
    host.run("podman", "stop", "--time", "0", "web")
    state = host.inspect("web")["State"]
    assert (state["Status"], state["ExitCode"]) == ("exited", 137)


def test_of_ocickpt_restore(hosts: tuple[Host, Host], saved: str, ref: str, slow_registry: Host) -> None:
    _, b = hosts
    call_and_kill(b, f"ocickpt restore --quiet --lazy {ref}")
    assert_unharmed(b, saved, slow_registry)


@pytest.fixture
def scopes(target: Host) -> Iterator[Host]:
    """A host where podman has systemd give conmon a scope, as podman does wherever there is systemd."""
    target.sh(f"printf '[engine]\\ncgroup_manager = \"systemd\"\\n' >{SCOPES}")
    yield target
    target.run("rm", SCOPES)


@pytest.mark.parametrize("runtime", ["runc"], indirect=True)  # crun asks systemd over D-Bus, which the lab has not
def test_of_ocickpt_restore_under_systemd(scopes: Host, saved: str, ref: str, slow_registry: Host) -> None:
    call_and_kill(scopes, f"ocickpt restore --quiet --lazy {ref}")
    conmon = scopes.inspect("web")["State"]["ConmonPid"]
    assert "/libpod-conmon-" in scopes.out("cat", f"/proc/{conmon}/cgroup")
    assert_unharmed(scopes, saved, slow_registry)


def test_of_podman_run(hosts: tuple[Host, Host], saved: str, ref: str, slow_registry: Host, runtime: str) -> None:
    _, b = hosts
    pinned = json.loads(b.out("ocickpt", "inspect", "--format", "json", ref))["reference"]
    b.sh(f"mkdir -p /etc/ocickpt; printf '[restore-on-start]\\nallow = [\"registry:5000/t\"]\\n' >{CONFIG}")
    options = f"--annotation io.ocickpt.restore={pinned} --annotation io.ocickpt.restore.lazy=true"
    command = f"podman --runtime {runtime} run --detach --name web {options} localhost/python python3 /memory.py 96"
    try:
        call_and_kill(b, command)
        assert_unharmed(b, saved, slow_registry)
    finally:
        b.run("rm", CONFIG)
