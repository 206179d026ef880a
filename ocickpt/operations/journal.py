"""What an operation was about to do, written before it does it, so that any later call can put it right.

A journal is one JSON file in the local store, replaced atomically at every step, and a lock that its
process holds: a journal whose lock can be taken belongs to a process that died.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

import msgspec

from ocickpt import atomic, failpoint, processes
from ocickpt.description import USUAL_OPTIONS, Options, Origin
from ocickpt.errors import BusyError, StorageError
from ocickpt.model import Published, json_value
from ocickpt.store.local import default_path


class Record(msgspec.Struct, frozen=True, kw_only=True, tag_field="verb"):
    """What a journal says of any operation."""

    steps: ClassVar[tuple[str, ...]]
    """What it goes through, in order; the room that does it says what each means."""

    key: str
    """Names the operation: the container's id for a checkpoint, random for a restore."""
    container: str
    """Id of the container that is checkpointed, or will be made ("" when podman chooses it)."""
    name: str
    reference: str
    step: str = "begun"
    work: str = ""
    """The operation's directory beside podman's storage: pages aside, captured files, archives."""
    reason: str = ""
    """Why a dumped checkpoint is not published yet."""

    @property
    def verb(self) -> str:
        """What kind of operation it is."""
        return str(self.__struct_config__.tag)


class Dumping(Record, frozen=True, kw_only=True):
    """What every checkpoint has."""

    image_path: str = ""
    started: str = ""
    """When the container was started."""
    thaw: tuple[str, ...] = ()
    """The command that thaws the container; the shim freezes it while it is dumped."""
    captured: bool = False
    """Whether pages and files were set aside; else podman's export holds everything."""
    lowers: tuple[str, ...] = ()
    """The image's layers below a captured upper directory, topmost first."""
    image_digest: str = ""
    runtime: str = ""
    options: Options = USUAL_OPTIONS
    origin: Origin | None = None
    """Where and by what the container was dumped: it may be published after an upgrade."""
    published: Published | None = None
    """What the checkpoint became, once it has its tag."""


class Checkpoint(Dumping, frozen=True, kw_only=True, tag="checkpoint"):
    """An `ocickpt checkpoint` (`save.dump`)."""

    steps: ClassVar = ("begun", "podman", "frozen", "captured", "dumped", "published")

    podman_pid: int = 0
    podman_start: int = 0
    """The podman that was started."""
    links: dict[str, str] = {}
    """Where the container's bind sources lead that pass symlinks, by what it had mounted (`engine.bundle`)."""


UNPUBLISHED = "unpublished"


class Intercept(Dumping, frozen=True, kw_only=True, tag="intercept"):
    """A checkpoint that podman made by itself (`save.collect`)."""

    steps: ClassVar = ("begun", "frozen", "dumped", UNPUBLISHED, "published")


class Restore(Record, frozen=True, kw_only=True, tag="restore"):
    """An `ocickpt restore` (`restoration.with_podman`)."""

    steps: ClassVar = ("begun", "podman", "guarded", "running", "lazy")

    runtime: str = ""
    podman_pid: int = 0
    podman_start: int = 0
    """The podman that was started."""
    guard_pid: int = 0
    guard_start: int = 0
    """The guard of a lazy restore."""
    volumes: tuple[str, ...] = ()
    """Volumes this restore makes; they go when it fails."""
    made_volumes: tuple[str, ...] = ()
    """Those of them that it makes before podman makes the container."""
    health_interval: str = ""
    """How often the container's healthcheck runs, once it is restored."""
    created_by: tuple[str, ...] = ()
    """What podman will name as the command that made the container; no other has the same."""


def podman_runs(record: Record) -> bool:
    """Whether a podman that this operation started is still at work."""
    return isinstance(record, Checkpoint | Restore) and processes.is_alive(record.podman_pid, record.podman_start)


R = TypeVar("R", bound=Record)


