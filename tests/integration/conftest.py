"""What the integration tests share."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ocickpt import rendezvous
from tests.integration import cli_bench, shim_bench


@pytest.fixture
def ocickpt(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> cli_bench.Bench:
    """The command line in process."""
    return cli_bench.Bench(capsys, monkeypatch)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[shim_bench.Bench]:
    """The shim, with a container and a runtime."""
    # Not pytest's directory: the path of a socket has at most 107 bytes.
    root = Path(tempfile.mkdtemp(prefix="s"))
    monkeypatch.setattr(rendezvous, "OPERATIONS", root / "run" / "op")
    with shim_bench.made(root) as bench:
        yield bench
    shutil.rmtree(root)
