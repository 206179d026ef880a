"""Everything that goes wrong is one sentence, a hint, and an exit code; and never a traceback."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ocickpt import errors
from ocickpt.errors import NotFoundError, OcickptError
from tests.integration.cli_bench import Bench

FLOW = "library.catalog.list_checkpoints"
ROOT = Path(__file__).resolve().parents[2]
ROOMS = sorted(each.parent.name for each in (ROOT / "ocickpt").glob("*/__init__.py") if each.parent.name != "cli")


def every_error() -> list[type[OcickptError]]:
    found = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, OcickptError)]
    return sorted(found, key=lambda each: each.exit_code)


@pytest.mark.parametrize("kind", every_error())
def test_an_error_is_a_sentence_a_hint_and_its_code(ocickpt: Bench, kind: type[OcickptError]) -> None:
    ocickpt.fail(FLOW, kind("there is no such thing", hint="make one"))
    done = ocickpt.run("list")
    assert (done.code, done.stdout) == (kind.exit_code, "")
    assert done.stderr == "ocickpt: there is no such thing\nhint: make one\n"


def test_without_a_hint_there_is_none(ocickpt: Bench) -> None:
    ocickpt.fail(FLOW, NotFoundError("there is no such thing"))
    assert ocickpt.run("list").stderr == "ocickpt: there is no such thing\n"


def test_what_others_said_does_not_drive_the_terminal(ocickpt: Bench) -> None:
    ocickpt.fail(FLOW, NotFoundError("podman said:\n\x1b]0;title\x07 \u202e", hint="\x1b[31m"))
    assert ocickpt.run("list").stderr == "ocickpt: podman said:\n\\x1b]0;title\\x07 \\u202e\nhint: \\x1b[31m\n"


def test_the_traceback_is_there_for_who_asks(ocickpt: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    ocickpt.fail(FLOW, NotFoundError("there is no such thing"))
    monkeypatch.setenv("OCICKPT_DEBUG", "1")
    stderr = ocickpt.run("list").stderr
    assert stderr.startswith("Traceback (most recent call last):\n")
    assert stderr.endswith("\nocickpt: there is no such thing\n")
    monkeypatch.setenv("OCICKPT_DEBUG", "0")
    assert "Traceback" not in ocickpt.run("list").stderr


def test_a_bug_is_called_one(ocickpt: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    ocickpt.fail(FLOW, ZeroDivisionError("division by zero"))
    done = ocickpt.run("list")
    assert done.code == 1
    assert done.stderr.startswith("ocickpt: this is a bug: ZeroDivisionError: division by zero\nhint: please report it")
    assert "Traceback" not in done.stderr
    monkeypatch.setenv("OCICKPT_DEBUG", "1")
    assert "Traceback" in ocickpt.run("list").stderr


def test_an_interrupt(ocickpt: Bench) -> None:
    ocickpt.fail(FLOW, KeyboardInterrupt())
    done = ocickpt.run("list")
    assert (done.code, done.stderr) == (130, "ocickpt: interrupted\n")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_no_bug(ocickpt: Bench, number: int) -> None:
    ocickpt.fail(FLOW, OSError(number, os.strerror(number), "/var/lib/ocickpt/x"))
    done = ocickpt.run("list")
    assert done.code == 11
    assert done.stderr.startswith("ocickpt: there is no space left for /var/lib/ocickpt/x\nhint: ")


def test_a_broken_pipe_that_is_not_stdout_is_a_bug(ocickpt: Bench) -> None:
    ocickpt.fail(FLOW, BrokenPipeError(errno.EPIPE, "Broken pipe"))
    done = ocickpt.run("list")
    assert done.code == 1
    assert "this is a bug" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["checkpoint", "web"], "Missing argument 'REF'"),
        (["checkpoint", "web", "ref", "more"], "Got unexpected extra argument (more)"),
        (["restore", "--nmae", "x", "ref"], "No such option"),
        (["lst"], "No such command 'lst'"),
        (["list", "--format", "xml"], "Invalid value for '--format'"),
    ],
)
def test_a_command_line_that_makes_no_sense(ocickpt: Bench, arguments: list[str], sentence: str) -> None:
    done = ocickpt.run(*arguments)
    assert (done.code, done.stdout) == (2, "")
    assert done.stderr.startswith("ocickpt: ")
    assert sentence in done.stderr
    assert "\nhint: `ocickpt" in done.stderr


def test_no_command_shows_the_help(ocickpt: Bench) -> None:
    done = ocickpt.run()
    assert (done.code, done.stdout) == (2, "")
    assert "Commands:" in done.stderr


def test_a_container_name_with_control_characters(ocickpt: Bench) -> None:
    done = ocickpt.run("lst\x1b[2J")
    assert done.code == 2
    assert "\x1b" not in done.stderr


# As a real process: what depends on file descriptors and signals.

SCRIPT = """\
import sys
from ocickpt.cli import main
import ocickpt.library.catalog as catalog
def list_checkpoints(repo, access, limit, progress):
    {body}
