"""What goes wrong is said in a sentence, with what to do; the container is as it was, and nothing is left."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.e2e.conftest import LAB, REGISTRY, Host

COUNTER = ("localhost/python", "python3", "/counter.py")


def refused(
    done: subprocess.CompletedProcess[str], code: int, sentence: str, hint: str = ""
) -> subprocess.CompletedProcess[str]:
    """Hold what was said against what should be."""
    lines = done.stderr.splitlines()
    told = [line for line in lines if line.startswith("ocickpt: ")]
    assert done.returncode == code, done.stderr
    assert len(told) == 1, done.stderr
    assert re.search(sentence, told[0]), told[0]
    assert re.search(hint, "\n".join(line for line in lines if line.startswith("hint: "))), done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    return done


@pytest.fixture
def web(hosts: tuple[Host, Host], ref: str) -> Iterator[Host]:
    """Host a with a counter that has answered 0; whatever a test does to it, it answers 1, and no tag was written."""
    a, _ = hosts
    a.run("podman", "run", "--detach", "--name", "web", *COUNTER)
    assert a.ask("web") == "0"
    yield a
    assert a.ask("web") == "1"
    assert a.ocickpt("inspect", ref, check=False).returncode == 3


@pytest.fixture
def saved(hosts: tuple[Host, Host], ref: str) -> str:
    """A checkpoint of a counter with a volume."""
    a, _ = hosts
    a.run("podman", "run", "--detach", "--name", "web", "--volume", "data:/data", *COUNTER)
    a.ask("web")
    return a.ocickpt("checkpoint", "web", ref).stdout.strip()


def test_containers_and_references(web: Host, ref: str) -> None:
    refused(web.ocickpt("checkpoint", "nosuch", ref, check=False), 3, "no container 'nosuch'", "podman ps")
    web.run("podman", "create", "--name", "still", *COUNTER)
    refused(web.ocickpt("checkpoint", "still", ref, check=False), 7, "not running but created", "podman start")
    refused(web.ocickpt("checkpoint", "web", "registry:5000/Upper:1", check=False), 2, "not a repository", "lower case")
    refused(web.ocickpt("checkpoint", "web", f"{ref}@sha256:{'0' * 64}", check=False), 2, "goes under a tag")
    refused(web.ocickpt("restore", ref, check=False), 3, "has no tag 1", "ocickpt list")


def test_registries_that_are_not_there(web: Host) -> None:
    refused(web.ocickpt("checkpoint", "web", "registry:5999/x:1", check=False), 8, "cannot be reached", "is the regist")
    strict = ("checkpoint", "--tls-verify=true", "web", f"{REGISTRY}/x:1")
    refused(web.ocickpt(*strict, check=False), 8, "does not speak TLS", "--tls-verify=false")


@pytest.fixture
def locked_registry(hosts: tuple[Host, Host]) -> Iterator[str]:
    """A second registry, which wants a password."""
    host = Host("registry")
    host.sh(
        "mkdir -p /tmp/locked && cd /tmp/locked && htpasswd -Bbc users somebody secret 2>/dev/null && "
        "sed -e 's#:5000#:5001#; s#/var/lib/docker-registry#/tmp/locked/data#' /etc/docker/registry/config.yml >c.yml"
        " && printf 'auth:\\n  htpasswd:\\n    realm: here\\n    path: /tmp/locked/users\\n' >> c.yml &&"
        " { setsid docker-registry serve c.yml >log 2>&1 & echo $! > pid; }"
    )
    host.wait("curl", "-so", "/dev/null", "http://localhost:5001/v2/")
    yield "registry:5001/t/web:1"
    host.sh("kill $(cat /tmp/locked/pid); rm -rf /tmp/locked")


def test_a_wrong_password(web: Host, locked_registry: str) -> None:
    insecure = "--tls-verify=false"
    refused(
        web.ocickpt("checkpoint", insecure, "web", locked_registry, check=False), 9, "registry:5001", "podman login"
    )
    for password, code in (("wrong", 9), ("secret", 0)):
        auth = {"auths": {"registry:5001": {"auth": base64.b64encode(f"somebody:{password}".encode()).decode()}}}
        web.run("sh", "-c", "cat >/tmp/auth.json", stdin=json.dumps(auth))
        arguments = ("checkpoint", "--leave-running", insecure, "--authfile=/tmp/auth.json", "web", locked_registry)
        done = web.ocickpt(*arguments, check=False)
        assert done.returncode == code, done.stderr
    web.run("rm", "/tmp/auth.json")


def test_files_that_are_no_checkpoints(web: Host, ref: str) -> None:
    web.sh("echo hello >/tmp/hello; tar -C /etc -cf /tmp/etc.tar hostname")
    web.run("podman", "container", "checkpoint", "-R", "--compress", "none", "--export", "/tmp/whole.tar", "web")
    web.sh("head -c 3000000 /tmp/whole.tar >/tmp/cut.tar")
    refused(web.ocickpt("push", "/tmp/nosuch.tar", ref, check=False), 3, "there is no file")
    refused(web.ocickpt("push", "/tmp/hello", ref, check=False), 5, "no tar archive")
    refused(web.ocickpt("push", "/tmp/etc.tar", ref, check=False), 5, "not a podman checkpoint", "--export")
    refused(web.ocickpt("push", "/tmp/cut.tar", ref, check=False), 5, "Truncated")
    web.sh("rm /tmp/hello /tmp/*.tar")


def test_a_full_disk(web: Host, ref: str) -> None:
    web.sh("mkdir /tmp/full && mount -t tmpfs -o size=256k,mode=700 none /tmp/full")
    try:
        full = ("env", "OCICKPT_STORE=/tmp/full/store", "ocickpt", "checkpoint", "web", ref)
        refused(web.run(*full, check=False), 11, "[Nn]o space|disk is full", "")
    finally:
        web.sh("umount /tmp/full && rmdir /tmp/full")


def test_what_this_user_or_host_may_not(web: Host, ref: str) -> None:
    nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "env", "HOME=/nonexistent", "ocickpt")
    refused(web.run(*nobody, "checkpoint", "web", ref, check=False), 10, "root only", "as root")
    refused(web.run(*nobody, "restore", ref, check=False), 10, "root only", "as root")
    web.run("podman", "pod", "create", "--name", "pod")
    web.run("podman", "run", "--detach", "--pod", "pod", "--name", "member", *COUNTER)
    refused(web.ocickpt("checkpoint", "member", ref, check=False), 6, "part of a pod")
    web.run("podman", "pod", "rm", "--force", "--time", "0", "pod")


def test_without_criu(web: Host, saved_elsewhere: str) -> None:
    """Not on PATH, for podman's part of it neither."""
    hidden = "mount --bind /dev/null /usr/sbin/criu && mount --bind /dev/null /usr/sbin/criu.distrib"
    done = web.run("unshare", "--mount", "sh", "-c", f"{hidden} && ocickpt restore {saved_elsewhere}", check=False)
    refused(done, 10, "criu is not installed", "install")


