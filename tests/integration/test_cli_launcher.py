"""The launcher as a real process under dash: everything goes to the runtime as it came, but what is ours.

The calls are those that podman 5.4 and conmon made of runc and crun, recorded in the lab, and those that
containerd's shim makes of runc (go-runc, runc.go).
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ocickpt import config, rendezvous, shim
from ocickpt.operations.launcher import Launcher, chooser

ID = "defdcf08921a5ac0ba8981c0d14e1f814a61334c04c01049eb388f4a4790d546"
STATIC = f"/var/lib/containers/storage/overlay-containers/{ID}/userdata"
RUN = f"/run/containers/storage/overlay-containers/{ID}/userdata"
LOG = ["--log-format=json", "--log", f"{RUN}/oci-log"]
IMAGES = ["--image-path", f"{STATIC}/checkpoint", "--work-path", STATIC]

CHECKPOINT = ["checkpoint", *IMAGES, "--leave-running", "--tcp-established", "--leave-running", ID]
RESTORE = [*LOG, "restore", "--bundle", STATIC, "--pid-file", f"{RUN}/pidfile", "--detach", *IMAGES, ID]
OTHERS = {
    "create": [*LOG, "create", "--bundle", STATIC, "--pid-file", f"{RUN}/pidfile", ID],
    "start": ["start", ID],
    "exec": [*LOG, "exec", "--pid-file", f"{STATIC}/exec_pid", "--process", f"{STATIC}/exec-process-1", "--detach", ID],
    "kill": ["kill", ID, "9"],
    "delete": ["delete", "--force", ID],
    "state": ["state", ID],
    "version": ["--version"],
    "nothing": [],
    "probe of checkpoint": ["checkpoint", "--help"],
    "probe of restore": ["restore", "--lsm-mount-context"],
    "help of crun": [*LOG, "checkpoint", "--image-path", "/x", "--usage"],
    "help with more": [*LOG, "checkpoint", "--image-path", "/x", "--help"],
    "a log called checkpoint": ["--log", "checkpoint", "kill", ID, "9"],
    "a log called checkpoint, log level": ["--log-level", "debug", "--log", "restore", "state", ID],
    "exec of a program called checkpoint": ["exec", ID, "checkpoint", "a", "b"],
    "odd arguments": ["exec", ID, "a b", "", "*", "$HOME", "`id`", "x\ny\n", "\t", "--", "'\"\\", "\udcff\udc80é"],
}

TASK = "/run/containerd/io.containerd.runtime.v2.task/default/job"
CONTAINERD = ["--root", "/run/containerd/runc/default", "--log", f"{TASK}/log.json", "--log-format", "json"]
OTHERS |= {
    f"containerd, {call[0]}": [*CONTAINERD, *call]
    for call in (
        ["create", "--bundle", TASK, "--pid-file", f"{TASK}/init.pid", "--console-socket", "/tmp/pty1/pty.sock", "job"],
        ["start", "job"],
        ["exec", "--process", "/tmp/runc-process7", "--detach", "--pid-file", f"{TASK}/1.pid", "job"],
        ["kill", "--all", "job", "9"],
        ["delete", "--force", "job"],
        ["state", "job"],
        ["pause", "job"],
        ["ps", "--format", "json", "job"],
        ["events", "--stats", "job"],
        ["update", "--resources=-", "job"],
    )
}
CONTAINERD_CHECKPOINT = [*CONTAINERD, "checkpoint", "--image-path", "/tmp/ctd-checkpoint", "--work-path", TASK, "job"]

RECORDER = """\
#!{python} -IS
import json, os, sys
links = {{}}
for fd in os.listdir("/proc/self/fd"):
    try:
        links[fd] = os.readlink("/proc/self/fd/" + fd)
    except OSError:
        pass
found = dict(argv=sys.argv, env=dict(os.environ), fds=links, pid=os.getpid(), cwd=os.getcwd(), stdin=sys.stdin.read())
with open({record!r}, "w") as file:
    json.dump(found, file)
