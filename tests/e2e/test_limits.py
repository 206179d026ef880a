"""What cannot be checkpointed is told in one sentence, and goes on as it was; what cannot go on is told, too."""

from __future__ import annotations

import json

import pytest

from tests.e2e.conftest import Host, Start

# How the container is made, and what the sentence names. A user namespace needs no running container.
ALONE = [
    (("--ipc", "host"), "--ipc=host"),
    (("--cgroups", "disabled"), "--cgroups=disabled"),
    (("--uidmap", "0:100000:65536", "--gidmap", "0:100000:65536"), "--userns"),
    (("--pod", "new:group"), "pod"),
    (("--network", "container:other"), "namespaces"),
    (("--volume", "/opt:/x:O"), "overlay or image volumes, which no checkpoint holds: /x"),
]


@pytest.mark.parametrize("runtime", ["crun"], indirect=True)
def test_one_sentence_for_what_podman_cannot_do(hosts: tuple[Host, Host], start: Start, ref: str) -> None:
    a, _ = hosts
    start("other", "localhost/busybox")
    for options, named in ALONE:
        start("it", *options, "localhost/busybox")
        refused = a.ocickpt("checkpoint", "it", ref, check=False)
        sentence, hint = refused.stderr.splitlines()
        assert (refused.returncode, refused.stdout) == (6, ""), sentence
        assert "container 'it'" in sentence and named in sentence
        assert hint == "hint: nothing was done to it: it runs on"
        assert a.inspect("it")["State"]["Status"] == "running"
        a.run("podman", "rm", "--force", "--time", "0", "it")
    a.run("podman", "pod", "rm", "--force", "--time", "0", "group")
    assert json.loads(a.ocickpt("list", "--format", "json", ref.rpartition(":")[0]).stdout) == []


def test_what_criu_cannot_restore_leaves_nothing(hosts: tuple[Host, Host], start: Start, ref: str) -> None:
    """A process has a file open that was left out."""
    a, b = hosts
    start("open", "--volume", "data:/data", "localhost/busybox", "sh", "-c", "exec 3>/opened; exec sleep 1000")
    a.wait("podman", "exec", "open", "ls", "/opened")
    a.ocickpt("checkpoint", "--ignore-rootfs", "open", ref)
    refused = b.ocickpt("restore", "--quiet", ref, check=False)
    assert refused.returncode == 12
    assert "CRIU cannot restore container 'open'" in refused.stderr and "opened" in refused.stderr
    assert b.out("podman", "ps", "--all", "--quiet") + b.out("podman", "volume", "ls", "--quiet") == ""


@pytest.mark.parametrize("runtime", ["runc"], indirect=True)
def test_a_healthcheck_without_systemd(hosts: tuple[Host, Host], start: Start, ref: str) -> None:
    """Nothing would run it: that is told, and everything else goes on."""
    a, b = hosts
    start("checked", "--health-cmd", "test -e /tmp/count", "--health-interval", "1s", "localhost/busybox")
    a.run("podman", "exec", "--detach", "checked", "sleep", "1000")
    assert "what `podman exec` started" in a.ocickpt("checkpoint", "checked", ref).stderr
    restored = b.ocickpt("restore", ref)
    assert "healthchecks by systemd, which this host does not" in restored.stderr
    assert b.inspect("checked")["State"]["Status"] == "running"
    b.run("podman", "healthcheck", "run", "checked")
