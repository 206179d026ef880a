"""What the shim and the hooks have to say: to whoever called the engine, and to the system log."""

from __future__ import annotations

import contextlib
import json
import sys
import syslog
import time
from pathlib import Path

from ocickpt import libraries
from ocickpt.errors import OcickptError, writable
from ocickpt.model import Silent


class Logged(Silent):
    """Progress where nobody watches: what the user should know goes to the system log, and says of `what` it is."""

    def __init__(self, what: str) -> None:
        self._what = what

    def note(self, text: str) -> None:
        """One sentence."""
        say(f"{self._what}: {text}", quiet=True)


def say(text: str, *, error: bool = False, quiet: bool = False, plain: bool = False) -> None:
    """One line on stderr (not when `quiet`), and in the system log."""
    text = writable(text)
    if not quiet:
        sys.stderr.write(f"{text}\n" if plain else f"ocickpt: {text}\n")
        sys.stderr.flush()
    syslog.openlog("ocickpt", syslog.LOG_PID, syslog.LOG_DAEMON)
    syslog.syslog(syslog.LOG_ERR if error else syslog.LOG_INFO, text)


def told(error: Exception) -> str:
    """What an error says, with its hint, in one line."""
    ours = error if isinstance(error, OcickptError) else libraries.unusable(error)
    if ours is None:
        return libraries.reason(error)
    return " ".join((ours.message + (f" ({ours.hint})" if ours.hint else "")).split())


def refuse(error: Exception, log: str) -> int:
    """Say why a container cannot be created, in the runtime's `log` too, where engines look for it; the exit status.

    In the place of what the runtime itself has said there: podman reads one line or none (libpod/oci_conmon_common.go).
    """
    text = told(error)
    say(text, error=True)
    if log:
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        line = json.dumps({"level": "error", "msg": f"ocickpt: {text}", "time": now}) + "\n"
        with contextlib.suppress(OSError):
            Path(log).write_text(line, "utf-8")
    return 1
