"""The one door to subprocesses."""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import weakref
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

    It gets a session of its own, so that a Ctrl-C on the terminal does not reach it, and files without a name
    instead of pipes, so that it is not killed by SIGPIPE when nobody reads any more.
    """

    def __init__(
        self, argv: Sequence[str], *, waits: bool = False, environment: Mapping[str, str] | None = None
    ) -> None:
        """Make the process, with `environment` beside this one's own.

        It becomes `argv` only when `go` is called, so that its pid can be written down before it does
        anything; if this process dies first, it ends. One that `waits` sees to that itself: it reads a line
        from its stdin before it does anything.
        """
        self.argv = tuple(argv)
        self._output = _Output()
        self._errors = _Output()
        try:
            self._process = subprocess.Popen(
                self.argv if waits else ("sh", "-c", _GATE, "sh", *self.argv),
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=self._output.fd,
                stderr=self._errors.fd,
                start_new_session=True,
                env=os.environ | environment if environment else None,
            )
        except FileNotFoundError as error:
            raise PrerequisiteError(
                f"{argv[0]} is not installed", hint="`ocickpt doctor` lists what is needed"
            ) from error
        except OSError as error:
            raise CommandError(f"{argv[0]} cannot be run: {error.strerror}") from error

    def tell(self, line: str) -> None:
        """Write a line to its stdin, before `go`; one that has died meanwhile is not told."""
        if self._process.stdin:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.write(line.encode() + b"\n")

    def go(self, line: str = "go") -> None:
        """Let it run; one that `waits` gets this line."""
        self.tell(line)
        if self._process.stdin:
            self._process.stdin.close()

    def dismiss(self) -> None:
        """End it, if it was not let run; it has ended then."""
        if self._process.stdin and not self._process.stdin.closed:
            self._process.stdin.close()
            self._process.wait()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def stderr(self) -> str:
        """What it has written to stderr by now."""
        return self._errors.text()

    def poll(self) -> int | None:
        """Its exit status, or None while it runs."""
        return self._process.poll()

    def wait(self) -> Result:
        """Wait for its end."""
        return Result(self.argv, self._process.wait(), self._output.text(), self._errors.text())


class _Output:
    """What a process writes, in memory: it lives as long as one of them has it open."""

    def __init__(self) -> None:
        self.fd = os.memfd_create("output", os.MFD_CLOEXEC)
        weakref.finalize(self, os.close, self.fd)

    def text(self) -> str:
        """All of it that is written by now."""
        return os.pread(self.fd, os.fstat(self.fd).st_size, 0).decode("utf-8", "backslashreplace")


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
