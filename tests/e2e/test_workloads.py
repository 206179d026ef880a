"""What people run in containers goes on where it was: its state is asked for from inside, before and after."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from tests.e2e.conftest import Host, Move, Start, Tree, describe

KEYS = 100_000
ROWS = 20_000
WORKERS = 20
SHARED = 64 << 20
THREADS = 16

STATE = (Path(__file__).parent / "programs" / "state.py").read_text()
OPTIONS = (
    *(
        "--user",
        "1234:5678",
        "--group-add",
        "4321",
        "--workdir",
        "/var/www",
        "--env",
        "NOTE=a 'b' = ü",
        "--env",
        "PYTHONPATH=/",
    ),
    *("--hostname", "named", "--ulimit", "nofile=512:600", "--ulimit", "core=0:0", "--oom-score-adj", "123"),
    *("--sysctl", "net.ipv4.ip_unprivileged_port_start=1000", "--shm-size", "16m", "--umask", "0027"),
    *("--tmpfs", "/scratch:size=8m,mode=1777,noexec", "--label", "note=x"),
)

_FILL = f"""
for i = 1, {KEYS} do redis.call('set', 'key:' .. i, redis.sha1hex('value ' .. i)) end
redis.call('rpush', 'list', 'a', 'b', 'c')
redis.call('zadd', 'scores', 1, 'one', 2, 'two')
redis.call('set', 'expires', 'later', 'ex', 86400)
"""
_DIGEST = f"""
local digest = ''
for i = 1, {KEYS} do digest = redis.sha1hex(digest .. redis.call('get', 'key:' .. i)) end
return {{digest, redis.call('dbsize'), redis.call('lrange', 'list', 0, -1), redis.call('zrange', 'scores', 0, -1)}}
"""


def test_redis_keeps_its_keys(hosts: tuple[Host, Host], start: Start, move: Move) -> None:
    a, b = hosts
    start("redis", "localhost/redis")
    a.wait("podman", "exec", "redis", "redis-cli", "ping")
    a.execute("redis", "redis-cli", "eval", _FILL, "0")
    before = a.execute("redis", "redis-cli", "eval", _DIGEST, "0")
    assert str(KEYS + 3) in before.splitlines()
    run_id = a.execute("redis", "redis-cli", "info", "server").partition("run_id:")[2].split()[0]
    move("redis")
    assert b.execute("redis", "redis-cli", "eval", _DIGEST, "0") == before
    assert f"run_id:{run_id}" in b.execute("redis", "redis-cli", "info", "server")
    assert 86000 < int(b.execute("redis", "redis-cli", "ttl", "expires")) <= 86400
    assert b.execute("redis", "redis-cli", "set", "new", "value") == "OK"
    assert b.execute("redis", "redis-cli", "get", "new") == "value"
    # It forks to save: its pages are copied on write, and its file system takes the file.
    assert b.execute("redis", "redis-cli", "save") == "OK"


def test_postgresql_keeps_its_tables(hosts: tuple[Host, Host], start: Start, move: Move) -> None:
    a, b = hosts
    start("db", "localhost/postgres")
    a.wait("podman", "exec", "db", "pg_isready")

    def query(host: Host, sql: str) -> str:
        return host.execute("db", "psql", "-qAt", "-v", "ON_ERROR_STOP=1", "-c", sql)

    # An unlogged table and a postmaster of the same age tell a database that went on from one that recovered.
    query(
        a,
        "create table rows (n int primary key, word text);"
        f"insert into rows select n, md5(n::text) from generate_series(1, {ROWS}) n;"
        "create unlogged table fleeting as select n from rows; create index on fleeting (n);"
        "create sequence numbers; select nextval('numbers') from generate_series(1, 41)",
    )
    state = (
        "select count(*), sum(n), md5(string_agg(word, ',' order by n)) from rows;"
        "select count(*), sum(n) from fleeting; select last_value from numbers; select pg_postmaster_start_time()"
    )
    before = query(a, state)
    assert before.startswith(f"{ROWS}|")
    move("db")
    assert query(b, state) == before
    assert query(b, "select nextval('numbers')") == "42"
    query(b, f"insert into rows values ({ROWS} + 1, 'new'); checkpoint; analyze rows")
    assert query(b, "select count(*), max(n) from rows") == f"{ROWS + 1}|{ROWS + 1}"


def test_nginx_goes_on_serving(hosts: tuple[Host, Host], start: Start, move: Move) -> None:
    a, b = hosts
    start("web", "localhost/nginx")
    processes = ("sh", "-c", "grep -l nginx /proc/[0-9]*/comm; cat /run/nginx.pid")
    a.wait("podman", "exec", "web", "cat", "/run/nginx.pid")
    a.execute("web", "sh", "-c", "head -c 3000000 /dev/urandom > /var/www/html/file")
    fetch = f"curl -sS --fail http://{a.address('web')}/file | sha256sum"
    served = a.sh(fetch)
    listed = a.execute("web", *processes)
    assert len(listed.splitlines()) == 4, "a master, two workers, the pid file"
    move("web")
    assert b.execute("web", *processes) == listed
    assert b.sh(fetch) == served
    b.execute("web", "sh", "-c", "echo new > /var/www/html/new")
    assert b.sh(f"curl -sS --fail http://{b.address('web')}/new") == "new"
    # The master still rules its workers.
    b.execute("web", "nginx", "-s", "reload")
    b.wait("sh", "-c", f"curl -sS --fail http://{b.address('web')}/ | grep nginx")


def test_forked_workers_share_on(hosts: tuple[Host, Host], start: Start, move: Move) -> None:
    a, b = hosts
    start("workers", "localhost/python", "python3", "/workers.py")
    a.ask("workers")

    def ask(host: Host) -> list[dict[str, Any]]:
        """The state of each worker; asking counts."""
        every = f"http://{host.address('workers')}:8080/worker/[0-{WORKERS - 1}]"
        return [json.loads(line) for line in host.out("curl", "-sS", "--fail", "-w", "\n", every).splitlines()]

    before = ask(a)
    assert len({state["hash"] for state in before}) == WORKERS
    published = move("workers")
    assert published["size"] < 2 * SHARED, "what they share is stored once"
    assert ask(b) == [{**state, "count": 2} for state in before]
    assert json.loads(b.ask("workers", "/shared")) == [2] * WORKERS
    proportional = b.execute("workers", "sh", "-c", "cat /proc/[0-9]*/smaps_rollup | grep ^Pss:")
    memory = sum(int(line.split()[1]) for line in proportional.splitlines())
    assert memory << 10 < 2 * SHARED, "what they share is in memory once"


def test_threads_count_on(hosts: tuple[Host, Host], start: Start, move: Move) -> None:
    a, b = hosts
    start("threads", "localhost/python", "python3", "/threads.py")
    before = json.loads(a.ask("threads"))
    tasks = a.execute("threads", "ls", "/proc/1/task")
    assert len(tasks.split()) == THREADS + 1
    move("threads")
    first = json.loads(b.ask("threads"))
    assert b.execute("threads", "ls", "/proc/1/task") == tasks
    assert all(old <= new for old, new in zip(before, first, strict=True))
    end = time.monotonic() + 20
    while any(old == new for old, new in zip(first, json.loads(b.ask("threads")), strict=True)):
        assert time.monotonic() < end, "a thread does not count any more"


def test_a_process_finds_itself_as_it_was(hosts: tuple[Host, Host], start: Start, move: Move) -> None:
    """Its environment, directory, user, limits; memory it shares by name and without; tmpfs and /dev/shm."""
    a, b = hosts
    start("state", *OPTIONS, "localhost/python", "python3", "-c", STATE)
    before = json.loads(a.ask("state"))
    assert (before["directory"], before["host name"]) == ("/var/www", "named")
    assert "NOTE=a 'b' = ü" in before["environment"]

    def files(host: Host) -> Tree:
        """CRIU, and podman for /dev/shm, keep whole seconds; podman keeps no holes."""
        found = describe(host, "state", "/scratch", "/dev/shm")
        del found["/dev/shm"]["mtime"]  # CRIU makes the ghost in it
        for path, each in found.items():
            each["mtime"] = each.get("mtime", 0) // 1_000_000_000
            if path.startswith("/dev/shm/"):
                each["sparse"] = None
        return found

    def configuration(host: Host) -> dict[str, Any]:
        found = host.inspect("state")
        return {**found["HostConfig"], **found["Config"], "CreateCommand": None}

    kept = files(a)
    assert {"/scratch/directory/linked", "/dev/shm/directory/linked", "/dev/shm/kept"} <= {*kept}
    configured = configuration(a)

    move("state")
    assert json.loads(b.ask("state")) == before
    assert files(b) == kept
    assert configuration(b) == configured
    assert b.execute("state", "sh", "-c", "id -u; id -g; pwd; echo $NOTE").split("\n") == [
        "1234",
        "5678",
        "/var/www",
        "a 'b' = ü",
    ]