@pytest.fixture
def saved_elsewhere(hosts: tuple[Host, Host], ref: str) -> str:
    """Another container's checkpoint, under a tag of its own."""
    a, _ = hosts
    other = ref.replace(":1", ":other")
    a.run("podman", "run", "--detach", "--name", "other", *COUNTER)
    a.ocickpt("checkpoint", "other", other)
    return other


def test_other_artifacts(hosts: tuple[Host, Host], ref: str) -> None:
    a, _ = hosts
    a.sh(f"cd /tmp && echo hello >hello && oras push --plain-http {ref} hello:text/plain && rm hello")
    refused(a.ocickpt("restore", ref, check=False), 6, "not a checkpoint of ocickpt", "podman")
    a.run("podman", "push", "--quiet", "localhost/busybox", ref)
    refused(a.ocickpt("inspect", ref, check=False), 6, "not a checkpoint of ocickpt")


CHANGES = {
    "a later version of ours": (
        "manifest.config.mediaType",
        "application/vnd.ocickpt.checkpoint.config.v2+json",
        6,
        "upgrade",
    ),
    "another architecture": ("host.arch", "arm64", 7, "arm64"),
    "another page size": ("host.pageSize", 65536, 7, "65536"),
    "a later CRIU": ("criu.version", "99.0", 7, "99.0"),
    "a later description": ("version", 2, 6, "upgrade"),
    "another name": ("container.name", "somebody", 5, "another container"),
    "less confinement": ("security.noNewPrivileges", True, 5, "security settings"),
}


def copied(host: Host, ref: str) -> str:
    """The artifact in a layout directory that both hosts see."""
    host.run("skopeo", "copy", "--quiet", "--src-tls-verify=false", f"docker://{ref}", "oci:/srv/share/artifact:1")
    return "/srv/share/artifact"


def test_changed_artifacts(hosts: tuple[Host, Host], saved: str, ref: str) -> None:
    a, b = hosts
    alter = ("python3", "/usr/src/ocickpt/tests/e2e/programs/alter.py", copied(a, ref))
    for what, (place, value, code, sentence) in CHANGES.items():
        b.run(*alter, place, json.dumps(value))
        done = b.ocickpt("restore", "oci:/srv/share/artifact:altered", check=False)
        assert done.returncode == code, (what, done.stderr)
        assert re.search(sentence, done.stderr), (what, done.stderr)
    assert b.out("podman", "ps", "--all", "--quiet") == ""
    a.run("rm", "-r", "/srv/share/artifact")


