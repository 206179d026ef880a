"""What CRIU's log says went wrong."""

from __future__ import annotations

import re
from pathlib import Path

_TAIL = 256 << 10
_ERROR = re.compile(r"Error \([^)]*\): (.*)")
_NOISE = ("rlimit: Can't setup RLIMIT_NOFILE", "Dumping FAILED", "Restoring FAILED")
"""Errors that stop nothing, and the one that says that there was another."""


def log_errors(log: Path, most: int = 5) -> list[str]:
    """What the last errors in a dump.log or restore.log say; nothing when there is no log."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _TAIL))
            lines = file.read(_TAIL).decode("utf-8", "backslashreplace").splitlines()
    except OSError:
        return []
    found = [match[1].strip() for line in lines if (match := _ERROR.search(line))]
    return [text for text in found if not text.startswith(_NOISE)][-most:]
