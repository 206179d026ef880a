"""Checkpoints from somebody who wants more than a container: nothing of the host is touched, and nothing is left."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.e2e.conftest import Host
from tests.e2e.programs.evil import CASES
from tests.e2e.test_errors import copied, refused

HARMLESS = 0
# What comes of each: the exit code of `push` or else of `restore`, and what is said.
EXPECTED = {
    "a mount of the host": ("restore", 10, "asks for more than podman gives a container unasked"),
    "a mount behind a volume": ("restore", 7, "mounts '/x/volumes/data/_data/../../../etc'"),
    "hooks": ("restore", HARMLESS, ""),
    "hooks as Go reads them": ("restore", HARMLESS, ""),
    "hooks of the configuration": ("restore", HARMLESS, ""),
    "an exit command": ("restore", HARMLESS, ""),
    "a pid file": ("restore", HARMLESS, ""),
    "a log": ("restore", HARMLESS, ""),
    "a directory": ("restore", 5, "staticDir is '/srv/share/owned'"),
    "a runtime": ("restore", 6, "only runc and crun"),
    "a name": ("restore", 5, "not one that podman gives"),
    "a volume": ("push", 5, "leads outside"),
    "a symlink": ("push", 5, "below 'way', which is not a directory"),
    "a relative symlink": ("push", 5, "below 'way', which is not a directory"),
    "a symlink in a volume": ("push", 5, "below 'data/way', which is not a directory"),
    "a symlink in /dev/shm": ("restore", 5, "below 'way', which is not a directory"),
    "a way up": ("push", 5, "leads outside"),
    "a deleted file": ("push", 5, "not a path"),
    "a member outside": ("push", 5, "leads outside"),
    "a CRIU configuration": ("restore", HARMLESS, ""),
}


@pytest.fixture(scope="module")
def good(lab: dict[str, Host]) -> Iterator[str]:
    """A podman checkpoint archive of a container with a volume."""
    a, path = lab["a"], "/srv/share/good.tar"
    a.clean()
    a.run("podman", "run", "--detach", "--name", "web", "--volume", "data:/data", "localhost/busybox", "/counter.sh")
    a.wait("podman", "exec", "web", "cat", "/tmp/count")
    a.run("podman", "container", "checkpoint", "--compress", "none", "--export", path, "web")
    a.clean()
    yield path
    a.sh("cd /srv/share && rm -f good.tar evil.tar evil criu kept")


def test_no_case_is_forgotten() -> None:
    assert EXPECTED.keys() == CASES.keys()


@pytest.mark.parametrize("shim", ["with the shim", "without"])
def test_archives(hosts: tuple[Host, Host], good: str, ref: str, shim: str) -> None:
    _, host = hosts
    if shim == "without":
        host.ocickpt("setup", "--undo")
    try:
        for case, (verb, code, sentence) in EXPECTED.items():
            if shim == "with the shim" or verb == "restore":
                check(host, good, ref, case, verb, code, sentence)
    finally:
        host.ocickpt("setup")


def check(host: Host, good: str, ref: str, case: str, verb: str, code: int, sentence: str) -> None:
    program = "/usr/src/ocickpt/tests/e2e/programs/evil.py"
    host.run("python3", program, good, "/srv/share/evil.tar", case)
    done = host.ocickpt("push", "--quiet", "/srv/share/evil.tar", ref, check=False)
    if verb == "restore":
        assert done.returncode == 0, (case, done.stderr)
        done = host.ocickpt("restore", "--quiet", ref, check=False)
    if code:
        refused(done, code, sentence)
        assert host.out("podman", "ps", "--all", "--quiet") == "", case
        assert host.out("podman", "volume", "ls", "--quiet") == "", case
    else:
        assert done.returncode == 0, (case, done.stderr)
        # Whoever ends it must not run anything either.
        host.run("podman", "stop", "--time", "0", "web")
        host.clean()
    assert host.sh("cd /srv/share && ls -d owned kept 2>/dev/null; true") == "kept", case
    assert host.traces() == [], case


LIES = {
    "a smaller pack": ("layers.1.size", 1),
    "a larger pack": ("layers.1.size", 1 << 40),
    "a larger index": ("layers.0.size", 1 << 40),
    "a larger config": ("config.size", 1 << 40),
    "no index": ("layers.0.mediaType", "application/octet-stream"),
    "no layers": ("layers", []),
    "a layer of nobody": ("layers.1.digest", "sha256:" + "0" * 64),
}


@pytest.mark.parametrize("lie", LIES)
def test_manifests(hosts: tuple[Host, Host], good: str, ref: str, lie: str) -> None:
    a, b = hosts
    a.ocickpt("push", good, ref)
    layout = copied(a, ref)
    place, value = LIES[lie]
    b.run("python3", "/usr/src/ocickpt/tests/e2e/programs/alter.py", layout, f"manifest.{place}", json.dumps(value))
    done = b.ocickpt("restore", "oci:/srv/share/artifact:altered", check=False)
    refused(done, 5, "")
    assert b.out("podman", "ps", "--all", "--quiet") == ""
    assert b.out("podman", "volume", "ls", "--quiet") == ""
    a.run("rm", "-r", layout)
