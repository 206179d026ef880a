"""The directory of one operation."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

from ocickpt.errors import StorageError


def make(path: Path) -> Path:
    """A new private directory for one operation; one that a dead process left there is emptied."""
    remove(path)
    try:
        while not path.exists():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):  # another operation found the one above it empty
                path.mkdir(mode=0o700)
    except OSError as error:
        raise StorageError(f"{path} cannot be made: {error.strerror}") from error
    return path


def remove(path: Path) -> None:
    """Remove an operation's directory, and the one above it when that was the last."""
    try:
        if path.exists():
            shutil.rmtree(path)
    except OSError as error:
        raise StorageError(f"{path} cannot be removed: {error.strerror}") from error
    with contextlib.suppress(OSError):
        path.parent.rmdir()