def test_any_bit(hosts: tuple[Host, Host], saved: str, ref: str) -> None:
    """A changed byte in any blob is found before anything runs."""
    a, b = hosts
    copied(a, ref)
    blobs = b.sh("ls /srv/share/artifact/blobs/sha256").split()
    assert len(blobs) >= 5
    for blob in blobs:
        path = f"/srv/share/artifact/blobs/sha256/{blob}"
        flip = f"import sys; p='{path}'; d=bytearray(open(p,'rb').read()); d[len(d)//2] ^= 1; open(p,'wb').write(d)"
        b.run("python3", "-c", flip)
        assert b.ocickpt("restore", "oci:/srv/share/artifact:1", check=False).returncode == 5
        b.run("python3", "-c", flip)
    assert b.out("podman", "ps", "--all", "--quiet") == ""
    assert b.out("podman", "volume", "ls", "--quiet") == ""
    b.ocickpt("restore", "oci:/srv/share/artifact:1")
    a.run("rm", "-r", "/srv/share/artifact")


def test_what_is_there_already(hosts: tuple[Host, Host], saved: str) -> None:
    a, b = hosts
    refused(a.ocickpt("restore", saved, check=False), 4, "container 'web' on this host", "-n NAME")
    refused(b.ocickpt("restore", "--name", "copy", saved, check=False), 2, "volume 'data'", "--ignore-volumes")
    b.run("podman", "volume", "create", "data")
    refused(b.ocickpt("restore", saved, check=False), 4, "volume 'data' on this host", "--ignore-volumes")
    b.run("podman", "volume", "rm", "data")
    address = a.inspect("web")["NetworkSettings"]["IPAddress"] or saved_address(a)
    b.run("podman", "run", "--detach", "--name", "squatter", "--ip", address, *COUNTER)
    refused(b.ocickpt("restore", saved, check=False), 4, "address", "--ignore-static-ip")
    assert b.out("podman", "volume", "ls", "--quiet") == ""
    b.ocickpt("restore", "--ignore-static-ip", saved)
    assert b.ask("web") == "1"


def saved_address(host: Host) -> str:
    """The address a checkpointed container had, which podman keeps beside its images."""
    status = json.loads(host.sh("cat /var/lib/containers/storage/overlay-containers/*/userdata/network.status"))
    return str(status["podman"]["interfaces"]["eth0"]["subnets"][0]["ipnet"]).partition("/")[0]


def test_an_image_that_is_not_there(hosts: tuple[Host, Host], ref: str) -> None:
    a, b = hosts
    a.run("podman", "run", "--detach", "--name", "only", "localhost/only-a", "sleep", "1000")
    a.ocickpt("checkpoint", "only", ref)
    refused(b.ocickpt("restore", ref, check=False), 3, "localhost/only-a.* is not on this host", "podman load")


def test_established_connections(web: Host, ref: str) -> None:
    address = web.address("web")
    hold = web.argv("bash", "-c", f"exec 3<>/dev/tcp/{address}/8080; echo held; read -r end")
    with subprocess.Popen(hold, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holding:
        assert holding.stdout
        assert holding.stdout.readline() == "held\n"
        refused(web.ocickpt("checkpoint", "web", ref, check=False), 12, "TCP", "--tcp-established")
        holding.communicate("end\n")


def test_the_registry_dies_in_the_middle_of_a_push(hosts: tuple[Host, Host], ref: str) -> None:
    a, b = hosts
    registry = Host("registry")
    a.run("podman", "run", "--detach", "--name", "big", "localhost/python", "python3", "/memory.py", "128")
    digest = a.ask("big", "/hash")
    # The other way, from a to the registry, is what a push takes.
    a.sh("tc qdisc add dev eth0 root tbf rate 80mbit burst 256k latency 400ms")
    with subprocess.Popen(a.argv("ocickpt", "checkpoint", "big", ref), stderr=subprocess.PIPE, text=True) as push:
        time.sleep(6)
        registry.run("pkill", "-x", "docker-registry")
        _, stderr = push.communicate(timeout=120)
    a.run("tc", "qdisc", "del", "dev", "eth0", "root")
    assert push.returncode == 8, stderr
    assert "the same command again publishes it" in stderr
    subprocess.run([LAB, "up"], check=True, capture_output=True, timeout=60)
    assert a.ocickpt("inspect", ref, check=False).returncode == 3
    assert "unpublished" in a.ocickpt("list").stdout
    again = json.loads(a.ocickpt("checkpoint", "--format", "json", "big", ref).stdout)
    # What had arrived is not sent twice.
    assert again["present"] > 0
    a.run("podman", "rm", "big")
    b.ocickpt("restore", ref)
    assert b.ask("big", "/hash") == digest
