"""`podman container checkpoint`, which goes into the registry as well."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.e2e.conftest import REGISTRY, Host, Start

COUNTER = ("localhost/python", "python3", "/counter.py")
CONFIG = "/etc/ocickpt/config.toml"
LAUNCHER = "/usr/local/libexec/ocickpt/crun"
CHANGE = "echo kept >/data/file; echo changed >/etc/motd; rm /etc/issue; echo shm >/dev/shm/x; mkdir -m 700 /srv/new"
SEEN = "cat /data/file /etc/motd /dev/shm/x; stat -c %a /srv/new; test ! -e /etc/issue"
CHANGED = "kept\nchanged\nshm\n700"
one_runtime = pytest.mark.parametrize("runtime", ["crun"], indirect=True)


@pytest.fixture(autouse=True)
def no_configuration(hosts: tuple[Host, Host]) -> Iterator[None]:
    a, _ = hosts
    yield
    a.run("rm", "-rf", CONFIG, "/srv/share/x.tar")


def configure(host: Host, text: str) -> None:
    host.sh(f"mkdir -p /etc/ocickpt; printf '%s' '{text}' >{CONFIG}")


def run(start: Start, ref: str, *options: str) -> None:
    start("web", "--annotation", f"io.ocickpt.push={ref}", *options, *COUNTER)


def away(host: Host, what: str) -> None:
    """Make the registry unreachable ("add"), and reachable again ("del")."""
    host.sh(f"ip route {what} unreachable $(getent hosts registry | cut -d' ' -f1)")


def listed(host: Host, *repository: str) -> list[dict[str, str]]:
    found: list[dict[str, str]] = json.loads(host.ocickpt("list", "--format", "json", *repository).stdout)
    return found


def test_it_is_published_and_podman_has_its_own(hosts: tuple[Host, Host], start: Start, ref: str) -> None:
    a, b = hosts
    run(start, ref, "-v", "data:/data")
    assert a.ask("web") == "0"
    a.execute("web", "sh", "-c", CHANGE)
    done = a.run("podman", "container", "checkpoint", "-R", "web")
    assert done.stdout == "web\n"
    assert done.stderr.startswith(f"{ref}@sha256:")
    first = done.stderr.strip()
    assert a.ask("web") == "1"
    assert a.traces() == []
    done = a.run("podman", "container", "checkpoint", "web")
    assert done.stderr.strip() not in ("", first)
    assert a.traces() == []
    address = a.inspect("web")["NetworkSettings"]["IPAddress"]

    b.ocickpt("restore", "--quiet", ref)
    assert address in ("", b.address("web"))
    assert b.ask("web") == "2"
    assert b.execute("web", "sh", "-c", SEEN) == CHANGED
    b.clean()
    b.ocickpt("restore", "--quiet", first)
    assert b.ask("web") == "1"
    assert b.execute("web", "sh", "-c", SEEN) == CHANGED

    a.ocickpt("setup", "--undo")
    a.run("podman", "container", "restore", "web")
    a.ocickpt("setup")
    assert a.ask("web") == "2"
    assert a.execute("web", "sh", "-c", SEEN) == CHANGED


@one_runtime
def test_an_export_is_whole_too(hosts: tuple[Host, Host], start: Start, ref: str) -> None:
    a, b = hosts
    run(start, ref, "--rm")
    assert a.ask("web") == "0"
    a.run("podman", "container", "checkpoint", "--export", "/srv/share/x.tar", "web")
    assert a.traces() == []
    b.ocickpt("restore", "--quiet", ref)
    assert b.ask("web") == "1"
    a.run("podman", "container", "restore", "--import", "/srv/share/x.tar")
    assert a.ask("web") == "1"


@one_runtime
def test_what_the_registry_does_not_take_is_not_lost(hosts: tuple[Host, Host], start: Start, ref: str) -> None:
    a, b = hosts
    run(start, ref, "-v", "data:/data")
    assert a.ask("web") == "0"
    away(a, "add")
    try:
        for running in (["-R"], []):
            done = a.run("podman", "container", "checkpoint", *running, "web")
            assert (done.stdout, done.returncode) == ("web\n", 0)
            assert "cannot be reached" in done.stderr
            assert "ocickpt push web" in done.stderr
            assert a.sh("ls /var/lib/containers/storage") == a.sh("ls /var/lib/containers/storage | grep -v ocickpt")
        # The newer one takes the place of the older.
        (kept,) = listed(a)
        assert kept["name"].startswith("web:")
        assert kept["state"].startswith(f"unpublished as {ref}: {REGISTRY} cannot be reached")
        assert "not published" in a.ocickpt("doctor").stdout
        assert a.ocickpt("push", "web", check=False).returncode == 8
        a.run("podman", "rm", "web")
    finally:
        away(a, "del")
    assert a.ocickpt("push", "--quiet", "web").stdout.startswith(f"{ref}@sha256:")
    assert listed(a) == []
    assert a.traces() == []
    assert a.sh("ls /var/lib/ocickpt/blobs/sha256") == ""
    assert a.ocickpt("push", "web", check=False).returncode == 3
    b.ocickpt("restore", "--quiet", ref)
    assert b.ask("web") == "1"


@one_runtime
def test_a_repository_for_all_and_in_the_background(hosts: tuple[Host, Host], start: Start, ref: str) -> None:
    a, b = hosts
    repository = ref.rpartition(":")[0]
    configure(a, f'push = "background"\nrepository = "{repository}"')
    start("web", *COUNTER)
    assert a.ask("web") == "0"
    done = a.run("podman", "container", "checkpoint", "web")
    assert (done.stdout, done.stderr) == ("web\n", "")
    a.wait("sh", "-c", f"ocickpt list {repository}/web | grep -q web:")
    a.wait("sh", "-c", "! ls -d /var/lib/ocickpt/journal/* /var/lib/containers/storage/ocickpt 2>/dev/null")
    (found,) = listed(a, f"{repository}/web")
    b.ocickpt("restore", "--quiet", found["name"])
    assert b.ask("web") == "1"
    # Nor does podman say more than it always says where it waits: whoever called it has not asked for this.
    configure(a, f'repository = "{repository}"')
    a.run("podman", "container", "restore", "web")
    done = a.run("podman", "container", "checkpoint", "web")
    assert (done.stdout, done.stderr) == ("web\n", "")
    assert len(listed(a, f"{repository}/web")) == 2


@one_runtime
def test_podman_needs_nothing_of_ours(hosts: tuple[Host, Host], start: Start, ref: str) -> None:
    a, _ = hosts
    for broken in ("configuration", "reference", "program"):
        if broken == "configuration":
            configure(a, "repository = 7")
        if broken == "program":
            a.sh(f"sed -i 's#^_ocickpt_python=.*#_ocickpt_python=/nowhere#' {LAUNCHER}")
        run(start, "NOT:A:REFERENCE" if broken == "reference" else ref)
        assert a.ask("web") == "0"
        done = a.run("podman", "container", "checkpoint", "web")
        assert done.stdout == "web\n"
        assert ("podman's alone" in done.stderr) == (broken != "program")
        a.run("podman", "container", "restore", "web")
        assert a.ask("web") == "1"
        a.run("podman", "rm", "--force", "--time", "0", "web")
        a.run("rm", "-f", CONFIG)
    a.ocickpt("setup")
    assert a.ocickpt("inspect", ref, check=False).returncode == 3


@one_runtime
@pytest.mark.parametrize(
    ("running", "points"),
    [(True, ("frozen", "dumped.before", "close.before")), (False, ("begun", "dumped", "published.before"))],
    ids=["-R", "stopped"],
)
def test_killed_in_the_middle(
    hosts: tuple[Host, Host], start: Start, ref: str, running: bool, points: tuple[str, ...]
) -> None:
    a, _ = hosts
    run(start, ref)
    for number, point in enumerate(points):
        assert a.ask("web") == str(number)
        a.sh(f"sed -i 's/ exec \"$_ocickpt_python\"/ OCICKPT_FAILPOINT=intercept.{point}&/' {LAUNCHER}")
        done = a.run("podman", "container", "checkpoint", *(["-R"] if running else []), "web", check=False)
        assert done.returncode, point
        a.sh("ocickpt setup; ocickpt doctor")
        if not running and a.inspect("web")["State"]["Status"] != "running":
            a.run("podman", "container", "restore", "web")
        if point in ("dumped", "published.before"):
            (kept,) = listed(a)
            assert "interrupted" in kept["state"], point
            a.ocickpt("push", "--quiet", "web")
        assert a.traces() == [], point
    assert a.ask("web") == str(len(points))
