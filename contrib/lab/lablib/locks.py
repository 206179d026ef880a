"""Locks that are files: held by one process at a time, free again when it dies."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from fcntl import LOCK_EX, flock
from pathlib import Path


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold the lock file `path`, waiting for whoever has it. The holder may remove it."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            file = path.open("w", encoding="ascii")
        except FileNotFoundError:
            continue  # the directory went with the last lab
        with file:
            flock(file, LOCK_EX)
            try:
                same = os.path.samestat(os.fstat(file.fileno()), path.stat())
            except FileNotFoundError:
                same = False
            if same:
                yield
                return
