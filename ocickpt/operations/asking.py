"""The shim's end of the channel: it asks the flow that waits for it, in a line of JSON, and waits for the answer.

Standard library only, and little of it: the shim loads this.
"""

from __future__ import annotations

import io
import json
import re
import socket
import stat

from ocickpt import rendezvous

TYPE_CHECKING = False  # see `rendezvous`
if TYPE_CHECKING:
    from collections.abc import Callable

    from ocickpt.rendezvous import Answer, Asked

GONE = "the ocickpt that asked for this is no longer running"
_KEY = re.compile(r"[0-9a-f]{8,64}")


def is_key(text: str) -> bool:
    """Whether an operation can be called like this: not every text is a name below our directories."""
    return bool(_KEY.fullmatch(text))


def connect(key: str) -> io.BufferedRWPair | None:
    """The flow that waits under `key`, if there is one and it is root's."""
    if not is_key(key):
        return None
    path = rendezvous.OPERATIONS / key
    try:
        if (found := path.lstat()).st_uid != 0 or not stat.S_ISSOCK(found.st_mode):
            return None
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.connect(str(path))
    except OSError:
        return None
    return connection.makefile("rwb")


def ask(flow: io.BufferedRWPair, message: Asked, meanwhile: Callable[[], None] = lambda: None) -> Answer:
    """Send one message and wait for its answer, doing something `meanwhile`; empty when the flow is gone."""
    try:
        flow.write(json.dumps(message).encode() + b"\n")
        flow.flush()
        meanwhile()
        answer = json.loads(flow.readline() or b"{}")
    except (OSError, ValueError):
        return {}
    found: Answer = answer if isinstance(answer, dict) else {}  # type: ignore[assignment]
    return found
