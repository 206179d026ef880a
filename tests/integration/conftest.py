"""What the integration tests share."""

from __future__ import annotations

import pytest

from tests.integration.cli_bench import Bench


@pytest.fixture
def ocickpt(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Bench:
    """The command line in process."""
    return Bench(capsys, monkeypatch)
