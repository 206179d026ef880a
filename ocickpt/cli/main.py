"""The group of all verbs, and the one place where errors become words and an exit code."""

from __future__ import annotations

import errno
import io
import os
import select
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from importlib import import_module
from types import FrameType
from typing import NoReturn

import click

from ocickpt import __version__, libraries
from ocickpt.cli.output import words
from ocickpt.errors import OcickptError, StorageError

VERBS = ("checkpoint", "restore", "push", "pull", "list", "inspect", "rm", "prune", "status", "doctor", "setup")
_BUG = 1
_INTERRUPTED = 130
_BROKEN_PIPE = 141


class _Verbs(click.Group):
    """Loads a verb's module when that verb is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in VERBS:
            return None
        found = import_module(f"ocickpt.cli.{cmd_name}").command
        assert isinstance(found, click.Command)  # noqa: S101 - a verb's module without a command is a bug
        return found


@click.group(
    cls=_Verbs,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="REF is [docker://]HOST[:PORT]/REPOSITORY[:TAG][@DIGEST], oci:DIRECTORY[:TAG], or NAME[:TAG] in the "
    "local store.",
)
@click.version_option(__version__, message="ocickpt %(version)s")
def cli() -> None:
    """Turn a running container into an artifact in a registry, and the artifact back into the container."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run ``ocickpt ARGUMENT…`` and exit."""
    if "_OCICKPT_COMPLETE" in os.environ:
        cli.main(prog_name="ocickpt")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr: not every terminal knows every character
    told = _signals()
    try:
        status = run(sys.argv[1:] if arguments is None else arguments)
    except KeyboardInterrupt:
        status = _INTERRUPTED  # Ctrl-C was pressed again while the first was being told
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if status == _INTERRUPTED and told:
        status = 128 + told[0]
    _hush()
    # Taking the interpreter apart would take as long as a lazy restore's last steps.
    os._exit(status)


def run(arguments: Sequence[str]) -> int:
    """Run ``ocickpt ARGUMENT…``; the exit code. Nothing but SystemExit of a library comes out of it."""
    if not arguments:
        with cli.make_context("ocickpt", [], resilient_parsing=True) as context:
            click.echo(cli.get_help(context), err=True)
        return click.UsageError.exit_code
    try:
        with cli.make_context("ocickpt", list(arguments)) as context:
            cli.invoke(context)
        sys.stdout.flush()
    except click.exceptions.Exit as asked:
        return asked.exit_code
    except click.ClickException as error:
        return _usage(error)
    except (KeyboardInterrupt, click.Abort):
        words("ocickpt: interrupted")
        return _INTERRUPTED
    except OcickptError as error:
        return _failed(error)
    except BrokenPipeError as error:
        # Whoever read our output has seen enough; a broken pipe anywhere else is not expected.
        return _BROKEN_PIPE if _stdout_is_closed() else _unexpected(error)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT) and not libraries.unusable(error):
            return _failed(_full(error))
        return _unexpected(error)
    except Exception as error:  # noqa: BLE001 - this is where bugs become one sentence
        return _unexpected(error)
    return 0


def _usage(error: click.ClickException) -> int:
    words(f"ocickpt: {error.format_message()}")
    if isinstance(error, click.UsageError) and error.ctx:
        words(f"hint: `{error.ctx.command_path} --help` says what it takes")
    return error.exit_code


def _failed(error: OcickptError, cause: BaseException | None = None) -> int:
    _trace(cause or error)
    words(f"ocickpt: {error.message}")
    if error.hint:
        words(f"hint: {error.hint}")
    return error.exit_code


def _full(error: OSError) -> StorageError:
    where = f" for {os.fsdecode(error.filename)}" if error.filename else ""
    return StorageError(f"there is no space left{where}", hint="`df -h` shows which disk is full; free some space")


def _unexpected(error: BaseException) -> int:
    if lacking := libraries.unusable(error):
        return _failed(lacking, error)
    _trace(error)
    words(f"ocickpt: this is a bug: {type(error).__name__}: {error}")
    words("hint: please report it, with what OCICKPT_DEBUG=1 in the environment makes it print")
    return _BUG


def _trace(error: BaseException) -> None:
    if os.environ.get("OCICKPT_DEBUG", "") not in ("", "0"):
        words("".join(traceback.format_exception(error)).rstrip())


def _signals() -> list[int]:
    """Let SIGTERM and SIGHUP end us as Ctrl-C does, with everything put right; the list gets which it was."""
    told: list[int] = []

    def interrupt(number: int, _frame: FrameType | None) -> None:
        told.append(number)
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:  # `nohup` has it ignored
            signal.signal(number, interrupt)
    return told


def _stdout_is_closed() -> bool:
    """Whether nobody reads stdout any more."""
    watch = select.poll()
    try:
        watch.register(sys.stdout.fileno(), 0)
    except (OSError, ValueError):
        return False  # not a file: a test's
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in watch.poll(0))


def _hush() -> None:
    """Python flushes stdout once more at its end: what cannot be written then is not to be complained about."""
    handlers: tuple[Callable[[], None], ...] = (sys.stdout.flush, sys.stderr.flush)
    for flush in handlers:
        try:
            flush()
        except (OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 1 if flush is handlers[0] else 2)
            os.close(null)
