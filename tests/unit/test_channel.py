"""Directories of operations, and their ends; sockets are tried in tests/integration/test_shim.py."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from pathlib import Path

import pytest

from ocickpt import processes, rendezvous
from ocickpt.errors import BusyError
from ocickpt.operations import channel, workdir
from ocickpt.operations.journal import Checkpoint


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendezvous, "OPERATIONS", tmp_path / "op")
    (tmp_path / "op").mkdir()


def test_a_directory_is_private_and_empty(tmp_path: Path) -> None:
    path = tmp_path / "ocickpt" / "1"
    before = os.umask(0)
    try:
        assert workdir.make(path) == path
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o700
    (path / "left").mkdir()
    (path / "left" / "file").write_text("of a process that died")
    workdir.make(path)
    assert list(path.iterdir()) == []


def test_the_last_one_takes_the_parent_along(tmp_path: Path) -> None:
    one, two = tmp_path / "ocickpt" / "1", tmp_path / "ocickpt" / "2"
    workdir.make(one)
    workdir.make(two)
    (one / "file").touch()
    workdir.remove(one)
    assert two.is_dir()
    workdir.remove(two)
    assert not one.parent.exists()
    workdir.remove(two)
    assert not one.parent.exists()


def test_it_does_not_follow_links(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("kept")
    path = workdir.make(tmp_path / "ocickpt" / "1")
    (path / "link").symlink_to(tmp_path / "mine")
    workdir.remove(path)
    assert (tmp_path / "mine" / "file").read_text() == "kept"


def test_an_operation_ends_after_its_podman(tmp_path: Path) -> None:
    socket = rendezvous.OPERATIONS / ("a" * 64)
    socket.touch()
    with subprocess.Popen(["sleep", "60"]) as podman:
        record = Checkpoint(
            key=socket.name,
            container="",
            name="web",
            reference="x",
            podman_pid=podman.pid,
            podman_start=processes.start_time(podman.pid) or 0,
        )
        ending = threading.Thread(target=channel.end, args=(record,))
        ending.start()
        time.sleep(0.1)
        assert socket.exists(), "what podman still runs must find that somebody asked for it"
        podman.kill()
        ending.join(10)
    assert not socket.exists()
    channel.end(record)


def test_a_podman_that_does_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel, "_MOST", 0.05)
    start = processes.start_time(os.getpid()) or 0
    record = Checkpoint(
        key="a" * 64, container="", name="web", reference="x", podman_pid=os.getpid(), podman_start=start
    )
    with pytest.raises(BusyError, match="still at work on container 'web'"):
        channel.end(record)