sys.exit({code})
"""


@dataclass(frozen=True)
class Bench:
    """A launcher with a runtime and an interpreter that record how they were called."""

    launcher: Path
    operations: Path
    created: Path
    runtime: Path
    python: Path
    root: Path

    def call(
        self, arguments: Sequence[str], **options: Any
    ) -> tuple[int, dict[str, Any] | None, dict[str, Any] | None]:
        """The exit code, and what the runtime and the interpreter recorded."""
        for record in self.root.glob("*.json"):
            record.unlink()
        argv = [os.fsencode(each) for each in (str(self.launcher), *arguments)]
        options.setdefault("stdin", subprocess.DEVNULL)
        done = subprocess.run(argv, executable=options.pop("executable", None), check=False, **options)
        return done.returncode, self.recorded("runtime"), self.recorded("python")

    def recorded(self, name: str) -> dict[str, Any] | None:
        path = self.root / f"{name}.json"
        return json.loads(path.read_text()) if path.exists() else None

    def begin_operation(self) -> None:
        self.operations.mkdir(parents=True)
        (self.operations / ID).touch()


def recorder(path: Path, record: Path, code: int) -> Path:
    path.write_text(RECORDER.format(python=sys.executable, record=str(record), code=code))
    path.chmod(0o755)
    return path


@pytest.fixture(params=[["sh"], ["bash", "--posix"]], ids=lambda each: each[0])
def bench(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    shell = shutil.which(request.param[0])
    assert shell
    monkeypatch.setattr(rendezvous, "OPERATIONS", tmp_path / "op")
    monkeypatch.setattr(rendezvous, "CREATED", tmp_path / "created")
    runtime = recorder(tmp_path / "run c's", tmp_path / "runtime.json", 7)
    python = recorder(tmp_path / "python", tmp_path / "python.json", 8)
    text = Launcher.of("runc", str(runtime), str(python)).text()
    launcher = tmp_path / "runc"
    launcher.write_text(text.replace("#!/bin/sh", " ".join(["#!" + shell, *request.param[1:]]), 1))
    launcher.chmod(0o755)
    return Bench(launcher, tmp_path / "op", tmp_path / "created", runtime, python, tmp_path)


@pytest.mark.parametrize(
    "arguments", [["checkpoint", "--image-path", "--help", ID], ["checkpoint", "--", ID]], ids=["value", "end"]
)
def test_a_word_that_is_no_option_is_none(bench: Bench, arguments: list[str]) -> None:
    assert bench.call(arguments)[0] == 8


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
def test_the_runtime_gets_what_is_not_ours(bench: Bench, name: str, busy: bool) -> None:
    if busy:
        bench.begin_operation()
    code, runtime, python = bench.call(OTHERS[name])
    assert (code, python) == (7, None)
    assert runtime is not None
    assert runtime["argv"] == [str(bench.runtime), *OTHERS[name]]


def test_the_runtime_gets_a_restore_while_nobody_waits(bench: Bench) -> None:
    code, runtime, python = bench.call(RESTORE)
    assert (code, python) == (7, None)
    assert runtime is not None
    assert runtime["argv"] == [str(bench.runtime), *RESTORE]
    bench.operations.mkdir()
    assert bench.call(RESTORE)[2] is None


@pytest.mark.parametrize(
    "arguments", [CHECKPOINT, RESTORE, CONTAINERD_CHECKPOINT], ids=["checkpoint", "restore", "containerd"]
)
def test_the_shim_gets_what_a_flow_waits_for(bench: Bench, arguments: list[str]) -> None:
    bench.begin_operation()
    code, runtime, python = bench.call(arguments)
    assert (code, runtime) == (8, None)
    assert python is not None
    before, after = python["argv"][: -len(arguments) - 1], python["argv"][-len(arguments) - 1 :]
    assert before[:2] == [str(bench.python), "-I"]
    assert before[2] == "-c"
    assert after == [str(bench.runtime), *arguments]


def bundle(bench: Bench, annotations: dict[str, str]) -> Path:
    directory = bench.root / "a bundle"
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps({"annotations": annotations}))
    return directory


@pytest.mark.parametrize(
    "form",
    [
        ["--bundle", "{}"], ["--bundle={}"], ["-b", "{}"], ["-b={}"], ["-b{}"], ["-bundle", "{}"], ["-bundle={}"], [],
        ["-f", "-h", "-b", "{}"], ["--preserve-fds", "--", "--bundle", "{}"],
    ],
)  # fmt: skip
def test_the_shim_gets_the_create_that_is_a_restore(bench: Bench, form: list[str]) -> None:
    directory = bundle(bench, {"io.ocickpt.restore": "a.example/b@sha256:…"})
    arguments = [*LOG, "create", *(each.format(directory) for each in form), "--pid-file", "/run/pid", ID]
    code, runtime, python = bench.call(arguments, cwd=directory if not form else "/")
    assert (code, runtime) == (8, None)
    assert python is not None
    assert python["argv"][-len(arguments) - 1 :] == [str(bench.runtime), *arguments]
    bench.python.unlink()
    code, runtime, _ = bench.call(arguments, cwd=directory if not form else "/")
    assert (code, runtime) == (1, None), "rather not started than not restored"


def test_the_runtime_gets_other_creates(bench: Bench) -> None:
    arguments = ["create", "--bundle", str(bundle(bench, {"io.example": "x"})), ID]
    assert bench.call(arguments)[0] == 7
    bench.python.unlink()
    assert bench.call(arguments)[0] == 7


@pytest.mark.parametrize(
    "arguments", [["start", ID], ["state", ID], ["delete", "--force", ID], ["delete", "-f", ID], ["start", "--", ID]]
)
def test_the_shim_gets_what_comes_before_a_restored_container_runs(bench: Bench, arguments: list[str]) -> None:
    assert bench.call(arguments)[0] == 7
    bench.created.mkdir()
    (bench.created / ID).touch()
    assert bench.call(arguments)[0] == 8
    assert bench.call([*arguments[:-1], "1" * 64])[0] == 7


def test_the_configuration_chooses_the_runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "PATH", tmp_path / "config.toml")
    for name in ("runc", "crun"):
        recorder(tmp_path / name, tmp_path / f"{name}.json", 7)
    launcher = tmp_path / "ocickpt-runtime"
    launcher.write_text(chooser(tmp_path, "runc"))
    launcher.chmod(0o755)
    for text, name in (
        (None, "runc"),
        ("# runtime = 'runc'\nruntime = \"crun\"  # not runc\n", "crun"),
        ("push = 'background'\n[restore-on-start]\nruntime = 'crun'\n", "runc"),
    ):
        if text:
            config.PATH.write_text(text)
        subprocess.run([launcher, *OTHERS["odd arguments"]], check=False, stdin=subprocess.DEVNULL)
        recorded = json.loads((tmp_path / f"{name}.json").read_text())
        assert recorded["argv"] == [str(tmp_path / name), *OTHERS["odd arguments"]]
        (tmp_path / f"{name}.json").unlink()


@pytest.mark.parametrize("gone", ["python", "shim"])
def test_without_the_shim_the_runtime_is_called(bench: Bench, gone: str) -> None:
    bench.begin_operation()
    if gone == "python":
        bench.python.unlink()
    else:
        bench.launcher.write_text(bench.launcher.read_text().replace(shim.__file__, "/nowhere/shim.py"))
    code, runtime, _ = bench.call(CHECKPOINT)
    assert code == 7
    assert runtime is not None
    assert runtime["argv"][1:] == CHECKPOINT


def test_a_runtime_that_moved_is_found_on_path(bench: Bench) -> None:
    bench.begin_operation()
    elsewhere = bench.root / "elsewhere"
    elsewhere.mkdir()
    bench.runtime.rename(elsewhere / "runc")
    code, runtime, python = bench.call(CHECKPOINT, env={**os.environ, "PATH": f"{elsewhere}:{os.environ['PATH']}"})
    assert (code, python) == (7, None)
    assert runtime is not None
    assert runtime["argv"][1:] == CHECKPOINT


def test_environment_descriptors_and_process_are_the_callers(bench: Bench) -> None:
    environment = {
        "PATH": os.environ["PATH"],
        "PWD": str(bench.root),
        "XDG_RUNTIME_DIR": "/run/user/0",
        "_OCI_SYNCPIPE": "3",
        "_OCI_STARTPIPE": "4",
        "LISTEN_FDS": "1",
        "runtime": "a\nb",
        "verb": "x",
        "ODD": "*  $(id) '\"",
    }
    read, write = os.pipe()
    with (bench.root / "seven").open("w") as file:
        high = fcntl.fcntl(file.fileno(), fcntl.F_DUPFD, 100)
        code, runtime, _ = bench.call(
            OTHERS["create"],
            env=environment,
            pass_fds=(read, high),
            stdin=subprocess.PIPE,
            input=None,
            cwd=bench.root,
        )
        os.close(high)
    os.close(read)
    os.close(write)
    assert code == 7
    assert runtime is not None
    added = set(runtime["env"]) - set(environment) - {"LC_CTYPE"}  # Python's own (PEP 538)
    assert added <= {"OLDPWD", "SHLVL", "_"}, "a shell's own"
    assert {name: runtime["env"][name] for name in environment} == environment
    assert runtime["cwd"] == str(bench.root)
    descriptors = {name for name, target in runtime["fds"].items() if "/fd" not in target}
    assert descriptors == {"0", "1", "2", str(read), str(high)}


def test_the_launcher_becomes_the_runtime(bench: Bench) -> None:
    process = subprocess.Popen([bench.launcher, "state", ID], stdin=subprocess.DEVNULL)
    assert process.wait() == 7
    runtime = bench.recorded("runtime")
    assert runtime is not None
    assert runtime["pid"] == process.pid


def test_stdin_is_left_alone(bench: Bench) -> None:
    read, write = os.pipe()
    os.write(write, b"a specification\n")
    os.close(write)
    _, runtime, _ = bench.call(OTHERS["exec"], stdin=read)
    os.close(read)
    assert runtime is not None
    assert runtime["stdin"] == "a specification\n"


def test_the_shim_can_be_imported_as_the_launcher_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With this interpreter, isolated: it hands the call over to the runtime, since no flow has that name."""
    monkeypatch.setattr(rendezvous, "OPERATIONS", tmp_path / "op")
    runtime = recorder(tmp_path / "runtime", tmp_path / "runtime.json", 7)
    launcher = tmp_path / "runc"
    launcher.write_text(Launcher.of("runc", str(runtime), sys.executable).text())
    launcher.chmod(0o755)
    bench = Bench(launcher, tmp_path / "op", tmp_path / "created", runtime, Path(sys.executable), tmp_path)
    bench.begin_operation()
    arguments = [*CHECKPOINT[:-1], "0" * 64]
    code, recorded, _ = bench.call(arguments, cwd="/", env={"PATH": os.environ["PATH"]})
    assert code == 7
    assert recorded is not None
    assert recorded["argv"][1:] == arguments
