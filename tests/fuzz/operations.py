"""What two of our processes tell each other, and what is found on the disk after one of them died."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from ocickpt.engine.criu import log_errors
from ocickpt.operations import journal
from ocickpt.operations.channel import Operation
from ocickpt.operations.journal import Checkpoint, Restore
from tests.fuzz.target import SCRATCH, Find, Target


def hear_messages(data: bytes) -> None:
    """What a shim sends, as `Operation.serve` takes it: it hangs up on a ValueError and an OSError."""
    ours, theirs = socket.socketpair()
    never, other = os.pipe()
    made = Operation(ours)
    heard: list[Any] = []
    try:
        theirs.settimeout(5)
        made._connection = ours
        theirs.sendall(data)
        theirs.shutdown(socket.SHUT_WR)
        while made._connection:
            made._turn(lambda message: heard.append(message) or {}, never)  # type: ignore[func-returns-value]
    except (OSError, ValueError):
        made._hang_up()
    finally:
        for each in (ours, theirs):
            each.close()
        for handle in (never, other):
            os.close(handle)
    if not all(isinstance(each, dict) for each in heard):
        raise Find("what is no object was heard")


def message_seeds() -> Iterator[bytes]:
    yield b'{"kind": "frozen", "pid": 7}\n{"kind": "dumped"}\n'
    yield b'{"a": "\\ud83d"}\n[]\n'


def read_journal(data: bytes) -> None:
    found = journal._read(SCRATCH.file(data, "input.json"), -1)
    if found:
        json.dumps(msgspec.to_builtins(found.record)).encode()


def journal_seeds() -> Iterator[bytes]:
    for record in (
        Checkpoint(key="k", container="c" * 64, name="n", reference="reg.example/a:1", thaw=("a", "b"), lowers=("/x",)),
        Restore(key="k", container="", name="n", reference="r", step="lazy", volumes=("v",), guard_pid=1 << 22),
    ):
        yield json.dumps(msgspec.to_builtins(record)).encode()


def read_log(data: bytes) -> None:
    found = log_errors(SCRATCH.file(data))
    if len(found) > 5:
        raise Find("more errors than were asked for")


def log_seeds() -> Iterator[bytes]:
    yield b"(00.1) 1: Error (criu/mount.c:1): mnt: No such file\n(00.2) Error (criu/cr-restore.c:2): Restoring\n"


TARGETS: Final = {
    "messages": Target(hear_messages, message_seeds),
    "journal": Target(read_journal, journal_seeds),
    "criu-log": Target(read_log, log_seeds),
}
