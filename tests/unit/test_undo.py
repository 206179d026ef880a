"""A dump that led to nothing is undone: its container runs on, or its dump is kept and somebody is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ocickpt.engine import podman
from ocickpt.engine.container import Container
from ocickpt.errors import NotFoundError, OcickptError, RegistryError, StorageError
from ocickpt.model import Silent
from ocickpt.operations.journal import Checkpoint, Journal, orphans
from ocickpt.save import checkpoint, dump
from ocickpt.store.local import LocalStore

ID = "c1" * 32


@pytest.fixture
def restored(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The containers that were restored in place."""
    done: list[str] = []
    monkeypatch.setattr(podman, "restore_in_place", lambda subject, *_: done.append(subject.id))
    return done


def ended(_: str) -> Container:
    raise NotFoundError("it has ended since")


@pytest.fixture
def stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Container:
    """A container that podman has dumped and stopped."""
    bundle = tmp_path / "overlay-containers" / ID / "userdata"
    (bundle / "checkpoint").mkdir(parents=True)
    (bundle / "checkpoint" / "inventory.img").touch()
    (bundle / "config.json").write_text("{}")
    made = Container.__new__(Container)
    for name, value in {"id": ID, "name": "web", "status": "exited", "bundle": bundle, "restored": False}.items():
        object.__setattr__(made, name, value)
    monkeypatch.setattr(podman, "container_or_none", lambda _: made)
    monkeypatch.setattr(podman, "container", ended)
    LocalStore().close()
    return made


def begun(stopped: Container, tmp_path: Path) -> Journal[Checkpoint]:
    """Its journal, at the step at which it was dumped but not exported."""
    work = tmp_path / "work"
    work.mkdir()
    journal = Journal.begin(
        Checkpoint(
            key=ID,
            container=ID,
            name="web",
            reference="reg:5000/web:1",
            work=str(work),
            image_path=str(stopped.image_path),
        )
    )
    journal.step("podman")
    return journal


def test_nothing_is_bound_that_the_container_had_not(stopped: Container, restored: list[str], tmp_path: Path) -> None:
    source, secret = tmp_path / "app" / "data", tmp_path / "secret"
    secret.mkdir()
    source.parent.mkdir()
    source.symlink_to(secret)
    text = json.dumps({"mounts": [{"type": "bind", "source": str(source), "destination": "/data"}]})
    (stopped.bundle / "config.json").write_text(text)
    journal = begun(stopped, tmp_path)
    with pytest.raises(StorageError, match="leads to"):
        dump.undo(journal)
    assert restored == []
    assert (stopped.bundle / "config.json").read_text() == text
    assert (stopped.image_path / "inventory.img").exists()
    journal.leave()
    # Once it is put right the next call tries again.
    source.unlink()
    source.mkdir()
    for orphan in orphans():
        dump.undo(orphan)
    assert restored == [ID]


def test_what_goes_wrong_then_hides_no_error(
    stopped: Container, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = begun(stopped, tmp_path)

    def vanished(*_: object) -> None:
        raise ProcessLookupError(3, "No such process")

    monkeypatch.setattr(podman, "restore_in_place", vanished)
    error: OcickptError = RegistryError("the store is full")
    checkpoint._settle(journal, error, Silent())
    assert error.hint.startswith("[Errno 3] No such process; `ocickpt doctor` tries again")
