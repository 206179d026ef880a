"""Waiting for a container that a runtime has begun to freeze."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from ocickpt.engine import cgroups, freezer


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cgroup, made up, of two processes."""
    monkeypatch.setattr(freezer, "tree", lambda first: [first, first + 1])
    made = tmp_path / "cgroup"
    made.mkdir()
    monkeypatch.setattr(cgroups, "of", lambda pid: made)
    return made


def test_it_waits_until_all_stand_still(place: Path) -> None:
    (place / "cgroup.freeze").write_text("1\n")
    (place / "cgroup.events").write_text("populated 1\nfrozen 0\n")
    timer = threading.Timer(0.1, (place / "cgroup.events").write_text, ["populated 1\nfrozen 1\n"])
    timer.start()
    freezer.wait(7)
    assert "frozen 1" in (place / "cgroup.events").read_text()
    timer.join()


def test_it_does_not_wait_for_ever(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(freezer, "_PATIENCE", 0.05)
    (place / "cgroup.freeze").write_text("0\n")
    (place / "cgroup.events").write_text("populated 1\nfrozen 0\n")
    with pytest.raises(TimeoutError, match="do not stand still"):
        freezer.wait(7)


def test_nothing_to_wait_by(place: Path) -> None:
    freezer.wait(7)
    assert not [*place.iterdir()]
