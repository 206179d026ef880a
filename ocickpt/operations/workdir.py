"""The directory of one operation."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

from ocickpt.errors import StorageError

_RESERVE = 64 << 20


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


def check_space(work: Path, shm: Path, images: Path | None = None) -> None:
    """StorageError unless there is room for what podman writes once a container is stopped: it is small, but for `shm`.

    That is its /dev/shm, if it has one of its own: podman copies it, and puts the copy into its export. It copies
    CRIU's `images` too, which are large where deleted files are in them.
    """
    needed = _RESERVE + (2 * shutil.disk_usage(shm).used if shm.is_mount() else 0)
    needed += sum(each.stat().st_size for each in images.iterdir()) if images and images.is_dir() else 0
    if shutil.disk_usage(work).free < needed:
        raise StorageError(
            f"there is less than {needed >> 20} MiB free on the filesystem of {work.parent}",
            hint="`df -h` shows which disk is full; free some space",
        )