catalog.list_checkpoints = list_checkpoints
main.main(["list", "--format", "json"])
"""


def process(body: str, stdout: int) -> subprocess.Popen[str]:
    argv = [sys.executable, "-c", SCRIPT.format(body=body)]
    return subprocess.Popen(argv, cwd=ROOT, stdout=stdout, stderr=subprocess.PIPE, text=True)


def ended(running: subprocess.Popen[str]) -> tuple[int, str]:
    _, stderr = running.communicate(timeout=30)
    return running.returncode, stderr


def test_who_has_seen_enough_is_not_told_anything() -> None:
    read, write = os.pipe()
    os.close(read)
    running = process("return ['x' * 100_000]", stdout=write)
    os.close(write)
    assert ended(running) == (141, "")


def test_a_full_disk_under_stdout_is_told() -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    running = process("return ['x' * 100_000]", stdout=full)
    os.close(full)
    code, stderr = ended(running)
    assert code == 11
    assert stderr.startswith("ocickpt: there is no space left")


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)], ids=str
)
def test_a_signal_lets_the_flow_put_things_right(number: int, code: int) -> None:
    body = "\n    ".join(
        [
            "import time",
            "try:",
            "    print('ready', flush=True)",
            "    time.sleep(30)",
            "finally:",
            "    print('put right')",
        ]
    )
    running = process(body, stdout=subprocess.PIPE)
    assert running.stdout
    assert running.stdout.readline() == "ready\n"
    running.send_signal(number)
    stdout, stderr = running.communicate(timeout=30)
    assert (running.returncode, stdout, stderr) == (code, "put right\n", "ocickpt: interrupted\n")


def test_it_starts_without_loading_what_it_does_not_need() -> None:
    """`ocickpt --help` and mistakes in a command line must not wait for rooms, rich or numpy."""
    script = (
        "import sys; from ocickpt.cli.main import run; run(['checkpoint', '--help']); "
        "slow = {'rich', 'numpy', 'zstandard', 'urllib3', 'msgspec', 'ocickpt.api'}; "
        f"slow |= {{'ocickpt.' + each for each in {ROOMS!r}}}; print(sorted(slow & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_python_m(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ocickpt", "inspect"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "Missing argument 'REF'" in done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_offered(shell: str) -> None:
    environment = {
        **os.environ,
        "_OCICKPT_COMPLETE": f"{shell}_complete",
        "COMP_WORDS": "ocickpt che",
        "COMP_CWORD": "1",
    }
    if shell == "fish":
        environment["COMP_CWORD"] = "che"
    argv = [sys.executable, "-m", "ocickpt"]
    done = subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert "checkpoint" in done.stdout
    assert "restore" not in done.stdout.replace("restore a", "")
