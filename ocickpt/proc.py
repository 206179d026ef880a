"""The one door to subprocesses."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ocickpt.errors import CommandError, PrerequisiteError

_TAIL_LINES = 8
_GATE = 'read -r go && exec "$@" </dev/null'


@dataclass(frozen=True, slots=True)
class Result:
    """A finished command: its exit status and what it printed."""

    argv: tuple[str, ...]
    returncode: int
    stdout: str
    stderr: str

    def failure(self, what: str = "") -> CommandError:
        """The error that says this command failed, with the last lines it wrote to stderr."""
        tail = "\n".join(self.stderr.strip().splitlines()[-_TAIL_LINES:]) or "it said nothing"
        doing = what or f"`{shlex.join(self.argv)}`"
        return CommandError(f"{doing} failed with exit status {self.returncode}: {tail}")


def run(
    argv: Sequence[str],
    *,
    check: bool = True,
    timeout: float | None = None,
    env: Mapping[str, str] | None = None,
    stdin: int | IO[bytes] = subprocess.DEVNULL,
    pass_fds: Sequence[int] = (),
) -> Result:
    """Run `argv` to its end and give back what it printed (undecodable bytes escaped).

    Raises PrerequisiteError when the program is not installed, CommandError when it exits with
    another status than 0 (unless `check` is false) or runs for more than `timeout` seconds.
    """
    try:
        done = subprocess.run(
            list(argv),
            check=False,
            stdin=stdin,
            capture_output=True,
            timeout=timeout,
            env=env,
            pass_fds=tuple(pass_fds),
        )
    except FileNotFoundError as error:
        raise PrerequisiteError(f"{argv[0]} is not installed", hint="`ocickpt doctor` lists what is needed") from error
    except OSError as error:
        raise CommandError(f"{argv[0]} cannot be run: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise CommandError(f"`{shlex.join(argv)}` did not end within {timeout:g} s") from error
    decoded = [part.decode("utf-8", "backslashreplace") for part in (done.stdout, done.stderr)]
    result = Result(tuple(argv), done.returncode, *decoded)
    if check and result.returncode:
        raise result.failure()
    return result


def call(argv: Sequence[str]) -> int:
    """Run `argv` with this process's own stdin, stdout and stderr; its exit status."""
    return subprocess.run(list(argv), check=False).returncode


class Background:
    """A command that runs on while this process does other things, and also if this process dies.

    It gets a session of its own, so that a Ctrl-C on the terminal does not reach it, and files instead
    of pipes, so that it is not killed by SIGPIPE when nobody reads any more.
    """

    def __init__(self, argv: Sequence[str], directory: Path) -> None:
        """Make the process; its output goes to ``stdout`` and ``stderr`` in `directory`.

        It becomes `argv` only when `go` is called, so that its pid can be written down before it does
        anything; if this process dies first, it ends.
        """
        self.argv = tuple(argv)
        self._directory = directory
        try:
            with (directory / "stdout").open("wb") as stdout, (directory / "stderr").open("wb") as stderr:
                self._process = subprocess.Popen(
                    ["sh", "-c", _GATE, "sh", *self.argv],
                    stdin=subprocess.PIPE,
                    stdout=stdout,
                    stderr=stderr,
                    start_new_session=True,
                )
        except FileNotFoundError as error:
            raise PrerequisiteError(
                f"{argv[0]} is not installed", hint="`ocickpt doctor` lists what is needed"
            ) from error
        except OSError as error:
            raise CommandError(f"{argv[0]} cannot be run: {error.strerror}") from error

    def go(self) -> None:
        """Let it run."""
        if self._process.stdin:
            self._process.stdin.write(b"go\n")
            self._process.stdin.close()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def poll(self) -> int | None:
        """Its exit status, or None while it runs."""
        return self._process.poll()

    def wait(self) -> Result:
        """Wait for its end."""
        status = self._process.wait()
        texts = [
            (self._directory / name).read_bytes().decode("utf-8", "backslashreplace") for name in ("stdout", "stderr")
        ]
        return Result(self.argv, status, *texts)


def running(*words: str) -> bool:
    """Whether there is another process in whose command line all of `words` are arguments."""
    wanted = {os.fsencode(word) for word in words}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        if path.parent.name == str(os.getpid()):
            continue
        try:
            found = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if wanted.issubset(found):
            return True
    return False


def start_time(pid: int) -> int | None:
    """When process `pid` was started, in clock ticks since boot (proc(5), stat field 22); None if there is none.

    With the pid it names a process for good, where a pid alone may have been given to another.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("ascii", "replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[19])
