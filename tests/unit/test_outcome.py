"""What a failed restore gives back: what it has made, and nothing that was there or that somebody else made."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ocickpt import names, proc
from ocickpt.engine import podman
from ocickpt.engine.container import Container, Volume
from ocickpt.engine.podman.volumes import VolumeOptions
from ocickpt.errors import CommandError
from ocickpt.model import Silent
from ocickpt.operations.journal import Journal, Restore, orphans
from ocickpt.restoration import outcome
from ocickpt.store.local import LocalStore

KEY, OTHER = "ab" * 16, "cd" * 16
MADE = ("ocickpt", "restore")
MEMORY = VolumeOptions("data", type="tmpfs", device="tmpfs")


class Told(Silent):
    """Remembers what was noted."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


class Volumes:
    """podman, as far as it makes and removes volumes and knows one container, or none."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.labels: dict[str, dict[str, str]] = {}
        self.in_use: set[str] = set()
        self.container: Container | None = None
        monkeypatch.setattr(proc, "run", self._run)
        monkeypatch.setattr(podman, "container_or_none", lambda _: self.container)
        monkeypatch.setattr(podman, "remove_container", lambda _: None)

    def _run(self, argv: Sequence[str], *, check: bool = True, **_: Any) -> proc.Result:
        verb, name = argv[2], argv[-1]
        status, said = 0, ""
        if verb == "create":
            status = int(name in self.labels)
            given = next(each for each in argv if each.startswith("--label="))
            self.labels.setdefault(name, dict([given.removeprefix("--label=").split("=", 1)]))
        elif verb == "rm":
            name = next(each for each in self.labels if each.startswith(name))
            status = int(name in self.in_use)
            if not status:
                self.labels.pop(name)
        elif name in self.labels:
            at = "2026-11-21T10:46:30Z"
            said = json.dumps([{"Name": name, "CreatedAt": at, "Labels": self.labels[name]}])
        else:
            status = 1
        found = proc.Result(tuple(argv), status, said, "")
        if check and status:
            raise found.failure()
        return found

    def used_by(self, *created_by: str) -> None:
        self.container = Container.__new__(Container)
        volume = Volume("data", Path("/data"), "/data")
        for name, value in {"id": "e" * 64, "created_by": created_by, "volumes": (volume,)}.items():
            object.__setattr__(self.container, name, value)


@pytest.fixture
def volumes(monkeypatch: pytest.MonkeyPatch) -> Volumes:
    LocalStore().close()
    return Volumes(monkeypatch)


@pytest.fixture
def journal(tmp_path: Path) -> Journal[Restore]:
    """Of a restore that is about to make one volume itself, and to have podman make another."""
    return Journal.begin(
        Restore(
            key=KEY,
            container="",
            name="web",
            reference="reg:5000/web:1",
            work=str(tmp_path / "work"),
            volumes=("data", "plain"),
            made_volumes=("data",),
            created_by=MADE,
        )
    )


def make(key: str) -> None:
    MEMORY.make(f"{names.LABEL_RESTORE}={key}")


@pytest.mark.parametrize("failed", [True, False])
@pytest.mark.parametrize("contained", [True, False])
def test_a_volume_that_it_made_goes(volumes: Volumes, journal: Journal[Restore], failed: bool, contained: bool) -> None:
    make(KEY)
    if contained:
        volumes.used_by(*MADE)
    outcome.take_back(journal, failed=failed)
    assert volumes.labels == {}


@pytest.mark.parametrize("failed", [True, False])
@pytest.mark.parametrize("contained", [True, False])
@pytest.mark.parametrize("by", ["somebody", "another restore"])
def test_one_that_somebody_else_made_meanwhile_stays(
    volumes: Volumes, journal: Journal[Restore], failed: bool, contained: bool, by: str
) -> None:
    if by == "somebody":
        volumes.labels["data"] = {}
    else:
        make(OTHER)
    there = dict(volumes.labels)
    with pytest.raises(CommandError):
        make(KEY)
    if contained:
        volumes.used_by(*MADE)
    outcome.take_back(journal, failed=failed)
    assert volumes.labels == there


def test_volumes_of_a_container_that_was_removed_are_the_users(volumes: Volumes, journal: Journal[Restore]) -> None:
    """The restore had come to its end, and nobody had said so since."""
    make(KEY)
    journal.step("running", container="e" * 64)
    outcome.take_back(journal)
    assert [*volumes.labels] == ["data"]


def test_one_whose_name_begins_the_same_stays(volumes: Volumes, journal: Journal[Restore]) -> None:
    """podman takes the beginning of a name for it where nothing else begins so."""
    volumes.labels["data-of-somebody"] = {}
    podman.remove_volume("data")
    assert [*volumes.labels] == ["data-of-somebody"]
    outcome.take_back(journal)


def test_what_cannot_be_removed_hides_no_error(volumes: Volumes, journal: Journal[Restore]) -> None:
    make(KEY)
    volumes.in_use.add("data")
    told = Told()

    with outcome.despite(journal, told):
        outcome.take_back(journal)
    assert ["volume rm" in note for note in told.notes] == [True]
    # A later call tries again.
    volumes.in_use.clear()
    for orphan in orphans():
        outcome.settle(orphan, told)
    assert volumes.labels == {}
