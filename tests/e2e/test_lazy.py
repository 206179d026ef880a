"""A lazy restore: the container runs, its memory follows, and no wrong byte is ever seen."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from pathlib import Path

from ocickpt.operations.journal import Restore
from tests.e2e.conftest import Host, Start, fast_again, flip_a_bit, manifest_of, states, until_arrived

ALIGNED = (Path(__file__).parent / "programs" / "aligned.py").read_text()


def test_all_memory_arrives(hosts: tuple[Host, Host], saved: str, ref: str) -> None:
    _, b = hosts
    restored = b.ocickpt("restore", "--lazy", ref)
    assert "follow" in restored.stderr
    assert b.ask("web", "/hash") == saved
    until_arrived(b)
    # Nothing of it is left, and the container is one like any other: it moves on.
    assert b.traces() == []
    b.ocickpt("checkpoint", "--quiet", "web", ref)
    b.run("podman", "rm", "web")
    b.ocickpt("restore", "--quiet", ref)
    assert b.ask("web", "/hash") == saved


def test_memory_follows_wherever_the_stack_pointers_are(hosts: tuple[Host, Host], start: Start, ref: str) -> None:
    a, b = hosts
    start("web", "localhost/python", "python3", "-c", ALIGNED, "96")
    digest = a.ask("web", "/hash")
    a.ocickpt("checkpoint", "--quiet", "web", ref)
    follows = re.search(r"([\d.]+) MB follow", b.ocickpt("restore", "--lazy", ref).stderr)
    assert follows
    assert float(follows[1]) > 96
    assert b.ask("web", "/hash") == digest
    until_arrived(b)


def test_a_checkpoint_waits_for_the_memory(
    hosts: tuple[Host, Host], saved: str, ref: str, slow_registry: Host, runtime: str
) -> None:
    _, b = hosts
    b.ocickpt("restore", "--quiet", "--lazy", ref)
    assert [each["state"] for each in states(b)] == ["running"]
    fast_again(slow_registry)
    if runtime == "runc":
        b.run("podman", "container", "checkpoint", "web")
        b.run("podman", "container", "restore", "web")
    else:
        b.ocickpt("checkpoint", "--quiet", "web", ref)
        b.run("podman", "rm", "web")
        b.ocickpt("restore", "--quiet", ref)
    assert b.ask("web", "/hash") == saved


def test_an_altered_bit_reaches_no_process(hosts: tuple[Host, Host], saved: str, ref: str) -> None:
    _, b = hosts
    pinned = json.loads(b.ocickpt("inspect", "--format", "json", ref).stdout)["reference"]
    memory = [each for each in manifest_of(b, pinned)["layers"] if ".memory" in each["mediaType"]]
    flip_a_bit(max(memory, key=lambda layer: int(layer["size"]))["digest"])
    b.ocickpt("restore", "--quiet", "--lazy", ref)
    b.wait("sh", "-c", "test $(podman inspect --format '{{.State.Running}}' web) = false")
    b.wait("sh", "-c", "ocickpt status --format json | grep -q failed")
    assert "a chunk" in str(states(b)[0]["error"])
    b.run("podman", "rm", "web")
    assert states(b) == []


def test_a_reboot_in_the_middle(hosts: tuple[Host, Host], saved: str, ref: str, slow_registry: Host) -> None:
    _, b = hosts
    b.ocickpt("restore", "--quiet", "--lazy", ref)
    b.reboot()
    assert b.inspect("web")["State"]["Running"] is False
    b.ocickpt("doctor", check=False)
    assert b.traces() == []
    fast_again(slow_registry)
    b.run("podman", "rm", "web")
    b.ocickpt("restore", "--quiet", ref)
    assert b.ask("web", "/hash") == saved


def test_removed_in_the_middle(hosts: tuple[Host, Host], saved: str, ref: str, slow_registry: Host) -> None:
    _, b = hosts
    b.ocickpt("restore", "--quiet", "--lazy", ref)
    assert states(b)
    b.run("podman", "rm", "--force", "--time", "0", "web")
    until_arrived(b)
    b.wait("sh", "-c", "! pgrep -f '[i]mport guard'")  # which ends when it has removed the last of it
    assert b.leftovers() == []


def test_ocickpt_is_killed(hosts: tuple[Host, Host], saved: str, ref: str) -> None:
    """At every step, and at moments before there is any: the same command makes it whole."""
    _, b = hosts
    steps = [f"restore.{step}" for step in Restore.steps]
    for point in (*(moment for step in steps for moment in (f"{step}.before", step)), 0.1, 0.15, 0.2, 0.25, 0.3):
        if isinstance(point, float):
            dying = ["timeout", "--foreground", "-s", "KILL", str(point), "ocickpt"]
        else:
            dying = ["env", f"OCICKPT_FAILPOINT={point}", "ocickpt"]
        died = b.run(*dying, "restore", "--quiet", "--lazy", ref, check=False)
        assert died.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL), f"{point} was not reached: {died.stderr}"
        b.ocickpt("restore", "--quiet", "--lazy", ref)
        assert b.ask("web", "/hash") == saved, point
        until_arrived(b)
        b.wait("sh", "-c", "! pgrep -f '[i]mport guard'")  # which ends when it has removed the last of it
        assert b.traces() == [], point
        b.run("podman", "rm", "--force", "--time", "0", "web")
        assert b.leftovers() == [], point


def test_the_page_server_is_killed(hosts: tuple[Host, Host], saved: str, ref: str, slow_registry: Host) -> None:
    _, b = hosts
    b.ocickpt("restore", "--quiet", "--lazy", ref)
    b.run("pkill", "-KILL", "-f", "import pageserver")
    b.wait("sh", "-c", "test $(podman inspect --format '{{.State.Running}}' web) = false")
    end = time.monotonic() + 10
    while [each["state"] for each in states(b)] != ["failed"]:
        assert time.monotonic() < end
        time.sleep(0.1)
    assert "page server" in str(states(b)[0]["error"])
    b.run("podman", "rm", "--force", "web")
    assert states(b) == []


MOMENTS = ["never", "while CRIU restores", *(f"restore.{step}" for step in Restore.steps)]


def killed_in_a_restore(host: Host, ref: str, moment: str) -> None:
    if moment == "never":
        host.ocickpt("restore", "--quiet", "--lazy", ref)
    elif moment.startswith("restore."):
        host.run("env", f"OCICKPT_FAILPOINT={moment}", "ocickpt", "restore", "--quiet", "--lazy", ref, check=False)
    else:
        wait = "until pgrep -f '^/usr/(s?)bin/.?run.? .*restore '; do :; done; pkill -KILL -f '[o]cickpt restore'"
        killing = subprocess.Popen(host.argv("timeout", "30", "sh", "-c", wait), stdout=subprocess.DEVNULL)
        host.run("ocickpt", "restore", "--quiet", "--lazy", ref, check=False)
        assert killing.wait() == 0


def test_a_lazy_restore_changes_nothing_for_the_next_checkpoint(
    hosts: tuple[Host, Host], saved: str, ref: str, runtime: str
) -> None:
    """Whoever dies when: the container is as podman made it, and the host's configuration of CRIU is in force."""
    _, b = hosts
    configuration = f"/etc/criu/{runtime}.conf"
    usual = b.sh(f"cat {configuration}")
    try:
        b.sh(f"echo 'log-file=asked-for.log' >>{configuration}")
        for moment in MOMENTS:
            killed_in_a_restore(b, ref, moment)
            b.ocickpt("restore", "--quiet", "--lazy", ref, check=False)  # one that was whole is there already
            until_arrived(b)
            assert b.ask("web", "/hash") == saved, moment
            bundle = b.inspect("web")["StaticDir"]
            state = f"/run/{runtime}/{b.inspect('web')['Id']}"
            assert b.sh(f"grep -l org.criu.config {bundle}/config.json {state}/* || true") == "", moment
            b.run("podman", "container", "checkpoint", "web")
            assert b.sh(f"grep -c 'Dumping finished successfully' {bundle}/asked-for.log") == "1", moment
            b.run("podman", "container", "restore", "web")
            assert b.ask("web", "/hash") == saved, moment
            b.run("podman", "stop", "--time", "0", "web")
            b.run("podman", "start", "web")
            b.ask("web")
            b.run("podman", "rm", "--force", "--time", "0", "web")
            assert b.leftovers() == [], moment
    finally:
        b.run("sh", "-c", f"cat >{configuration}", stdin=f"{usual}\n")


def test_the_guard_is_killed(hosts: tuple[Host, Host], saved: str, ref: str, slow_registry: Host) -> None:
    """Nobody would keep zeros from the container, if what brings its memory died: it is killed by the next call."""
    _, b = hosts
    b.ocickpt("restore", "--quiet", "--lazy", ref)
    b.run("pkill", "-KILL", "-f", "import guard")
    assert [each["state"] for each in states(b)] == ["failed"]
    assert "'web' was killed" in b.ocickpt("doctor").stdout
    assert b.inspect("web")["State"]["Running"] is False
    assert b.traces() == []
    b.run("podman", "rm", "web")
    assert states(b) == []


def test_the_registry_goes_away_for_a_while(
    hosts: tuple[Host, Host], saved: str, ref: str, slow_registry: Host
) -> None:
    _, b = hosts
    b.ocickpt("restore", "--quiet", "--lazy", ref)
    slow_registry.run("pkill", "-KILL", "-x", "docker-registry")
    time.sleep(20)
    fast_again(slow_registry)
    slow_registry.run("/etc/rc.local")
    assert b.ask("web", "/hash") == saved
    until_arrived(b)
