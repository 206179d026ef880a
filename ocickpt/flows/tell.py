"""What the shim and the hooks have to say: to whoever called the engine, and to the system log."""

from __future__ import annotations

import sys
import syslog

from ocickpt.errors import OcickptError, writable


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
    if not isinstance(error, OcickptError):
        return f"{type(error).__name__}: {error}"
    return " ".join((error.message + (f" ({error.hint})" if error.hint else "")).split())
