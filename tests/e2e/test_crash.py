"""Killed at any step and any moment, a checkpoint or restore leaves the old state or the new one, and nothing else.

Three containers go through every crash together: a plain one, one that podman removes when it ends, one that podman
starts anew when it ends. Sometimes `ocickpt doctor` puts things right afterwards, sometimes the same command again.
"""

from __future__ import annotations

import json
import random
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator
from itertools import pairwise

import pytest

from ocickpt.errors import CommandError
from ocickpt.failpoint import FAILPOINTS
from ocickpt.operations.journal import Checkpoint, Restore
from tests.e2e.conftest import CONFIG, LONG, REGISTRY, SEED, Host
from tests.e2e.conftest import KILLED as TABLE
from tests.e2e.counting import Count, Counter, at_once

KINDS: dict[str, tuple[str, ...]] = {"plain": (), "rm": ("--rm",), "always": ("--restart=always",)}
# Where memory follows, there are tests of its own (test_lazy.py).
LAZY = ("guarded", "lazy")
KILLED = -signal.SIGKILL
MOMENTS = 200 if LONG else 20


@pytest.fixture(scope="module", autouse=True)
def allowed(lab: dict[str, Host]) -> Iterator[None]:
    """Host b lets containers from the registry be started anew."""
    lab["b"].decides(f'[[allow]]\nrepository = "{REGISTRY}"\nasks = ["restart=always"]\n')
    yield
    lab["b"].run("rm", "-f", CONFIG)


def points(kind: type[Checkpoint] | type[Restore]) -> list[str]:
    verb = "checkpoint" if kind is Checkpoint else "restore"
    steps = [f"{verb}.{step}" for step in kind.steps if step not in LAZY]
    around = [point for step in steps for point in (f"{step}.before", step)]
    return [*around, f"{verb}.close.before", *(FAILPOINTS if kind is Checkpoint else ())]


def moments() -> list[tuple[float, ...]]:
    """Moments of killing as parts of the time a verb takes, three by three."""
    chosen = random.Random(SEED)
    drawn = [chosen.uniform(0.02, 1.0) for _ in range(MOMENTS + 1)]
    return [tuple(drawn[first:last]) for first, last in pairwise(range(0, MOMENTS + 4, 3))]


def counters(number: int) -> list[Counter]:
    """The three of one test; each of them meets both runtimes in turn."""
    return [
        Counter(kind, options, ("runc", "crun")[(number + place) % 2])
        for place, (kind, options) in enumerate(KINDS.items())
    ]


def tag(counter: Counter, repository: str) -> str:
    return f"{repository}/{counter.name}:1"


@pytest.fixture
def repository() -> str:
    return f"{REGISTRY}/crash/{uuid.uuid4().hex[:12]}"


def killed_at(host: Host, point: str, *command: str) -> None:
    done = host.run("env", f"OCICKPT_FAILPOINT={point}", "ocickpt", *command, check=False)
    assert done.returncode == KILLED, f"{point} was not reached:\n{done.stdout}\n{done.stderr}"


def killed_after(host: Host, seconds: float, *command: str) -> bool:
    """False when it had ended before."""
    done = host.run("timeout", "--foreground", "-s", "KILL", f"{seconds:.3f}", "ocickpt", *command, check=False)
    # 124: it had ended when its time was up (timeout(1)).
    assert done.returncode in (0, 124, KILLED, 128 - KILLED), done.stderr
    was_killed = done.returncode not in (0, 124)
    TABLE.append(f"{command[0]:10} {command[1]:40} {seconds:7.3f} s  {'killed' if was_killed else 'had ended'}")
    return was_killed


def exists(host: Host, reference: str) -> bool:
    return host.ocickpt("inspect", reference, check=False).returncode == 0


def check_restores(b: Host, counter: Counter, reference: str, since: Count) -> None:
    """A tag that exists restores."""
    b.ocickpt("restore", reference)
    counter.goes_on(b, since)
    b.run("podman", "rm", "--force", "--time", "0", counter.name)
    b.run("podman", "volume", "rm", counter.name)


def check_checkpoints(hosts: tuple[Host, Host], killed: dict[Counter, Count], repository: str, *, doctor: bool) -> None:
    """What checkpoints that were killed have left, and that the same commands finish them."""
    a, b = hosts
    tagged = [each for each in killed if exists(a, tag(each, repository))]
    at_once(lambda each: check_restores(b, each, tag(each, repository), killed[each]), tagged)
    done = set()
    if doctor:
        said = a.ocickpt("doctor").stdout
        done = {each for each in killed if f"checkpoint of '{each.name}' had come to its end" in said}
        assert done <= set(tagged)
        a.ocickpt("setup", "--undo")
        at_once(lambda each: check_old_state(a, each, killed[each]), killed.keys() - done)
        a.ocickpt("setup")
    for each in killed.keys() - done:
        a.ocickpt("checkpoint", each.name, tag(each, repository))
        assert not each.runs(a)
    at_once(lambda each: check_restores(b, each, tag(each, repository), killed[each]), killed.keys() - done)
    assert a.sh("ls /var/lib/ocickpt/blobs/sha256") == "", "packs stay in the spool"


