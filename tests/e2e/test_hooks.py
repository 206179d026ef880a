"""OCI hooks, where no launcher stands in front of runc and crun."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.e2e.conftest import Host, Start
from tests.e2e.test_intercept import CHANGE, CHANGED, COUNTER, SEEN, configure, listed

CONFIG = "/etc/ocickpt/config.toml"


@pytest.fixture(autouse=True)
def only_hooks(hosts: tuple[Host, Host]) -> Iterator[None]:
    a, _ = hosts
    a.ocickpt("setup", "--undo")
    a.ocickpt("setup", "--hooks")
    yield
    a.run("rm", "-f", CONFIG)
    a.ocickpt("setup", "--undo")
    a.ocickpt("setup")


def test_no_dump_but_the_last_is_published_and_that_once(hosts: tuple[Host, Host], start: Start, ref: str) -> None:
    a, b = hosts
    start("web", "--annotation", f"io.ocickpt.push={ref}", "-v", "data:/data", *COUNTER)
    # While it runs on no hook runs; and when it is stopped then, its older dump is not how it ended.
    a.run("podman", "container", "checkpoint", "-R", "--keep", "web")
    a.run("podman", "stop", "--time", "0", "web")
    assert a.ocickpt("inspect", ref, check=False).returncode == 3
    a.run("podman", "start", "web")
    assert a.ask("web") == "0"
    a.execute("web", "sh", "-c", CHANGE)
    address = a.address("web")
    assert a.run("podman", "container", "checkpoint", "--keep", "web").stdout == "web\n"
    before = listed(a, ref.rpartition(":")[0])
    assert [each["name"] for each in before] == [ref]
    a.run("podman", "rm", "web")
    assert listed(a, ref.rpartition(":")[0]) == before
    assert a.traces() == []

    b.ocickpt("restore", "--quiet", ref)
    assert b.address("web") == address
    assert b.ask("web") == "1"
    assert b.execute("web", "sh", "-c", SEEN) == CHANGED


STAGES = "createRuntime", "prestart", "poststart", "poststop"


def test_when_hooks_run(hosts: tuple[Host, Host], start: Start, runtime: str) -> None:
    """The table in hooks/README.md."""
    a, _ = hosts
    places = [f"/usr/share/containers/oci/hooks.d/test-{stage}.json" for stage in STAGES]
    for stage, place in zip(STAGES, places, strict=True):
        hook = {"path": "/bin/sh", "args": ["sh", "-c", f"echo {stage} >>/tmp/stages"]}
        text = json.dumps({"version": "1.0.0", "hook": hook, "when": {"always": True}, "stages": [stage]})
        a.run("tee", place, stdin=text)

    def ran(*command: str) -> set[str]:
        a.run("podman", *command)
        return set(a.sh("cat /tmp/stages; rm -f /tmp/stages").split())

    try:
        start("web", *COUNTER)
        assert set(a.sh("cat /tmp/stages; rm /tmp/stages").split()) == {"createRuntime", "prestart", "poststart"}
        assert ran("container", "checkpoint", "-R", "web") == set()
        assert ran("container", "checkpoint", "web") == {"poststop"}
        restored = {"createRuntime", "prestart"} if runtime == "runc" else set()
        assert ran("container", "restore", "web") == restored
        assert ran("rm", "--force", "--time", "0", "web") == {"poststop"}
    finally:
        a.run("rm", "-f", "/tmp/stages", *places)


def test_the_gate(hosts: tuple[Host, Host], start: Start, ref: str, runtime: str) -> None:
    a, _ = hosts
    start("web", *COUNTER)
    assert a.ask("web") == "0"
    pinned = a.ocickpt("checkpoint", "--quiet", "web", ref).stdout.strip()
    a.run("podman", "rm", "web")

    def starts(host: Host, reference: str) -> str:
        done = host.run(
            "podman", "--runtime", runtime, "run", "--detach", "--name", "new",
            "--annotation", f"io.ocickpt.restore={reference}", *COUNTER, check=False,
        )  # fmt: skip
        said = done.stderr if done.returncode else host.ask("new")
        assert (host.inspect("new")["State"]["Pid"] == 0) == bool(done.returncode)
        host.run("podman", "rm", "--force", "--time", "0", "new")
        return said

    # crun keeps what a hook says to itself; the system log has it.
    assert ("names no digest" if runtime == "runc" else "hook") in starts(a, ref)
    assert ("does not allow" if runtime == "runc" else "hook") in starts(a, pinned)
    configure(a, '[restore-on-start]\nallow = ["registry:5000/t"]\n')
    assert ("not called through" if runtime == "runc" else "hook") in starts(a, pinned)
    # With the launcher in front it is restored, and the gate lets it.
    a.ocickpt("setup")
    assert starts(a, pinned) == "1"
