"""What people move while it works: databases under load, a JVM, node, a tree of processes, somebody's terminal.

All of it in `make test-long`; a test run plays the tree of processes.
"""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import struct
import subprocess
import termios
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import LAB, LONG, TIMEOUT, Host, Move, Start, until_arrived

PROGRAMS = Path(__file__).parent / "programs"
LANGUAGES = "localhost/languages"
COPIES = 20
TREE = """
import os, time
for generation in range(3):
    if os.fork():
        break
    if generation == 2 and os.fork() == 0:
        os.setsid()
count = 0
while True:
    count += 1
    with open(f"/tmp/{os.getpid()}.new", "w") as file:
        file.write(str(count))
    os.rename(f"/tmp/{os.getpid()}.new", f"/tmp/count-{os.getpid()}")
    time.sleep(0.02)
"""
lazily = pytest.mark.parametrize(
    "lazy", [False, True] if LONG else [True], ids=lambda lazy: "lazy" if lazy else "eager"
)


@pytest.fixture(scope="session")
def languages(lab: dict[str, Host]) -> Iterator[str]:
    """The image with a JVM and node; the same on both hosts."""
    built = subprocess.run([LAB, "build", "languages"], check=True, capture_output=True, text=True, timeout=900)
    a, b = lab["a"], lab["b"]
    share = Path(subprocess.run([LAB, "path", "a"], check=True, capture_output=True, text=True).stdout.strip())
    name = f"srv/share/{uuid.uuid4().hex}.tar"
    with Path(built.stdout.strip()).open("rb") as tree, (share / name).open("wb") as copy:
        while sent := os.sendfile(copy.fileno(), tree.fileno(), None, 1 << 30):
            assert sent
    a.run("podman", "import", "--quiet", f"/{name}", LANGUAGES)
    a.run("rm", f"/{name}")
    a.run("podman", "save", "--quiet", "--output", f"/{name}", LANGUAGES)
    b.run("podman", "load", "--quiet", "--input", f"/{name}")
    a.run("rm", f"/{name}")
    yield LANGUAGES
    for host in (a, b):
        host.run("podman", "rm", "--all", "--force", "--time", "0")
        host.run("podman", "rmi", LANGUAGES)


def until(condition: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


@contextmanager
def attached(host: Host, container: str) -> Iterator[Callable[[str, str], None]]:
    """A terminal at the container's; a function that types a line and waits for an answer."""
    master, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 111, 0, 0))
    client = subprocess.Popen(host.argv("podman", "attach", container), stdin=terminal, stdout=terminal)
    os.close(terminal)

    def ask(line: str, answer: str) -> None:
        os.write(master, line.encode() + b"\n")
        seen, end = "", time.monotonic() + 30
        while answer not in seen:
            assert time.monotonic() < end, seen
            if select.select([master], [], [], 0.1)[0]:
                seen += os.read(master, 9999).decode()

    try:
        yield ask
    finally:
        client.kill()
        client.wait()
        os.close(master)


def on_the_same_host(host: Host, name: str, reference: str, *options: str) -> None:
    """Checkpoint it, with its connections, and restore it where it was."""
    host.ocickpt("checkpoint", "--quiet", "--tcp-established", name, reference)
    host.run("podman", "rm", name)
    host.ocickpt("restore", "--quiet", "--tcp-established", *options, reference)


@pytest.mark.long
@lazily
def test_redis_loses_no_acknowledged_write(hosts: tuple[Host, Host], start: Start, ref: str, lazy: bool) -> None:
    a, _ = hosts
    start("redis", "localhost/redis")
    a.wait("podman", "exec", "redis", "redis-cli", "ping")
    stop = f"/tmp/{uuid.uuid4().hex}"
    written = subprocess.Popen(
        a.argv("python3", "-c", (PROGRAMS / "redis_writer.py").read_text(), a.address("redis"), stop),
        stdout=subprocess.PIPE,
        text=True,
    )

    def keys() -> int:
        return int(a.execute("redis", "redis-cli", "dbsize"))

    try:
        until(lambda: keys() > 100)
        on_the_same_host(a, "redis", ref, *(["--lazy"] if lazy else []))
        before = keys()
        until(lambda: keys() > before + 100)
    finally:
        a.run("touch", stop)
        text = written.communicate(timeout=TIMEOUT)[0]
        a.run("rm", stop)
    assert written.returncode == 0, "the connection was lost"
    told = json.loads(text)
    print(f"{told['acknowledged']} writes, the longest took {told['longest']:.2f} s")
    check = """
    for i = 0, tonumber(ARGV[1]) - 1 do
        if redis.call('get', 'key:' .. i) ~= 'value:' .. i then return i end
    end
    return 'whole'
    """
    assert told["acknowledged"] > before
    assert a.execute("redis", "redis-cli", "eval", check, "0", str(told["acknowledged"])) == "whole"
    until_arrived(a)


@pytest.mark.long
def test_postgresql_loses_no_acknowledged_row(hosts: tuple[Host, Host], start: Start, move: Move) -> None:
    a, b = hosts
    serve = "exec /usr/local/bin/postgres -D /var/lib/postgresql/data -k /tmp"
    writer = (PROGRAMS / "rows_writer.py").read_text()
    start("db", "localhost/postgres", "sh", "-c", f'python3 -c "$0" & {serve}', writer)

    def rows(host: Host) -> int:
        return int(host.execute("db", "sh", "-c", "tail -n 1 /tmp/rows | grep . || echo 0"))

    def query(host: Host, sql: str) -> str:
        return host.execute("db", "psql", "-qAt", "-c", sql)

    a.wait("podman", "exec", "db", "test", "-s", "/tmp/rows")
    until(lambda: rows(a) > 100)
    started = query(a, "select pg_postmaster_start_time()")
    move("db")
    before = rows(b)
    until(lambda: rows(b) > before + 100)
    acknowledged = rows(b)
    assert query(b, f"select count(*) from written where n <= {acknowledged}") == str(acknowledged + 1)
    assert query(b, "select pg_postmaster_start_time()") == started