def check_old_state(a: Host, counter: Counter, since: Count) -> None:
    """It runs, or podman alone lets it run on; removed by podman, it is there to be published."""
    state = counter.state(a)
    if not state:
        assert counter.removed
        assert a.sh("cat /var/lib/ocickpt/journal/*.json").count(f'"name": "{counter.name}"') == 1
        return
    if not state["Running"]:
        assert state["Checkpointed"]
        a.run("podman", "container", "restore", counter.name)
    counter.goes_on(a, since)


@pytest.mark.parametrize("point", points(Checkpoint))
def test_a_checkpoint_killed_at_a_step(hosts: tuple[Host, Host], repository: str, point: str) -> None:
    a, _ = hosts
    number = points(Checkpoint).index(point)
    containers = counters(number)
    began = at_once(lambda each: each.start(a), containers)
    at_once(lambda each: killed_at(a, point, "checkpoint", each.name, tag(each, repository)), containers)
    check_checkpoints(hosts, dict(zip(containers, began, strict=True)), repository, doctor=number % 2 == 0)


@pytest.fixture(scope="module")
def checkpoint_time(lab: dict[str, Host]) -> float:
    """How long three checkpoints at once take, in seconds."""
    a, repository = lab["a"], f"{REGISTRY}/crash/{uuid.uuid4().hex[:12]}"
    a.clean()
    at_once(lambda each: each.start(a), counters(0))
    begun = time.monotonic()
    at_once(lambda each: a.ocickpt("checkpoint", each.name, tag(each, repository)), counters(0))
    taken = time.monotonic() - begun
    a.clean()
    return taken


@pytest.mark.parametrize("number", range(len(moments())))
def test_a_checkpoint_killed_at_a_moment(
    hosts: tuple[Host, Host], repository: str, checkpoint_time: float, number: int
) -> None:
    a, _ = hosts
    containers = counters(number)
    began = at_once(lambda each: each.start(a), containers)
    were_killed = at_once(
        lambda pair: killed_after(a, pair[1] * checkpoint_time, "checkpoint", pair[0].name, tag(pair[0], repository)),
        zip(containers, moments()[number], strict=True),
    )
    killed = {each: count for each, count, was in zip(containers, began, were_killed, strict=True) if was}
    check_checkpoints(hosts, killed, repository, doctor=number % 2 == 0)


def test_without_the_shim(hosts: tuple[Host, Host], repository: str, checkpoint_time: float) -> None:
    """podman writes all into its archive, and goes on when ocickpt is dead."""
    a, _ = hosts
    containers = counters(0)
    began = at_once(lambda each: each.start(a), containers)
    a.ocickpt("setup", "--undo")
    at_once(
        lambda pair: killed_after(a, pair[1] * checkpoint_time, "checkpoint", pair[0].name, tag(pair[0], repository)),
        zip(containers, (0.3, 0.4, 0.5), strict=True),
    )
    check_checkpoints(hosts, dict(zip(containers, began, strict=True)), repository, doctor=True)


@pytest.mark.parametrize("step", Checkpoint.steps)
def test_a_container_that_is_left_running(hosts: tuple[Host, Host], ref: str, step: str) -> None:
    a, b = hosts
    counter = Counter("c", ("--rm",), "runc")
    count = counter.start(a)
    killed_at(a, f"checkpoint.{step}", "checkpoint", "--leave-running", "c", ref)
    a.ocickpt("doctor")
    count = counter.goes_on(a, count)
    assert a.traces() == []
    a.ocickpt("checkpoint", "--leave-running", "c", ref)
    counter.goes_on(a, count)
    check_restores(b, counter, ref, count)


@pytest.mark.parametrize("then", ["start", "container restore"])
def test_a_dump_outlives_a_start(hosts: tuple[Host, Host], ref: str, then: str) -> None:
    """What was not published yet is kept while the container is started anew; restored, it has it all."""
    a, b = hosts
    counter = Counter("c")
    count = counter.start(a)
    killed_at(a, "publish.packed", "checkpoint", "c", ref)
    assert "the checkpoint of 'c' is not published" in a.ocickpt("doctor").stdout
    a.run("podman", *then.split(), "c")
    now = counter.count(a)
    a.ocickpt("doctor")
    a.ocickpt("checkpoint", "c", ref)
    check_restores(b, counter, ref, count)
    if then == "start":
        assert now.who != count.who
        counter.goes_on(a, now)
        a.ocickpt("checkpoint", "c", ref)
        check_restores(b, counter, ref, now)


