"""A file is replaced in one step: whoever reads it sees the old one or the new one. Standard library only."""

from __future__ import annotations

import os
from pathlib import Path


def replace(path: Path, data: bytes, *, mode: int = 0o600, durable: bool = False, suffix: str = ".new") -> None:
    """Put `data` into the file at `path`, which has `mode` then; OSError, and the old file, when that fails.

    It is written beside it first, under the same name with another `suffix`: one that no other writer takes at the same
    time. What is `durable` is on disk when this returns, its name too (fsync(2)).
    """
    temporary = path.with_suffix(suffix)
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode), "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        sync(path.parent)


def sync(directory: Path) -> None:
    """Have what was named, renamed and removed in `directory` on disk."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
