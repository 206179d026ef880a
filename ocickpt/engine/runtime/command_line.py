"""The command lines of runc and crun, as far as we have to read them: the one table of their options.

    RUNTIME [OPTION…] SUBCOMMAND [OPTION…] CONTAINER

runc takes ``-bundle`` for ``--bundle`` and ``-b=DIR`` for ``-b DIR`` (Go's flag package), crun ``-bDIR``, ``-fr``, and
options after the container (glibc's argp). The shim runs in every container's way: next to nothing is imported here.
"""

from __future__ import annotations

import os
import signal

TYPE_CHECKING = False  # see `rendezvous`
if TYPE_CHECKING:
    from typing import NoReturn

VALUED: dict[str, tuple[tuple[str, ...], ...]] = {
    "": (
        ("--cgroup-manager",), ("--criu",), ("--log",), ("--log-format",), ("--log-level",), ("--root",),
        ("--rootless",),
    ),
    "checkpoint": (
        ("--empty-ns",), ("--image-path",), ("--manage-cgroups-mode",), ("--page-server",), ("--parent-path",),
        ("--status-fd",), ("--work-path",),
    ),
    "restore": (
        ("--bundle", "-b"), ("--console-socket",), ("--empty-ns",), ("--image-path",), ("--lsm-mount-context",),
        ("--lsm-profile",), ("--manage-cgroups-mode",), ("--pid-file",), ("--work-path",),
    ),
    "create": (
        ("--bundle", "-b"), ("--config", "-f"), ("--console-socket",), ("--pid-file",), ("--pidfd-socket",),
        ("--preserve-fds",),
    ),
    "start": (),
    "state": (),
    "delete": (),
}  # fmt: skip
"""The names of each option that takes a value, by subcommand; those before the subcommand are under no name."""

SWITCHES = {"restore": "d", "delete": "fr"}
"""The letters that stand for options without a value, which others may follow in the same word."""

HIDDEN = ("--criu",)
"""Options that runc takes, and does not show."""


def read(words: list[str], subcommand: str = "") -> tuple[dict[str, str], int]:
    """The options among `words`, by the first of their names, and where the first word stands that is none.

    An option without a value has ``true``. `words` are what comes after the subcommand, or all that comes after the
    runtime: then what comes after the first word is not looked at.
    """
    first_names = {name: names[0] for names in VALUED[subcommand] for name in names}
    options: dict[str, str] = {}
    word, first, at = "", len(words), 0
    while at < len(words):
        word, at = words[at], at + 1
        if word == "--":
            return options, min(first, at)
        if len(word) < 2 or word[0] != "-":
            first = min(first, at - 1)
            if not subcommand:
                break
            continue
        name, attached, value = word.partition("=")
        found = next((first_names[each] for each in (name, f"-{name}", name[1:]) if each in first_names), "")
        if not found and name[1] != "-":
            found, attached, value = _bundled(word, first_names, SWITCHES.get(subcommand, ""), options)
        if not found:
            options[name] = value if attached else "true"
        elif attached:
            options[found] = value
        elif at < len(words):
            options[found], at = words[at], at + 1
    return options, first


def _bundled(word: str, first_names: dict[str, str], switches: str, options: dict[str, str]) -> tuple[str, str, str]:
    """Letters in one word: the option with a value that ends them, whether that is in the word, and the value."""
    for at in range(1, len(word)):
        letter = f"-{word[at]}"
        if letter in first_names:
            return first_names[letter], word[at + 1 :], word[at + 1 :]
        if word[at] not in switches:
            break
        options[letter] = "true"
    return "", "", ""


def subcommand(arguments: list[str]) -> int:
    """Where the subcommand stands in a runtime's arguments; their number when there is none."""
    return min(read(arguments)[1], len(arguments))


def container(rest: list[str], verb: str) -> str:
    """The container among what comes after the subcommand `verb`; nothing when there is none."""
    return next(iter(rest[read(rest, verb)[1] :]), "")


def option(words: list[str], name: str, verb: str = "") -> str:
    """The value of the option `name` after the subcommand `verb` (without one: before any); nothing without it."""
    return read(words, verb)[0].get(name, "")


def flag(rest: list[str], name: str, verb: str) -> bool:
    """Whether the option `name`, which takes no value, is set after the subcommand `verb`."""
    return option(rest, name, verb).lower() in ("true", "t", "1")


def become(runtime: str, arguments: list[str]) -> NoReturn:
    """Be the runtime from now on."""
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)  # Python ignores them, and the runtime would go on ignoring them
    os.execv(runtime, [runtime, *arguments])  # noqa: S606 - handing over is what this is for


def exit_status(returncode: int) -> int:
    """An exit status as a shell has it; negative is a signal's number."""
    return returncode if returncode >= 0 else 128 - returncode
