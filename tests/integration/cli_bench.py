"""The command line in process: what it prints and its exit code, with flows that are stood in for."""

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
    """Runs `ocickpt`, and stands in for flows."""

    capture: pytest.CaptureFixture[str]
    monkeypatch: pytest.MonkeyPatch

    def run(self, *arguments: str) -> Outcome:
        self.capture.readouterr()
        code = main.run(arguments)
        captured = self.capture.readouterr()
        return Outcome(code, captured.out, captured.err)

    def stand_in(self, flow: str, stand_in: Callable[..., Any]) -> list[dict[str, Any]]:
        """Replace ``ocickpt.flows.FLOW``; the list gets the arguments of each call, by the real one's names."""
        module, _, name = f"ocickpt.flows.{flow}".rpartition(".")
        real = inspect.signature(getattr(__import__(module, fromlist=[name]), name))
        calls: list[dict[str, Any]] = []

        def called(*arguments: Any, **named: Any) -> Any:
            bound = real.bind(*arguments, **named).arguments
            calls.append(dict(bound))
            return stand_in(**bound)

        self.monkeypatch.setattr(f"{module}.{name}", called)
        return calls

    def fail(self, flow: str, error: BaseException) -> None:
        """Have a flow raise `error`."""

        def failing(**_: Any) -> Any:
            raise error

        self.stand_in(flow, failing)
