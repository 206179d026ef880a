"""The place where the shim meets the flow it works for: one socket under /run, for one operation."""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ocickpt import proc, rendezvous
from ocickpt.errors import BusyError, OcickptError, StorageError
from ocickpt.model import json_value
from ocickpt.operations.journal import Checkpoint, Dumping, Restore, podman_runs

if TYPE_CHECKING:
    from ocickpt.rendezvous import Answer, Asked

    Handle = Callable[[Asked], Answer]

_MESSAGE_LIMIT = 64 << 10
_MOST = 300.0
_TICK = 0.05


class Operation:
    """A listening socket, and the messages of one shim at a time."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._connection: socket.socket | None = None
        self._received = b""
        self._failure: BaseException | None = None

    def serve(self, command: proc.Background, handle: Handle) -> proc.Result:
        """Answer the shim's messages with `handle` until `command` has ended.

        What `handle` raises is answered as ``{"error": …}`` and raised once `command` has ended, an OSError
        as StorageError. So is a Ctrl-C: podman is not disturbed, but from then on every answer is an error.
        """
        ended = os.pidfd_open(command.pid)
        try:
            while True:
                try:
                    if command.poll() is not None:
                        break
                    self._turn(handle, ended)
                except KeyboardInterrupt as error:
                    # A message may have been lost: who waits for its answer must not wait for ever.
                    self._failure = self._failure or error
                    self._hang_up()
                except (OSError, ValueError):
                    # The shim died in the middle of a message; podman will report what becomes of that.
                    self._hang_up()
            result = command.wait()
        finally:
            os.close(ended)
            self._hang_up()
        if self._failure:
            raise self._failure
        return result

    def _turn(self, handle: Handle, ended: int) -> None:
        """Take what comes next, unless the command has `ended` first; answer it if it is the rest of a message."""
        incoming = (self._connection or self._listener).fileno()
        if incoming not in select.select([incoming, ended], [], [])[0]:
            return
        if self._connection is None:
            self._connection = self._listener.accept()[0]
            return
        part = self._connection.recv(_MESSAGE_LIMIT)
        self._received += part
        if not part or len(self._received) > _MESSAGE_LIMIT:
            self._hang_up()
            return
        line, newline, rest = self._received.partition(b"\n")
        if newline:
            self._received = rest
            self._connection.sendall(
                json.dumps(self._answer(json_value(line, file_names=True), handle)).encode() + b"\n"
            )

    def _answer(self, message: Any, handle: Handle) -> Answer:
        if not isinstance(message, dict):
            raise ValueError("a message is not an object")  # noqa: TRY004 - it is content, not a programmer's mistake
        if self._failure:
            return {"error": _told(self._failure)}
        try:
            return handle(cast("Asked", message))
        except OSError as error:
            self._failure = StorageError(str(error))
        except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - raised when podman has ended
            self._failure = error
        return {"error": _told(self._failure)}

    def _hang_up(self) -> None:
        if self._connection:
            self._connection.close()
        self._connection, self._received = None, b""


def _told(failure: BaseException) -> str:
    if isinstance(failure, OcickptError):
        return failure.message
    return "interrupted" if isinstance(failure, KeyboardInterrupt) else f"this is a bug: {failure!r}"


def end(record: Checkpoint | Restore) -> None:
    """Wait until podman and runtime of an operation have ended, and remove the socket. BusyError when they do not.

    Not before: what podman still runs must find that somebody asked for it (`shim`).
    """
    patience = time.monotonic() + _MOST
    while podman_runs(record):
        if time.monotonic() > patience:
            raise BusyError(f"podman (pid {record.podman_pid}) is still at work on container {record.name!r}")
        time.sleep(_TICK)
    (rendezvous.OPERATIONS / record.key).unlink(missing_ok=True)
    if isinstance(record, Checkpoint):
        wait_for_runtime(record)


def wait_for_runtime(record: Dumping) -> None:
    """Wait until nobody dumps the container any more: a shim that was killed leaves the runtime at work. BusyError."""
    patience = time.monotonic() + _MOST
    while proc.running("checkpoint", record.container, record.image_path):
        if time.monotonic() > patience:
            raise BusyError(f"the runtime is still at work on container {record.name!r}")
        time.sleep(_TICK)


@contextlib.contextmanager
def opened(key: str) -> Iterator[Operation]:
    """An operation that shims find under `key`; its socket is gone after the block, or after an error with `end`."""
    path = rendezvous.OPERATIONS / key
    with contextlib.closing(_listen(path)) as listener:
        yield Operation(listener)
    path.unlink(missing_ok=True)


def _listen(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.parent.parent.mkdir(mode=0o700, exist_ok=True)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        path.unlink(missing_ok=True)
        listener.bind(str(path))
        path.chmod(0o600)
        listener.listen(1)
    except OSError as error:
        listener.close()
        raise StorageError(f"{path}: {error.strerror}") from error
    return listener
