"""What processes of a container can come to be is no reason to refuse it: they drop users, they start sudo, they add
filters."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import Host, Move, Start

OBJECTS = (Path(__file__).parent / "programs" / "objects.py").read_text()
FILTERS = (Path(__file__).parent / "programs" / "filters.py").read_text()
THREADS = 200
SUDOER = "localhost/sudoer"


def test_a_database_that_drops_root(hosts: tuple[Host, Host], start: Start, move: Move) -> None:
    a, b = hosts
    drop = "exec setpriv --reuid postgres --regid postgres --init-groups"
    serve = "/usr/local/bin/postgres -D /var/lib/postgresql/data -k /tmp"
    start("db", "--user", "root", "localhost/postgres", "sh", "-c", f"{drop} {serve}")
    a.wait("podman", "exec", "--user", "postgres", "db", "pg_isready")
    a.execute("db", "setpriv", "--reuid", "postgres", "psql", "-qAt", "-c", "create table t as select 7 n")
    move("db")
    assert b.execute("db", "setpriv", "--reuid", "postgres", "psql", "-qAt", "-c", "select n from t") == "7"
    assert "0" not in b.execute("db", "grep", "^Uid", "/proc/1/status").split()


@pytest.fixture
def sudoer(hosts: tuple[Host, Host]) -> Iterator[str]:
    """An image in which everybody may use sudo; the same on both hosts."""
    a, b = hosts
    a.sh(
        "mkdir -p /tmp/sudoer && cd /tmp/sudoer && echo 'ALL ALL=(ALL) NOPASSWD: ALL' >all && chmod 440 all"
        " && printf 'FROM localhost/python\\nCOPY all /etc/sudoers.d/\\n' >Containerfile"
        f" && podman build --quiet --tag {SUDOER} . && podman save --quiet --output /srv/share/sudoer.tar {SUDOER}"
    )
    b.run("podman", "load", "--quiet", "--input", "/srv/share/sudoer.tar")
    yield SUDOER
    for host in hosts:
        host.run("podman", "rm", "--all", "--force", "--time", "0")
        host.run("podman", "rmi", SUDOER)
    a.run("rm", "/srv/share/sudoer.tar")


def test_a_user_who_became_root_by_sudo(hosts: tuple[Host, Host], start: Start, move: Move, sudoer: str) -> None:
    a, b = hosts
    start("admin", "--user", "33:33", sudoer, "sh", "-c", "sudo sleep 1000; true")
    seen = "for p in 1 $(pidof sudo sleep); do grep -E '^(Name|Uid|CapEff)' /proc/$p/status; done"
    a.wait("podman", "exec", "admin", "pidof", "sleep")
    before = a.execute("admin", "sh", "-c", seen)
    assert "Name:\tsh\nUid:\t33\t33\t33\t33" in before
    assert "Name:\tsleep\nUid:\t0\t0\t0\t0" in before
    move("admin")
    assert b.execute("admin", "sh", "-c", seen) == before


@pytest.mark.parametrize("kind", ["together", "alone"])
def test_filters_of_its_own_and_two_hundred_threads(
    hosts: tuple[Host, Host], start: Start, move: Move, kind: str
) -> None:
    a, b = hosts
    start("filtered", "localhost/python", "python3", "-c", FILTERS, str(THREADS), kind)
    before = json.loads(a.ask("filtered"))
    assert len(before) == THREADS
    assert {each[0] for each in before} == {"2"}
    if kind == "together":
        assert {(each[1], each[3]) for each in before} == {("2", 77)}
    else:
        assert [each[1] for each in before[:3]] == ["1", "2", "1"]
        assert [each[4] for each in before[:3]] == [2, 78, 2]
    move("filtered")
    assert json.loads(b.ask("filtered")) == before


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--read-only",),
        ("--user", "33:33", "--cap-drop", "all", "--security-opt", "no-new-privileges", "--env", "RUN=/tmp"),
    ],
    ids=["plain", "read-only", "a user"],
)
def test_a_process_that_has_one_of_everything(
    hosts: tuple[Host, Host], start: Start, move: Move, options: tuple[str, ...]
) -> None:
    """What CRIU writes of it is on the gate's list, field by field."""
    a, b = hosts
    start("all", *options, "localhost/python", "python3", "-c", OBJECTS)
    a.wait("podman", "exec", "all", "test", "-s", "/tmp/objects/count")
    move("all", "--file-locks")
    count = b.execute("all", "cat", "/tmp/objects/count")
    b.wait("podman", "exec", "all", "sh", "-c", f"test $(cat /tmp/objects/count) -gt {count}")