@pytest.mark.parametrize("end", ["push", "push by id", "push elsewhere", "rm", "rm by id"])
def test_a_dump_whose_container_is_removed(hosts: tuple[Host, Host], ref: str, runtime: str, end: str) -> None:
    """It can still be published, or it goes; with `podman rm` nothing else would end it."""
    a, b = hosts
    counter = Counter("c", runtime=runtime)
    count = counter.start(a)
    identity = a.inspect("c")["Id"]
    killed_at(a, "checkpoint.dumped", "checkpoint", "c", ref)
    a.run("podman", "rm", "c")
    (shown,) = json.loads(a.ocickpt("list", "--format", "json").stdout)
    assert shown["name"] == "c"
    assert shown["size"] > 100_000
    assert "`ocickpt push c` publishes it, `ocickpt rm c` removes it" in a.ocickpt("doctor").stdout
    source, where = (identity[:12] if "id" in end else "c"), (f"{ref}0" if "elsewhere" in end else ref)
    if end.startswith("push"):
        a.ocickpt("push", source, *([where] if "elsewhere" in end else []))
        check_restores(b, counter, where, count)
        assert exists(a, ref) == (where == ref)
    else:
        a.ocickpt("rm", source)
        assert not exists(a, ref)
    assert a.traces() == []
    assert json.loads(a.ocickpt("list", "--format", "json").stdout) == []


def test_two_dumps_of_the_same_name(hosts: tuple[Host, Host], ref: str, runtime: str) -> None:
    a, b = hosts
    counter, counts, ids = Counter("c", runtime=runtime), list[Count](), list[str]()
    for number, point in enumerate(("checkpoint.dumped", "publish.packed")):  # the first is passed again, for the other
        counts.append(counter.start(a))
        ids.append(a.inspect("c")["Id"])
        killed_at(a, point, "checkpoint", "c", f"{ref}{number}")
        a.run("podman", "rm", "c")
        a.run("podman", "volume", "rm", "c")
    assert "several containers called 'c'" in a.ocickpt("push", "c", check=False).stderr
    a.ocickpt("rm", ids[0])
    a.ocickpt("push", "c")
    assert a.traces() == []
    assert not exists(a, f"{ref}0")
    check_restores(b, counter, f"{ref}1", counts[1])


# Restores.


@pytest.fixture(scope="module")
def saved(lab: dict[str, Host]) -> dict[str, tuple[str, Count]]:
    """Checkpoints of the three containers: by name, the tag and how far the container was."""
    a, repository, found = lab["a"], f"{REGISTRY}/crash/{uuid.uuid4().hex[:12]}", {}
    a.clean()
    for each in counters(1):
        count = each.start(a)
        a.ocickpt("checkpoint", each.name, tag(each, repository))
        found[each.name] = (tag(each, repository), count)
    a.clean()
    return found


def check_restored(b: Host, saved: dict[str, tuple[str, Count]], killed: list[bool], *, doctor: bool) -> None:
    """Each restore that was killed has left a container that goes on, or nothing; and can be had again."""
    done = {name for name, was in zip(saved, killed, strict=True) if not was}
    if doctor:
        b.ocickpt("doctor")
        done = {each.name for each in counters(1) if each.state(b)}
        assert set(b.out("podman", "volume", "ls", "--quiet").split()) == done
    for name, (reference, _) in saved.items():
        if name not in done:
            assert b.ocickpt("restore", reference).stdout.strip() == b.inspect(name)["Id"]
    at_once(lambda each: each.goes_on(b, saved[each.name][1]), counters(1))


@pytest.mark.parametrize("point", points(Restore))
def test_a_restore_killed_at_a_step(hosts: tuple[Host, Host], saved: dict[str, tuple[str, Count]], point: str) -> None:
    _, b = hosts
    at_once(lambda found: killed_at(b, point, "restore", found[0]), saved.values())
    check_restored(b, saved, [True] * len(saved), doctor=points(Restore).index(point) % 2 == 0)


@pytest.fixture(scope="module")
def restore_time(lab: dict[str, Host], saved: dict[str, tuple[str, Count]]) -> Iterator[float]:
    """How long three restores at once take, in seconds."""
    lab["b"].clean()
    begun = time.monotonic()
    at_once(lambda found: lab["b"].ocickpt("restore", found[0]), saved.values())
    yield time.monotonic() - begun
    lab["b"].clean()


