"""The command line in process: what it prints and its exit code, with rooms that are stood in for."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from ocickpt.cli import main


@dataclass(frozen=True)
class Outcome:
    """What one call came to."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        return json.loads(self.stdout)


@dataclass(frozen=True)
class Bench:
    """Runs `ocickpt`, and stands in for rooms."""

    capture: pytest.CaptureFixture[str]
    monkeypatch: pytest.MonkeyPatch

    def run(self, *arguments: str) -> Outcome:
        self.capture.readouterr()
        code = main.run(arguments)
        captured = self.capture.readouterr()
        return Outcome(code, captured.out, captured.err)

    def stand_in(self, what: str, stand_in: Callable[..., Any]) -> list[dict[str, Any]]:
        """Replace ``ocickpt.WHAT`` of a room; the list gets the arguments of each call, by the real one's names."""
        module, _, name = f"ocickpt.{what}".rpartition(".")
        real = inspect.signature(getattr(__import__(module, fromlist=[name]), name))
        calls: list[dict[str, Any]] = []

        def called(*arguments: Any, **named: Any) -> Any:
            bound = real.bind(*arguments, **named).arguments
            calls.append(dict(bound))
            return stand_in(**bound)

        self.monkeypatch.setattr(f"{module}.{name}", called)
        return calls

    def fail(self, what: str, error: BaseException) -> None:
        """Have a room's function raise `error`."""

        def failing(**_: Any) -> Any:
            raise error

        self.stand_in(what, failing)
