"""The OCI hooks: the gate by itself, and what is on stdin; podman runs them in tests/e2e/test_hooks.py."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from ocickpt import config, hook, names, rendezvous
from ocickpt.config import Config
from ocickpt.engine.podman import database
from ocickpt.restoration import start_gate
from ocickpt.save import collect, extras, intercept, poststop
from tests.unit.test_podman_database import ID, bundle


def test_the_gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendezvous, "CREATED", tmp_path / "created")
    monkeypatch.setattr(start_gate, "say", lambda *_, **__: None)
    monkeypatch.setattr(config, "load", lambda: Config(allow=("reg:5000/web",)))
    wanted = {names.ANNOTATION_RESTORE: f"reg:5000/web@sha256:{'0' * 64}"}
    assert start_gate.check(ID, str(tmp_path), {}) == 0
    assert start_gate.check(ID, str(tmp_path), wanted) == 1
    assert start_gate.check(ID, str(tmp_path), {names.ANNOTATION_RESTORE: "reg:5000/web:1"}) == 1
    (tmp_path / rendezvous.RESTORED).write_text("another")
    assert start_gate.check(ID, str(tmp_path), wanted) == 1
    (tmp_path / rendezvous.RESTORED).write_text(ID)
    assert start_gate.check(ID, str(tmp_path), wanted) == 0
    (tmp_path / rendezvous.RESTORED).unlink()
    rendezvous.CREATED.mkdir()
    (rendezvous.CREATED / ID).touch()
    assert start_gate.check(ID, str(tmp_path), wanted) == 0


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"id": "x"}', '{"id": "x", "bundle": "/", "annotations": [1]}'])
def test_what_is_no_state(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    assert hook.main(["gate"]) == 1


def test_which_hook(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(poststop, "push", lambda container, bundle: 0 if (container, bundle) == (ID, "/b") else 9)
    for argv, status in ((["push"], 0), (["gate"], 0), (["other"], 2), ([], 2)):
        monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps({"id": ID, "bundle": "/b", "annotations": None})))
        assert hook.main(argv) == status


def test_nothing_is_taken_of_who_has_the_pid_of_a_container_that_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The processes of a checkpoint that podman made are gone when its hook runs."""
    found = database.read(bundle(tmp_path, state={"pid": os.getpid(), "conmonPid": os.getpid()}))
    made, taken = SimpleNamespace(work=str(tmp_path)), list[tuple[int, int]]()
    monkeypatch.setattr(extras, "take", lambda subject, _: taken.append((subject.pid, subject.conmon)))
    monkeypatch.setattr(intercept, "publish", lambda *_, **__: None)
    for step in ("begin", "take_files", "take_images"):
        monkeypatch.setattr(collect, step, lambda *_, **__: SimpleNamespace(record=made, step=str))
    poststop._package(found, "", quiet=True)
    assert taken == [(0, 0)]