@pytest.mark.parametrize("number", range(len(moments())))
def test_a_restore_killed_at_a_moment(
    hosts: tuple[Host, Host], saved: dict[str, tuple[str, Count]], restore_time: float, number: int
) -> None:
    _, b = hosts
    killed = at_once(
        lambda pair: killed_after(b, pair[1] * restore_time, "restore", pair[0][0]),
        zip(saved.values(), moments()[number], strict=True),
    )
    check_restored(b, saved, killed, doctor=number % 2 == 0)


# Others that may die.


@pytest.mark.parametrize("victim", ["[o]cickpt.shim", "[p]odman container checkpoint"], ids=["shim", "podman"])
@pytest.mark.parametrize(
    ("options", "kinds"),
    [
        ([], ["plain", "rm", "always"]),
        (["--leave-running"], ["rm"]),
        # One that CRIU itself ends cannot be saved from podman, which removes it or starts it anew.
        (["--tcp-established"], ["plain"]),
    ],
    ids=["stop", "-R", "tcp"],
)
def test_killed_while_criu_dumps(
    hosts: tuple[Host, Host], ref: str, victim: str, options: list[str], kinds: list[str]
) -> None:
    """Whoever stands between us and CRIU is killed: the container runs on, and is not left frozen."""
    a, b = hosts
    for counter in (Counter(kind, KINDS[kind], ("runc", "crun")[number % 2]) for number, kind in enumerate(kinds)):
        count = counter.start(a)
        wait = "until pgrep -f '^/usr/bin/.?run.? checkpoint --[il]'; do :; done"
        killing = subprocess.Popen(a.argv("timeout", "30", "sh", "-c", f"{wait}; pkill -KILL -f '{victim}'"))
        failed = a.ocickpt("checkpoint", *options, counter.name, ref, check=False)
        assert killing.wait() == 0
        assert failed.returncode == CommandError.exit_code, failed.stderr
        counter.goes_on(a, count)
        assert a.traces() == []
        a.ocickpt("checkpoint", *options, counter.name, ref)
        check_restores(b, counter, ref, count)


# Ctrl-C.


def interrupted(host: Host, seconds: float, *command: str) -> subprocess.CompletedProcess[str]:
    """Ctrl-C reaches every process in the terminal's foreground; some press it twice."""
    script = 'set -m; time=$1; shift; ocickpt "$@" & sleep $time; kill -INT -$!; sleep 0.05; kill -INT -$!; wait $!'
    done = host.run("sh", "-c", script, "sh", f"{seconds:.3f}", *command, check=False)
    assert "Traceback" not in done.stderr
    return done


@pytest.mark.parametrize("number", range(0, len(moments()), 2))
def test_ctrl_c_in_a_checkpoint(hosts: tuple[Host, Host], repository: str, checkpoint_time: float, number: int) -> None:
    """At once, without anybody's help: it runs as before, or it is kept and the user is told so."""
    a, b = hosts
    containers = counters(number)
    began = dict(zip(containers, at_once(lambda each: each.start(a), containers), strict=True))
    ended = at_once(
        lambda pair: interrupted(a, pair[1] * checkpoint_time, "checkpoint", pair[0].name, tag(pair[0], repository)),
        zip(containers, moments()[number], strict=True),
    )
    for each, end in zip(containers, ended, strict=True):
        if "is kept on this host" in end.stderr:
            assert not each.runs(a)
        elif not exists(a, tag(each, repository)):
            each.goes_on(a, began[each])
        if not exists(a, tag(each, repository)):
            a.ocickpt("checkpoint", each.name, tag(each, repository))
    at_once(lambda each: check_restores(b, each, tag(each, repository), began[each]), containers)


@pytest.mark.parametrize("number", range(0, len(moments()), 2))
def test_ctrl_c_in_a_restore(
    hosts: tuple[Host, Host], saved: dict[str, tuple[str, Count]], restore_time: float, number: int
) -> None:
    _, b = hosts
    at_once(
        lambda pair: interrupted(b, pair[1] * restore_time, "restore", pair[0][0]),
        zip(saved.values(), moments()[number], strict=True),
    )
    left = {each.name for each in counters(1) if each.state(b)}
    assert set(b.out("podman", "volume", "ls", "--quiet").split()) == left
    assert b.traces() == []
    at_once(lambda name: b.ocickpt("restore", saved[name][0]), saved.keys() - left)
    at_once(lambda each: each.goes_on(b, saved[each.name][1]), counters(1))
