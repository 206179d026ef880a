"""Puts the processes a lab starts on record, and kills just those.

A record is one file: pid, start time, and whether the host behind it is complete. A process is only ever
signalled through a pidfd that was opened before its start time was compared, so never somebody else's.
"""

import contextlib
import os
import select
import signal
from dataclasses import dataclass
from pathlib import Path

from lablib import enter
from lablib.layout import LabError

_PATIENCE = 20_000  # ms, for the kernel to end all processes of a host


@dataclass(frozen=True)
class Records:
    """The records of one lab."""

    directory: Path

    def _file(self, name: str) -> Path:
        return self.directory / f"{name}.pid"

    def names(self) -> list[str]:
        """All that is on record, alive or not."""
        return sorted(path.stem for path in self.directory.glob("*.pid"))

    def write(self, name: str, pid: int, *, ready: bool) -> None:
        """Put process `pid` on record. Raises LabError where it is already dead."""
        started = enter.start_time(pid)
        if started is None:
            raise LabError(f"{name} died at once")
        temporary = self._file(name).with_suffix(".new")
        temporary.write_text(f"{pid} {started} {'ready' if ready else 'starting'}\n", encoding="ascii")
        temporary.rename(self._file(name))

    def kill(self, name: str) -> None:
        """End the process on record, wait until it and all in its pid namespace are gone, forget it."""
        found = enter.record(name)
        if found is not None:
            pid, started, _ = found
            with contextlib.suppress(ProcessLookupError):
                _kill(pid, started)
        self._file(name).unlink(missing_ok=True)


def _kill(pid: int, started: int) -> None:
    pidfd = os.pidfd_open(pid)
    try:
        if enter.start_time(pid) != started:
            return
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        if not poll.poll(_PATIENCE):
            raise LabError(f"process {pid} does not end; see /proc/{pid}/stack")
    finally:
        os.close(pidfd)
