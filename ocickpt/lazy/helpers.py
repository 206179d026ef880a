"""The processes that bring a container's memory while it runs: a guard, and under it CRIU's daemon and a page server.

Importing this costs little: they are started before anything else of a restore is loaded.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ocickpt import proc, processes, rendezvous
from ocickpt.errors import CommandError
from ocickpt.lazy import states

if TYPE_CHECKING:
    from ocickpt.rendezvous import Guarded, Reading

_GUARD = "import sys; sys.path.insert(0, {!r}); from ocickpt import guard; sys.exit(guard.main(sys.argv[1:]))"
_READY = 10.0


class Helpers:
    """The helpers of one restore, which have its `name` in their command lines.

    They come up while it is found out whether there will be a restore, and touch nothing before `start`.
    """

    def __init__(self, name: str) -> None:
        code = _GUARD.format(str(rendezvous.PACKAGE.parent))
        self._process = proc.Background([sys.executable, "-I", "-c", code, name], waits=True)
        self.started = processes.start_time(self._process.pid) or 0
        """When the guard was, for `processes`."""
        self._work, self._name = Path(), name

    @property
    def pid(self) -> int:
        """The guard's."""
        return self._process.pid

    def prepare(self, reading: Reading) -> None:
        """Let them read what they need of the checkpoint (see `attach.reading`)."""
        self._process.tell(json.dumps(reading))

    def start(
        self, work: Path, reference: str, later: int, *, journal: Iterable[Path] = (), kill: Sequence[str] = ()
    ) -> None:
        """There is a restore, and `later` bytes are to be brought; CRIU's images and sparse pages are in ``images``.

        Once they know the container, the directory `work` and the files of the restore's `journal` are theirs to
        remove. Without a journal they end when this process does before it has said which container it made, and
        remove nothing before it has ended. `kill` is the command that kills the container; without, podman does.
        """
        self._work = work
        begun: states.State = {
            "reference": reference,
            "state": "restoring",
            "later": later,
            "arrived": 0,
            "work": str(work),
            "helpers": self._name,
            "kill": list(kill),
            "since": time.time(),
        }
        states.begin(work.name, begun)
        told: Guarded = {
            "work": str(work),
            "journal": [str(path) for path in journal],
            "starter": (os.getpid(), processes.start_time(os.getpid()) or 0),
            "kill": list(kill),
        }
        self._process.go(json.dumps(told))

    def is_alive(self) -> bool:
        """Whether the guard has not ended."""
        return self._process.poll() is None

    def dismiss(self) -> None:
        """End them, if they were not started."""
        self._process.dismiss()

    def wait(self) -> None:
        """Wait for the socket of CRIU's daemon; CommandError when it does not come up."""
        end = time.monotonic() + _READY
        while not (self._work / rendezvous.SOCKET).exists():
            if self._process.poll() is not None or time.monotonic() > end:
                said = self._process.stderr.strip()
                raise CommandError(f"CRIU's lazy-pages daemon did not start: {said[-300:]}")
            time.sleep(0.002)
