"""What all tests share: which of them can run here, and a home where nothing of the machine's is found."""

from __future__ import annotations

import os
import signal
from collections.abc import Generator
from pathlib import Path

import pytest

LANE = os.environ.get("OCICKPT_LANE", "")

# Whoever starts the tests in the background may have them ignored, and so would all that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of what only a lab host is sure to have are skipped elsewhere, and say so."""
    skip = pytest.mark.skip(reason="runs inside a lab host only: `make test`")
    for item in items:
        if item.get_closest_marker("lab") and LANE != "lab":
            item.add_marker(skip)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A lab host has all that any test needs: what would be skipped there has failed."""
    report = yield
    if LANE == "lab" and report.skipped:
        report.outcome = "failed"
    return report


@pytest.fixture(autouse=True)
def _private_places(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees or changes this machine's store, credentials, or registry configuration."""
    if request.node.get_closest_marker("e2e") or request.node.path.parent.name in ("e2e", "vm"):
        return
    home = tmp_path / "home"
    home.mkdir()
    for name, place in (("HOME", home), ("OCICKPT_STORE", tmp_path / "store"), ("XDG_RUNTIME_DIR", tmp_path / "run")):
        monkeypatch.setenv(name, str(place))
    for name in ("REGISTRY_AUTH_FILE", "DOCKER_CONFIG", "OCICKPT_DEBUG", "OCICKPT_FAILPOINT"):
        monkeypatch.delenv(name, raising=False)
