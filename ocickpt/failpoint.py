"""Where a test may have a process die."""

from __future__ import annotations

import os
import signal

FAILPOINTS = ("publish.blob", "publish.packed", "publish.sent", "publish.tagged")
"""Where else, beside before and after every step, a test may have a checkpoint die."""


def reached(name: str) -> None:
    """Die here, if the test that runs this process asked for it in OCICKPT_FAILPOINT."""
    if os.environ.get("OCICKPT_FAILPOINT") == name:
        os.kill(os.getpid(), signal.SIGKILL)
