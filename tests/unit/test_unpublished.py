"""Checkpoints that podman made, on their way into a store: where they go, and what a death leaves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path

import pytest
from msgspec.structs import replace

import ocickpt.registration
from ocickpt import names, rendezvous
from ocickpt.config import Config
from ocickpt.description import USUAL_OPTIONS
from ocickpt.engine.podman import database
from ocickpt.errors import IncompatibleError, NotFoundError, UnsupportedError, UsageError
from ocickpt.lazy import following, states
from ocickpt.library import catalog, push
from ocickpt.model import Published, Silent
from ocickpt.operations import journal, pending
from ocickpt.operations.journal import UNPUBLISHED, Intercept, Journal
from ocickpt.save import collect, unpublished
from ocickpt.store import Access
from ocickpt.store.local import LocalStore
from tests.unit.test_podman_database import ID, bundle

KEY = "0f" * 16
NAME = f"web:{collect.stamp(int(KEY[:16], 16))}"


@pytest.fixture(autouse=True)
def _store() -> None:
    LocalStore().close()


def made_by_podman(key: str, reference: str = "reg:5000/web:1") -> Intercept:
    return Intercept(key=key, container=ID, name="web", reference=reference)


def orphan(tmp_path: Path, step: str, **changes: object) -> Path:
    """A journal at `step`, left by a process that died; its work directory."""
    work = tmp_path / "graph" / "ocickpt" / KEY
    work.mkdir(parents=True)
    record = replace(made_by_podman(KEY), work=str(work), image_path=str(tmp_path / "images"))
    made = Journal.begin(record)
    made.step(step, **changes)
    made.leave()
    return work


def test_where_a_checkpoint_goes(tmp_path: Path) -> None:
    made = bundle(tmp_path)
    found = database.read(made)
    assert collect.wanted(found, Config()) == ("", False)
    text, by_itself = collect.wanted(found, Config(repository="reg:5000/all"))
    assert not by_itself
    assert text.startswith("reg:5000/all/web:20")
    assert text.endswith("Z")
    spec = json.loads((made / "config.json").read_text())
    (made / "config.json").write_text(json.dumps(spec | {"annotations": {names.ANNOTATION_PUSH: "reg:5000/own:1"}}))
    assert collect.wanted(found, Config(repository="reg:5000/all")) == ("reg:5000/own:1", True)


def test_what_cannot_be_published_leaves_nothing(tmp_path: Path) -> None:
    found = database.read(bundle(tmp_path / "one", {"pod": "p"}))
    with pytest.raises(UnsupportedError, match="part of a pod"):
        collect.begin(found, "reg:5000/web:1", USUAL_OPTIONS, running=False)
    found = database.read(bundle(tmp_path / "two"))
    with pytest.raises(UsageError, match="names a digest"):
        collect.begin(found, f"reg:5000/web@sha256:{'0' * 64}", USUAL_OPTIONS, running=False)
    assert journal.records() == []
    assert not (tmp_path / "two" / "ocickpt").exists()


@pytest.mark.parametrize("step", ["begun", "frozen", "published"])
def test_what_was_not_whole_or_is_published_goes(tmp_path: Path, step: str) -> None:
    thawed = tmp_path / "thawed"
    work = orphan(tmp_path, step, thaw=("touch", str(thawed)))
    unpublished.settle_all(Silent())
    assert not work.parent.exists()
    assert journal.records() == []
    assert thawed.exists() == (step == "frozen")


def test_pages_that_were_written_to_since_are_not_published(tmp_path: Path) -> None:
    work = orphan(tmp_path, "dumped")
    (work / rendezvous.CAPTURED).touch()
    (work / "pages-1.img").touch()
    later = (work / rendezvous.CAPTURED).stat().st_mtime_ns + 1
    os.utime(work / "pages-1.img", ns=(later, later))
    unpublished.settle_all(Silent())
    assert journal.records() == []


def test_a_shim_does_not_wait_for_itself(tmp_path: Path) -> None:
    orphan(tmp_path, "begun")
    code = "from ocickpt.save import unpublished; from ocickpt.model import Silent; unpublished.settle_all(Silent())"
    argv = [sys.executable, "-c", code, "checkpoint", "--image-path", str(tmp_path / "images"), ID]
    subprocess.run(argv, check=True, timeout=20, cwd=Path(ocickpt.__file__).parents[1])
    assert journal.records() == []


def test_a_newer_one_takes_the_place_of_what_was_kept(tmp_path: Path) -> None:
    work = orphan(tmp_path, "dumped")
    (work / rendezvous.CAPTURED).touch()
    newer = made_by_podman("a1" * 16)
    other = made_by_podman("a1" * 16, "reg:5000/web:2")
    older = made_by_podman("00" * 16)
    for record in (other, older):
        unpublished._supersede(record)
        assert work.exists()
    unpublished._supersede(newer)
    assert not work.exists()
    assert journal.records() == []


def test_an_older_one_is_published_first(tmp_path: Path) -> None:
    orphan(tmp_path, "dumped")
    newer = made_by_podman("a1" * 16)
    older = made_by_podman("00" * 16)
    unpublished._wait_for_older(newer)  # nobody is at it
    (held,) = [each.keep() for each in journal.orphans()]
    unpublished._wait_for_older(older)
    threading.Timer(0.3, held.leave).start()
    begun = time.monotonic()
    unpublished._wait_for_older(newer)
    assert time.monotonic() - begun > 0.2


def test_another_containers_are_left_alone(tmp_path: Path) -> None:
    work = orphan(tmp_path, "begun")
    unpublished.settle_all(Silent(), "another")
    assert work.exists()


def test_one_that_somebody_removed_is_forgotten(tmp_path: Path) -> None:
    published = Published(f"{NAME}@sha256:" + "0" * 64, "sha256:" + "0" * 64, 1, 1, 0)
    orphan(tmp_path, UNPUBLISHED, published=published, reason="gone")
    assert [each.name for each in unpublished.kept()] == ["web"]
    for found in journal.orphans():
        unpublished.settle(found, Silent())
    assert unpublished.kept() == []


def test_one_is_found_by_what_it_is_called(tmp_path: Path) -> None:
    published = Published(f"{NAME}@sha256:" + "0" * 64, "sha256:" + "0" * 64, 1, 1, 0)
    orphan(tmp_path, UNPUBLISHED, published=published)
    for source in ("web", ID, ID[:12], NAME):
        found = pending.find(source)
        assert found
        found.leave()
    assert pending.find("other") is None
    assert pending.find(ID[:5]) is None


def test_a_dump_is_packaged_once(tmp_path: Path) -> None:
    found = database.read(bundle(tmp_path))
    inventory = found.container.image_path / "inventory.img"
    assert not collect.was_taken(found)
    inventory.parent.mkdir()
    inventory.touch()
    collect.mark_taken(found)
    assert collect.was_taken(found)
    os.utime(inventory, ns=(1, 1))
    assert not collect.was_taken(found)


def test_nothing_to_push() -> None:
    with pytest.raises(NotFoundError, match="no checkpoint of 'web' waits"):
        push.push("web", None, Access(), Silent())


def test_a_dump_that_could_not_be_kept_is_listed(tmp_path: Path) -> None:
    orphan(tmp_path, "dumped", reason="disk full")
    (found,) = catalog.list_checkpoints(None, Access())
    assert asdict(found)["state"] == "unpublished as reg:5000/web:1: disk full"


def test_memory_that_will_not_come_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendezvous, "LAZY", tmp_path)
    here = (os.getpid(), 0)
    states.begin(KEY, {"container": ID, "state": "running", "guard": here, "error": "the page server died"})
    with pytest.raises(IncompatibleError, match="the page server died"):
        following.wait_for_memory(ID, Silent())
    following.wait_for_memory("another", Silent())
