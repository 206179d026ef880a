"""What a person sees while a flow is at work; it all goes to stderr."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from ocickpt.cli import output
from ocickpt.cli.output import printable
from ocickpt.model import Progress, Silent, Stage

if TYPE_CHECKING:
    from rich.progress import Progress as Bars

_WORDS = {
    Stage.DUMPING: ("dumping", "done"),
    Stage.PACKING: ("packing and sending", "sent"),
    Stage.SENDING: ("sending", "sent"),
    Stage.FETCHING: ("fetching", "done"),
    Stage.PULLING: ("pulling {}", "done"),
    Stage.RESTORING: ("restoring", "done"),
    Stage.WAITING_FOR_PODMAN: ("waiting for the podman of an interrupted {}", "done"),
    Stage.WAITING_FOR_MEMORY: ("waiting for the memory of its lazy restore", "done"),
}
"""How a stage is called, with what it is of, and what has become of the bytes that were moved in it."""


@contextlib.contextmanager
def progress(quiet: bool) -> Iterator[Progress]:
    """Progress for one flow: bars on a terminal, a line for each stage elsewhere, nothing when quiet."""
    if quiet:
        yield Silent()
        return
    shown = Terminal() if sys.stderr.isatty() else Lines()
    try:
        yield shown
    except BaseException:
        shown.end(whole=False)
        raise
    shown.end(whole=True)


class Lines:
    """A line when a stage is over: ``sending: 545.2 MB sent, 12.1 MB were there already, 1.2 s``."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._reset("", "")

    def _reset(self, text: str, moved: str) -> None:
        self._text, self._word = text, moved
        self._expected = self._moved = self._present = 0
        self._begun = time.monotonic()

    def stage(self, stage: Stage, of: str = "") -> None:
        """A new stage begins; the one before it is over."""
        text, moved = _WORDS[stage]
        with self._lock:
            self.end(whole=True)
            self._reset(text.format(of), moved)
            self._begin()

    def expect(self, size: int) -> None:
        """`size` more bytes are to be moved."""
        with self._lock:
            self._expected += size
            self._update()

    def advance(self, size: int) -> None:
        """`size` bytes were moved."""
        with self._lock:
            self._moved += size
            self._update()

    def present(self, size: int) -> None:
        """`size` bytes were there already."""
        with self._lock:
            self._present += size
            self._update()

    def note(self, text: str) -> None:
        """One sentence, at once."""
        with self._lock:
            self._print(f"note: {text}")

    def end(self, *, whole: bool) -> None:
        """The last stage is over; when not `whole`, nothing is said, an error follows."""
        with self._lock:
            self._close()
            if self._text and whole:
                self._print(self._summary())
            self._text = ""

    def _summary(self) -> str:
        facts = []
        if self._moved or self._expected:
            facts.append(f"{output.size(self._moved)} {self._word}")
        if self._present:
            facts.append(f"{output.size(self._present)} were there already")
        facts.append(f"{time.monotonic() - self._begun:.1f} s")
        return f"{self._text}: {', '.join(facts)}"

    def _begin(self) -> None:
        """A stage has begun."""

    def _update(self) -> None:
        """The numbers have changed."""

    def _close(self) -> None:
        """What is on the screen for this stage is to go."""

    def _print(self, text: str) -> None:
        click.echo(printable(text), err=True)


class Terminal(Lines):
    """A bar with bytes, rate, time left and what was there already; its last state stays as a line."""

    _bars: Bars | None = None

    def _begin(self) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            SpinnerColumn,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )
        from rich.progress import Progress as Bars

        self._bars = Bars(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[already]}", markup=False),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._bars.add_task(printable(self._text), total=None, already="")
        self._bars.start()

    def _update(self) -> None:
        if self._bars is None:
            return
        # What is there already is no work: it would make the rate a lie.
        self._bars.update(
            self._task,
            completed=self._moved,
            total=max(self._expected - self._present, self._moved) or None,
            already=f"{output.size(self._present)} there already" if self._present else "",
        )

    def _close(self) -> None:
        if self._bars is not None:
            self._bars.stop()
            self._bars = None

    def _print(self, text: str) -> None:
        if self._bars is not None:
            self._bars.console.print(printable(text), markup=False, highlight=False)
        else:
            super()._print(text)
