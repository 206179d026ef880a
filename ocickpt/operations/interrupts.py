"""Ctrl-C at a moment when something must be brought to its end first."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

_SIGNALS = signal.SIGINT, signal.SIGTERM, signal.SIGHUP


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Put Ctrl-C, and the signals that are taken for it, off until the block has ended."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = {number: signal.signal(number, lambda sent, _: came.append(sent)) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])