def on_and_on(hosts: tuple[Host, Host], name: str, move: Callable[[], object]) -> None:
    """What was started once, and kept, is the same after the move; what is counted is counted on."""
    a, b = hosts

    def ask(host: Host) -> dict[str, Any]:
        told: dict[str, Any] = json.loads(host.ask(name))
        return told

    def numbers(told: dict[str, Any]) -> list[int]:
        return [*told["counts"], *(told[key] for key in ("ticks", "collections") if key in told)]

    before = ask(a)
    until(lambda: all(now > then for then, now in zip(numbers(before), numbers(ask(a)), strict=True)))
    before = ask(a)
    move()
    first = ask(b)
    assert (first["started"], first["kept"]) == (before["started"], before["kept"])
    assert all(then <= now for then, now in zip(numbers(before), numbers(first), strict=True))
    until(lambda: all(then < now for then, now in zip(numbers(first), numbers(ask(b)), strict=True)))


@pytest.mark.long
@lazily
@pytest.mark.parametrize(
    ("program", "interpreter"), [("Load.java", "java -Xmx128m"), ("load.js", "node")], ids=["jvm", "node"]
)
def test_a_language_goes_on(
    hosts: tuple[Host, Host], runtime: str, ref: str, languages: str, program: str, interpreter: str, lazy: bool
) -> None:
    a, b = hosts
    text = (PROGRAMS / program).read_text()
    command = f'printf %s "$0" >/{program}; exec {interpreter} /{program}'
    a.run("podman", "--runtime", runtime, "run", "--detach", "--name", "load", languages, "sh", "-c", command, text)

    def move() -> None:
        a.ocickpt("checkpoint", "--quiet", "load", ref)
        a.run("podman", "rm", "load")
        b.ocickpt("restore", "--quiet", *(["--lazy"] if lazy else []), ref)

    on_and_on(hosts, "load", move)
    until_arrived(b)


@lazily
@pytest.mark.parametrize("runtime", ["runc", "crun"] if LONG else ["crun"], indirect=True)
def test_a_tree_of_processes_is_in_its_cgroup(hosts: tuple[Host, Host], start: Start, ref: str, lazy: bool) -> None:
    a, b = hosts
    start("tree", "localhost/python", "python3", "-c", TREE)
    tree = "for p in /proc/[0-9]*; do s=$(cat $p/stat 2>/dev/null) && echo $s | cut -d' ' -f1,4,5,6; done"

    def counts(host: Host) -> dict[str, int]:
        lines = host.execute("tree", "sh", "-c", "grep . /tmp/count-*").splitlines()
        return {name: int(count) for name, _, count in (line.partition(":") for line in lines)}

    def family(host: Host) -> list[str]:
        """Each process with its parent, group and session."""
        lines = host.execute("tree", "sh", "-c", tree).splitlines()
        return [line for line in lines if f"/tmp/count-{line.split()[0]}" in seen]

    a.wait("podman", "exec", "tree", "sh", "-c", "test $(ls /tmp/count-* | wc -l) = 5")
    seen = counts(a)
    related = family(a)
    assert len(related) == len(seen) == 5
    a.ocickpt("checkpoint", "--quiet", "tree", ref)
    a.run("podman", "rm", "tree")
    b.ocickpt("restore", "--quiet", *(["--lazy"] if lazy else []), ref)
    first = counts(b)
    assert all(first[name] >= count for name, count in seen.items())
    until(lambda: all(counts(b)[name] > count for name, count in first.items()))
    assert family(b) == related
    path = b.inspect("tree")["State"]["CgroupPath"]
    ours = b.out("podman", "top", "tree", "hpid").split()[1:]
    assert len(ours) == 5
    assert {b.out("grep", "^0::", f"/proc/{pid}/cgroup") for pid in ours} == {f"0::{path}"}
    until_arrived(b)


@pytest.mark.long
def test_a_session_at_a_terminal(hosts: tuple[Host, Host], start: Start, move: Move) -> None:
    a, b = hosts
    start("session", "--tty", "--interactive", "localhost/python", "bash", "--norc")
    with attached(a, "session") as ask:
        ask("kept=41; cd /usr/share; sleep 1000 & echo ready$((kept))", "ready41")
    move("session")
    with attached(b, "session") as ask:
        ask("echo got$((kept + 1)) in $PWD", "got42 in /usr/share")
        ask("jobs", "Running")
        ask("stty size", "33 111")
        ask("kill %1; wait %1; echo ended $?", "ended 143")


@pytest.mark.long
def test_many_lazy_copies_at_once(hosts: tuple[Host, Host], start: Start, ref: str) -> None:
    a, b = hosts
    start("web", "localhost/python", "python3", "/memory.py", "48")
    digest = a.ask("web", "/hash")
    a.ocickpt("checkpoint", "--quiet", "web", ref)
    names = [f"copy{number}" for number in range(COPIES)]
    restoring = [
        subprocess.Popen(b.argv("ocickpt", "restore", "--quiet", "--lazy", "--name", name, ref)) for name in names
    ]
    assert [each.wait(TIMEOUT) for each in restoring] == [0] * COPIES
    assert {b.ask(name, "/hash") for name in names} == {digest}
    until_arrived(b, TIMEOUT)
