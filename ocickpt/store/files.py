"""Directories held open, in which names are never followed out: layouts may come from anybody.

Every name is opened relative to its directory with O_NOFOLLOW, and only regular files are read, so a
symlink, FIFO or device in a layout can neither lead outside nor block.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Self

from ocickpt.errors import BusyError, IntegrityError, StorageError

TEMPORARY: Final = ".ocickpt-"
"""How the names of temporary files begin."""

_OPEN_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_OPEN_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_OPEN_NEW: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def storage_error(error: OSError, place: str) -> StorageError:
    """`error`, which happened at `place`, as a sentence."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageError(
            f"there is no space left for {place}",
            hint="free some space there; checkpoints that are no longer needed can be removed with `ocickpt rm`",
        )
    return StorageError(f"{place}: {error.strerror or error}")


@contextlib.contextmanager
def storage_errors(place: str) -> Iterator[None]:
    """Whatever OSError is raised inside becomes a StorageError naming `place`."""
    try:
        yield
    except OSError as error:
        raise storage_error(error, place) from error


class Directory:
    """An open directory and the path it is shown as. Methods raise StorageError; threads may share it."""

    def __init__(self, fd: int, shown: str) -> None:
        self.fd = fd
        self.shown = shown

    @classmethod
    def open(cls, path: Path) -> Self:
        """The directory at `path`, which the user named and may be reached through symlinks.

        Raises OSError as it is: the caller knows what a missing directory means.
        """
        return cls(os.open(path, _OPEN_DIRECTORY), str(path))

    def child(self, name: str, *, create: bool = False, mode: int = 0o755) -> Directory:
        """The directory `name` in this one, made if it may be; StorageError when it is a symlink."""
        shown = f"{self.shown}/{name}"
        with storage_errors(shown):
            if create:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(name, mode, dir_fd=self.fd)
            return Directory(os.open(name, _OPEN_DIRECTORY | os.O_NOFOLLOW, dir_fd=self.fd), shown)

    def regular(self, name: str) -> tuple[int, int] | None:
        """A descriptor of the regular file `name` and its size; None when there is none.

        IntegrityError when something else has that name.
        """
        shown = f"{self.shown}/{name}"
        try:
            fd = os.open(name, _OPEN_FILE, dir_fd=self.fd)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENXIO):
                raise IntegrityError(f"{shown} is not a regular file") from error
            raise storage_error(error, shown) from error
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            os.close(fd)
            raise IntegrityError(f"{shown} is not a regular file")
        return fd, status.st_size

    def read(self, name: str, limit: int) -> bytes | None:
        """The file `name`, at most `limit` bytes (IntegrityError if it is longer); None when absent."""
        found = self.regular(name)
        if found is None:
            return None
        with os.fdopen(found[0], "rb") as file, storage_errors(f"{self.shown}/{name}"):
            data = file.read(limit + 1)
        if len(data) > limit:
            raise IntegrityError(f"{self.shown}/{name} is larger than {limit} bytes")
        return data

    def temporary(self) -> tuple[int, str]:
        """A new empty file: its descriptor and name."""
        name = TEMPORARY + secrets.token_hex(8)
        with storage_errors(self.shown):
            return os.open(name, _OPEN_NEW, 0o644, dir_fd=self.fd), name

    def move(self, name: str, to: Directory, new_name: str) -> None:
        """Rename `name` to `new_name` in `to`, durably."""
        with storage_errors(f"{to.shown}/{new_name}"):
            os.rename(name, new_name, src_dir_fd=self.fd, dst_dir_fd=to.fd)
            os.fsync(to.fd)

    def replace(self, name: str, data: bytes) -> None:
        """Give the file `name` the content `data`: atomically, durably."""
        fd, temporary = self.temporary()
        try:
            with os.fdopen(fd, "wb") as file, storage_errors(f"{self.shown}/{name}"):
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            self.move(temporary, self, name)
        except BaseException:
            self.remove(temporary)
            raise

    def remove(self, name: str) -> None:
        """Unlink `name`, if it is there."""
        with storage_errors(f"{self.shown}/{name}"), contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self.fd)

    def files(self) -> Iterator[tuple[str, int]]:
        """Name and size in bytes of every regular file; nothing else is told."""
        with storage_errors(self.shown), os.scandir(self.fd) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    status = entry.stat(follow_symlinks=False)
                    if stat.S_ISREG(status.st_mode):
                        yield entry.name, status.st_size

    @contextlib.contextmanager
    def locked(self, *, exclusive: bool = True, wait: bool = True) -> Iterator[None]:
        """Hold a flock(2) on the directory itself; it also keeps out other threads of this process.

        BusyError when it is taken and `wait` is false.
        """
        fd = self.lock(exclusive=exclusive, wait=wait)
        try:
            yield
        finally:
            os.close(fd)

    def lock(self, *, exclusive: bool, wait: bool) -> int:
        """A descriptor that holds the lock until it is closed (see `locked`)."""
        operation = (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | (0 if wait else fcntl.LOCK_NB)
        with storage_errors(self.shown):
            fd = os.open(".", _OPEN_DIRECTORY, dir_fd=self.fd)
            try:
                fcntl.flock(fd, operation)
            except BlockingIOError as error:
                os.close(fd)
                raise BusyError(f"somebody is writing to {self.shown}") from error
            except BaseException:
                os.close(fd)
                raise
        return fd

    def close(self) -> None:
        """Close the descriptor. Harmless when repeated."""
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            os.close(fd)
