"""The OCI hooks: the gate by itself, and what is on stdin; podman runs them in tests/e2e/test_hooks.py."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from ocickpt import config, hook, names, rendezvous
from ocickpt.config import Config
from ocickpt.restoration import start_gate
from ocickpt.save import poststop
from tests.unit.test_podman_database import ID


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