class Journal(Generic[R]):
    """An open journal, locked by this process."""

    def __init__(self, path: Path, lock: int, record: R) -> None:
        self._path = path
        self._lock = lock
        self.record = record
        self.kept = False

    @classmethod
    def begin(cls, record: R) -> Journal[R]:
        """Start a journal; BusyError when another process has one of that key."""
        directory = _directory()
        try:
            directory.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise StorageError(f"{directory} cannot be made: {error.strerror}") from error
        path = directory / f"{record.key}.json"
        lock = _try_lock(path)
        if lock is None:
            raise BusyError(f"another ocickpt is at work on container {record.name!r}")
        journal = cls(path, lock, record)
        if path.exists():
            journal.leave()
            raise BusyError(
                f"an earlier operation on container {record.name!r} was interrupted and is not put right yet",
                hint="`ocickpt doctor` tries it again, and says what is in the way",
            )
        journal.step(record.step)
        return journal

    def step(self, step: str, **changes: Any) -> None:
        """Write down that `step` is reached (with `changes` to the record), durably."""
        if step not in self.record.steps:
            raise ValueError(f"{self.record.verb} has no step {step}")
        failpoint.reached(f"{self.record.verb}.{step}.before")
        self.record = msgspec.structs.replace(self.record, step=step, **changes)
        data = json.dumps(msgspec.to_builtins(self.record)).encode()
        try:
            atomic.replace(self._path, data, durable=True)
        except OSError as error:
            raise StorageError(f"the journal {self._path} cannot be written: {error.strerror}") from error
        failpoint.reached(f"{self.record.verb}.{step}")

    def close(self) -> None:
        """The operation is over; nothing of it is left to put right."""
        failpoint.reached(f"{self.record.verb}.close.before")
        if self._lock < 0:  # it was left to a guard, which was done before it knew
            lock = _try_lock(self._path)
            self._lock = -1 if lock is None else lock
        self._path.unlink(missing_ok=True)
        self.leave()

    def paths(self) -> tuple[Path, Path]:
        """Its files: whoever takes it over removes them when all is done."""
        return self._path, self._path.with_suffix(".lock")

    def keep(self) -> Self:
        """Take an orphan over: the caller will close or leave it."""
        self.kept = True
        return self

    def leave(self) -> None:
        """Let go of the journal; it stays for a later call."""
        if self._lock >= 0:
            if not self._path.exists():
                self._path.with_suffix(".lock").unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = -1


def orphans() -> Iterator[Journal[Any]]:
    """The journals whose processes are dead, each locked while it is the caller's turn.

    One that cannot be read is in nobody's way; `unfinished` tells of it.
    """
    for path in sorted({each.with_suffix(".json") for each in _directory().glob("*.*")}):
        lock = _try_lock(path)
        if lock is None:
            continue
        path.with_suffix(".new").unlink(missing_ok=True)
        journal = None
        with suppress(StorageError):
            journal = _read(path, lock)
        if journal is None:
            if not path.exists():
                path.with_suffix(".lock").unlink(missing_ok=True)
            os.close(lock)
            continue
        yield journal
        if not journal.kept:
            journal.leave()


def records() -> list[Record]:
    """What every journal says, those of running processes included."""
    found = []
    for path in sorted(_directory().glob("*.json")):
        with suppress(StorageError):
            if journal := _read(path, -1):
                found.append(journal.record)
    return found


def is_busy(record: Record) -> bool:
    """Whether the process of that journal is at work, or another that puts it right."""
    path = _directory() / f"{record.key}.json"
    lock = _try_lock(path)
    if lock is None:
        return True
    Journal(path, lock, record).leave()
    return False


def unreadable() -> list[tuple[Path, str]]:
    """The journals that cannot be read, and why."""
    found = []
    for path in sorted(_directory().glob("*.json")):
        try:
            _read(path, -1)
        except StorageError as error:
            found.append((path, error.message))
    return found


def remove_unreadable(key: str) -> None:
    """Remove a journal that cannot be read; BusyError when somebody has it."""
    path = _directory() / f"{key}.json"
    lock = _try_lock(path)
    if lock is None:
        raise BusyError(f"somebody is at work on {path}")
    path.unlink(missing_ok=True)
    path.with_suffix(".lock").unlink(missing_ok=True)
    os.close(lock)


def _directory() -> Path:
    return default_path() / "journal"


def _try_lock(path: Path) -> int | None:
    lock_path = path.with_suffix(".lock")
    while True:
        lock = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return None
        with suppress(FileNotFoundError):
            if os.fstat(lock).st_ino == lock_path.stat().st_ino:
                return lock
        os.close(lock)


def _read(path: Path, lock: int) -> Journal[Any] | None:
    try:
        value = json_value(path.read_bytes(), file_names=True)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise StorageError(f"the journal {path} cannot be read: {error}") from error
    try:
        record = msgspec.convert(value, Checkpoint | Intercept | Restore)
    except (msgspec.ValidationError, UnicodeEncodeError) as error:
        raise StorageError(f"the journal {path} cannot be read: {error}") from error
    if record.step not in record.steps:
        raise StorageError(f"the journal {path} cannot be read: it has no step {record.step!r}")
    return Journal(path, lock, record)
