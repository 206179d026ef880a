"""The shim as a real process, between podman's calls of a runtime and a flow: both are stood in for.

The calls are those that podman 5.4 and conmon made of runc and crun, recorded in the lab.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ocickpt import names, proc, rendezvous
from ocickpt.engine.criu.pages import put_back
from ocickpt.errors import CommandError, OcickptError, StorageError
from ocickpt.operations import channel
from tests.integration.shim_bench import DUMP, GONE, ID, KEY, PAGES, Bench, Dying

if TYPE_CHECKING:
    from ocickpt.rendezvous import Answer, Asked

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a flow's socket is root's")

# The launcher decides what comes here at all; whatever does must reach the runtime as it came.
UNTOUCHED = {
    "a checkpoint nobody waits for": ["checkpoint", "--image-path", "/i", "--work-path", "/w", "--leave-running", ID],
    "a pre-dump": ["checkpoint", "--image-path", "/i/pre-checkpoint", "--pre-dump", "--leave-running", ID],
    "a dump upon it": ["checkpoint", "--image-path", "/i", "--parent-path", "../pre-checkpoint", ID],
    "a restore of podman's own": ["--log-format=json", "restore", "--detach", "--image-path", "/i", ID],
    "a restore without images": ["restore", ID],
    "an odd name": ["checkpoint", "--image-path", "/i", "../../../etc/passwd"],
    "odd arguments": ["restore", "--image-path=/i", "a b", "", "*", "$HOME", "x\ny", "'\"\\", "\udcff\udc80é"],
    "nothing to checkpoint": ["checkpoint"],
    "state": ["state", ID],
}


@pytest.mark.parametrize("name", UNTOUCHED)
def test_the_runtime_gets_what_nobody_waits_for(bench: Bench, name: str) -> None:
    bench.tell("checkpoint", "exit 7")
    bench.tell("restore", "exit 7")
    environment = {"PATH": os.environ["PATH"], "XDG_RUNTIME_DIR": "/run/user/0", "LC_ALL": "C.UTF-8", "ODD": "* $(id)"}
    with tempfile.TemporaryFile() as file:
        passed = fcntl.fcntl(file.fileno(), fcntl.F_DUPFD, 100)
        process = subprocess.Popen(
            [os.fsencode(each) for each in bench.argv(*UNTOUCHED[name], asked=False)],
            env=environment,
            pass_fds=(passed,),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        os.close(passed)
        stdout, stderr = process.communicate(timeout=30)
        # Where an image path is in no bundle, the runtime is asked for the bundle first.
        *asked, call = bench.calls()
        assert all(each.argv[0] == "state" for each in asked)
        assert call.argv == UNTOUCHED[name]
        assert call.pid == process.pid
        assert call.ignored & (1 << (signal.SIGPIPE - 1) | 1 << (signal.SIGXFSZ - 1)) == 0
        assert {
            key: value for key, value in call.env.items() if key not in ("PWD", "OLDPWD", "SHLVL", "_", "_record")
        } == environment
        assert call.fds - {10, 11} == {0, 1, 2, passed}, "10 and 11 are the shell's own"
    assert process.returncode == (7 if call.argv[0] == "checkpoint" or "restore" in call.argv else 0)
    said = f'{{"pid": {bench.container.pid}}}' if name == "state" else "said by the runtime"
    assert (stdout.decode(), stderr) == (f"{said}\n", b"")


def test_podman_gets_a_checkpoint_that_cannot_be_published(bench: Bench) -> None:
    (bench.images.parent / "config.json").write_text(
        f'{{"annotations": {{"{names.ANNOTATION_PUSH}": "reg:5000/a:1"}}}}'
    )
    bench.tell("checkpoint", "exit 7")
    done = bench.call(*bench.checkpoint("--leave-running"), asked=False)
    assert (done.returncode, done.stdout) == (7, "said by the runtime\n")
    assert done.stderr.startswith("ocickpt: this checkpoint is podman's alone, it is not published: ")
    assert "not the bundle of a container of podman" in done.stderr
    (call,) = bench.calls()
    assert call.argv == bench.checkpoint("--leave-running")


@pytest.mark.parametrize(
    "arguments",
    [["delete", "--force", ID], ["delete", "-f", ID], ["delete", ID, "-f"], ["delete", "--", ID], ["start", "--", ID]],
)
def test_what_ends_the_wait_of_a_restored_container(bench: Bench, arguments: list[str]) -> None:
    bench.created.mkdir()
    (bench.created / ID).write_text(str(bench.root / "bundle"))
    done = bench.call(*arguments, asked=False)
    assert (done.returncode, done.stderr) == (0, "")
    (call,) = bench.calls()
    assert call.argv == (arguments if arguments[0] == "delete" else ["resume", ID])
    assert not (bench.created / ID).exists()


def test_criu_does_not_write_into_pages_that_we_have_too(bench: Bench) -> None:
    bench.images.mkdir()
    (bench.images / "pages-0.img").symlink_to("gone")  # as what podman removes while it is looked at
    for name in ("pages-1.img", "pages-2.img"):
        (bench.images / name).write_text("of an earlier dump")
    os.link(bench.images / "pages-1.img", bench.aside / "pages-1.img")
    assert bench.call(*bench.checkpoint(), asked=False).returncode == 0
    assert (bench.aside / "pages-1.img").read_text() == "of an earlier dump"
    assert (bench.images / "pages-1.img").read_bytes() == PAGES
    assert (bench.images / "pages-2.img").exists()


@pytest.mark.parametrize("what", ["no socket", "a dead flow's socket", "another's socket"])
def test_what_only_looks_like_a_flow(bench: Bench, what: str) -> None:
    path = rendezvous.OPERATIONS / ID
    path.parent.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as listener:
        if what == "no socket":
            path.write_text("")
        else:
            listener.bind(str(path))
        if what == "another's socket":
            listener.listen()
            os.chown(path, 65534, -1)
        mine, other = bench.call(*bench.checkpoint()), bench.call(*bench.checkpoint(), asked=False)
    assert (mine.returncode, mine.stdout, mine.stderr) == (1, "", f"ocickpt: {GONE}\n")
    assert (other.returncode, other.stdout, other.stderr) == (0, "said by the runtime\n", "")
    assert bench.verbs() == ["checkpoint"]
    assert (bench.images / "pages-1.img").read_bytes() == PAGES


def test_somebody_elses_checkpoint_is_not_taken_apart(bench: Bench) -> None:
    """Their podman came to the container's lock before the flow's: what it exports is whole."""
    with channel.opened(ID) as waiting:
        command = proc.Background(bench.argv(*bench.checkpoint(), asked=False))
        command.go()
        assert waiting.serve(command, _refusing).returncode == 0
    assert [call.argv for call in bench.calls()] == [bench.checkpoint()]
    assert (bench.images / "pages-1.img").read_bytes() == PAGES


@pytest.mark.parametrize("log", [[], ["--log-level", "debug", "--log", "/dev/null", "--systemd-cgroup"]])
@pytest.mark.parametrize("mode", ["stops", "runs on", "is ended by CRIU"])
def test_a_checkpoint_is_captured(bench: Bench, mode: str, log: list[str]) -> None:
    seen = []

    def flow(message: Asked) -> Answer:
        seen.append(message)
        if message["event"] == "captured":
            # It stands still, all is there already, or will be as soon as the runtime has ended it.
            assert bench.lives()
            assert bench.verbs() == (["pause"] if mode == "is ended by CRIU" else ["pause", "checkpoint"])
            assert (bench.aside / rendezvous.CAPTURED).exists() == (mode != "is ended by CRIU")
            assert (bench.aside / "rootfs" / "file").read_text() == "changed"
            return {"ok": True}
        assert bench.calls() == []
        return bench.plan((bench.root / "upper", bench.aside / "rootfs"), kill=mode != "is ended by CRIU")

    bench.images.mkdir()
    (bench.images / "core-77.img").write_text("of an earlier dump")
    arguments = bench.checkpoint(*["--leave-running", "--leave-running"][: 2 * (mode == "runs on")])
    result = bench.serve(flow, *log, *arguments)
    assert (result.returncode, result.stderr) == (0, "")
    resume = [*log, "resume", ID]
    assert seen == [
        {"event": "checkpoint", "image_path": str(bench.images), "resume": [str(bench.runtime), *resume]},
        {"event": "captured", "error": ""},
    ]
    leave = ["--leave-running"] if mode == "stops" else []
    dump = [*log, "checkpoint", *leave, *arguments[1:]]
    after = {"stops": [[*log, "state", ID]], "runs on": [resume], "is ended by CRIU": []}[mode]
    assert [call.argv for call in bench.calls()] == [[*log, "pause", ID], dump, *after]
    assert bench.lives() == (mode != "stops")
    assert not (bench.images / "pages-1.img").exists()
    assert not (bench.images / "core-77.img").exists()
    assert (bench.aside / "pages-1.img").read_bytes() == PAGES
    assert put_back(bench.aside, bench.images)
    assert (bench.images / "pages-1.img").read_bytes() == PAGES


def test_a_runtime_that_cannot_pause(bench: Bench) -> None:
    def flow(message: Asked) -> Answer:
        if message["event"] == "captured":
            raise StorageError(message["error"])
        return bench.plan()

    bench.tell("pause", "exit 1")
    with pytest.raises(StorageError, match="could not be paused"):
        bench.serve(flow, *bench.checkpoint())
    assert bench.verbs() == ["pause"]


def test_a_whole_archive_is_left_to_the_runtime(bench: Bench) -> None:
    assert bench.serve(lambda _: {"ok": True}, *bench.checkpoint()).returncode == 0
    assert [call.argv for call in bench.calls()] == [bench.checkpoint()]
    assert (bench.images / "pages-1.img").read_bytes() == PAGES


def test_a_podman_whose_ocickpt_died_is_refused(bench: Bench) -> None:
    """What it would export has no files in it."""
    done = bench.call(*bench.checkpoint())
    assert (done.returncode, done.stderr) == (1, f"ocickpt: {GONE}\n")
    assert bench.calls() == []


@pytest.mark.parametrize("how", ["refuses", "dies", "talks nonsense"])
def test_without_a_plan_the_container_runs_on(bench: Bench, how: str) -> None:
    if how == "refuses":
        with pytest.raises(StorageError, match="no room"):
            bench.serve(_refusing, *bench.checkpoint("--leave-running"))
        assert bench.said.stderr == "ocickpt: no room\n"
    else:
        flow = Dying(0, {}) if how == "dies" else Dying(1, {"what": 1})
        done = bench.call(*bench.checkpoint())
        flow.join()
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == f"ocickpt: {GONE}\n"
    assert bench.calls() == []


def _refusing(message: Asked) -> Answer:
    raise StorageError("no room")


@pytest.mark.parametrize("mode", ["stops", "runs on", "is ended by CRIU"])
@pytest.mark.parametrize("how", ["dies", "refuses"])
def test_a_flow_that_does_not_agree(bench: Bench, mode: str, how: str) -> None:
    """The container runs on, and nothing can be taken for a dump of it."""
    plan = bench.plan((bench.root / "upper", bench.aside / "rootfs"), kill=mode != "is ended by CRIU")
    arguments = bench.checkpoint(*["--leave-running"][: int(mode == "runs on")])
    if how == "dies":
        flow = Dying(1, plan)
        done = bench.call(*arguments)
        flow.join()
        assert (done.returncode, done.stderr) == (1, "")
    else:
        with pytest.raises(StorageError):
            bench.serve(lambda message: plan if message["event"] == "checkpoint" else _refusing(message), *arguments)
    assert bench.verbs() == ["pause", *(["checkpoint"] if mode != "is ended by CRIU" else []), "resume"]
    assert bench.lives()
    assert bench.has_nothing()


@pytest.mark.parametrize(("script", "code"), [("exit 3", 3), ("kill -KILL $$", 137)])
@pytest.mark.parametrize("running", [False, True], ids=["stops", "runs on"])
def test_a_runtime_that_fails(bench: Bench, running: bool, script: str, code: int) -> None:
    seen = []

    def flow(message: Asked) -> Answer:
        seen.append(message["event"])
        return bench.plan((bench.root / "upper", bench.aside / "rootfs"))

    bench.tell("checkpoint", f"{DUMP.format(images=bench.images)}\necho 'it failed' >&2\n{script}")
    result = bench.serve(flow, *bench.checkpoint(*["--leave-running"][: int(running)]))
    assert (result.returncode, result.stderr) == (code, "it failed\n")
    assert seen == ["checkpoint"]
    assert bench.verbs() == ["pause", "checkpoint", "resume"]
    assert bench.lives()
    assert bench.has_nothing(), "half a dump fills the disk"
    assert not (bench.aside / rendezvous.CAPTURED).exists()


@pytest.mark.parametrize("what", ["a tree that is gone", "a place that is taken", "no place for pages"])
@pytest.mark.parametrize("running", [False, True], ids=["stops", "runs on"])
def test_a_capture_that_fails(bench: Bench, running: bool, what: str) -> None:
    """The container runs on, and the flow is told."""
    trees = [(bench.root / "upper", bench.aside / "rootfs")]
    if what == "a tree that is gone":
        trees.append((bench.root / "gone", bench.aside / "volume"))
    elif what == "a place that is taken":
        (bench.aside / "rootfs").mkdir()
    else:
        # The first of two pages moves, the second does not.
        bench.tell("checkpoint", f'{DUMP.format(images=bench.images)}echo more >"{bench.images}/pages-2.img"\n')
        (bench.aside / "pages-2.img").mkdir()
    seen = []

    def flow(message: Asked) -> Answer:
        seen.append(message)
        if message["event"] == "captured":
            raise CommandError("not captured")
        return bench.plan(*trees)

    with pytest.raises(CommandError, match="not captured"):
        bench.serve(flow, *bench.checkpoint(*["--leave-running"][: int(running)]))
    assert seen[1]["error"]
    assert bench.verbs() == ["pause", *(["checkpoint"] if what == "no place for pages" else []), "resume"]
    assert bench.lives()
    assert bench.has_nothing()
    assert bench.said.stdout == "said by the runtime\n" * len(bench.calls())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_nothing_stays_frozen_when_the_shim_is_told_to_end(bench: Bench, number: signal.Signals) -> None:
    going, go = bench.root / "going", bench.root / "go"
    wait = f'touch "{going}"; while [ ! -e "{go}" ]; do sleep 0.01; done\n'
    bench.tell("checkpoint", wait + DUMP.format(images=bench.images))
    flow = Dying(2, bench.plan())
    with subprocess.Popen(bench.argv(*bench.checkpoint("--leave-running")), stdout=subprocess.DEVNULL) as process:
        while not going.exists():
            time.sleep(0.005)
        (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(child), number)
        time.sleep(0.05)
        go.touch()
        assert process.wait(10) == 0
    flow.join()
    assert bench.verbs() == ["pause", "checkpoint", "resume"]
    assert (bench.aside / rendezvous.CAPTURED).exists()


@pytest.mark.parametrize("verb", ["checkpoint", "restore"])
def test_ctrl_c_while_podman_waits_for_an_answer(bench: Bench, verb: str) -> None:
    """podman comes to an end by itself, and then the flow does."""
    bench.mark()

    def flow(message: Asked) -> Answer:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)
        raise AssertionError

    arguments = bench.checkpoint() if verb == "checkpoint" else bench.restore()
    with pytest.raises(KeyboardInterrupt):
        bench.serve(flow, *arguments, key=ID if verb == "checkpoint" else KEY)
    assert bench.said.stderr == "ocickpt: interrupted\n"
    assert bench.calls() == []


def test_ctrl_c_while_the_runtime_dumps(bench: Bench) -> None:
    bench.tell("checkpoint", f"kill -INT {os.getpid()}; sleep 0.2; {DUMP.format(images=bench.images)}")
    with pytest.raises(KeyboardInterrupt):
        bench.serve(lambda _: bench.plan(), *bench.checkpoint())
    assert bench.verbs() == ["pause", "checkpoint", "resume"]
    assert bench.lives()
    assert bench.has_nothing()


@pytest.mark.parametrize(
    "sent",
    [b"nonsense\n", b"[]\n", b"x" * (1 << 17), b'{"event": "checkpoint"}'],
    ids=["no JSON", "no object", "too much", "half of a message"],
)
def test_what_no_shim_says(bench: Bench, sent: bytes) -> None:
    """Whoever says it is hung up on, and the flow goes on to wait for its shim."""
    handled: list[Asked] = []

    def flow(message: Asked) -> Answer:
        handled.append(message)
        return bench.plan()

    def talk() -> None:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(10)
            client.connect(str(rendezvous.OPERATIONS / ID))
            try:
                client.sendall(sent)
                if sent.endswith(b"}"):
                    client.shutdown(socket.SHUT_WR)
                answers.append(client.recv(100))
            except (ConnectionResetError, BrokenPipeError):
                answers.append(b"")

    answers: list[bytes] = []
    with channel.opened(ID) as waiting:
        talking = threading.Thread(target=talk)
        talking.start()
        wait = ["sh", "-c", f'while [ ! -e "{bench.root}/go" ]; do sleep 0.01; done; exec "$@"', "sh"]
        command = proc.Background([*wait, *bench.argv(*bench.checkpoint())])
        command.go()

        def release() -> None:
            talking.join(10)
            (bench.root / "go").touch()

        threading.Thread(target=release).start()
        assert waiting.serve(command, flow).returncode == 0
    assert answers == [b""]
    assert [message["event"] for message in handled] == ["checkpoint", "captured"]
    assert bench.verbs() == ["pause", "checkpoint", "state"]


def test_the_socket_is_roots_alone_and_goes_with_the_operation(bench: Bench) -> None:
    path = rendezvous.OPERATIONS / ID
    path.parent.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with channel.opened(ID):
        assert path.is_socket()
        assert path.stat().st_mode & 0o777 == 0o600
    assert not path.exists()
    shutil.rmtree(path.parent.parent)
    with channel.opened(ID):
        assert path.parent.stat().st_mode & 0o777 == 0o700
        assert path.parent.parent.stat().st_mode & 0o777 == 0o700
    path.parent.rmdir()
    path.parent.write_text("in the way")
    with pytest.raises(OcickptError), channel.opened(ID):
        pass
