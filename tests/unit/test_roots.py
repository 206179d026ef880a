"""Where podman keeps things: its log shows the way, its record says it, and `podman info` where they do not agree."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from ocickpt.engine.podman import Roots
from ocickpt.engine.podman.roots import roots
from ocickpt.errors import CommandError, OcickptError

INFO = Roots(Path("/info"), Path("/info/volumes"), (Path("/info"), Path("/info/images")))
PODMAN = """\
#!/bin/sh
echo "$*" >>{calls}
case "$*" in
    info*) {info} ;;
    *) cat {log} >&2; exit {status} ;;
esac
"""
STORE = {
    "graphRoot": "/info",
    "volumePath": "/info/volumes",
    "graphOptions": {"overlay.additionalImageStores": ["/info/images"]},
}


class Podman:
    """A podman that is made up."""

    def __init__(self, tmp_path: Path, name: str = "graph") -> None:
        self.graph = tmp_path / name
        self.graph.mkdir(parents=True)
        self._place = tmp_path
        self.log = [f"Using graph root {self.graph}", "Using volume path /elsewhere", "overlay: imagestore=/images"]
        self.status = 1
        self.info = f"echo '{json.dumps(STORE)}'"

    def record(self, graph: str, volumes: str, name: str = "db.sql") -> None:
        (self.graph / name).parent.mkdir(exist_ok=True)
        with closing(sqlite3.connect(self.graph / name)) as database:
            database.execute("CREATE TABLE DBConfig (Id INTEGER, GraphRoot TEXT, VolumeDir TEXT)")
            database.execute("INSERT INTO DBConfig VALUES (1, ?, ?)", (graph, volumes))
            database.commit()

    def answer(self, monkeypatch: pytest.MonkeyPatch) -> Roots:
        bin_dir = self._place / "bin"
        bin_dir.mkdir()
        lines = [f'time="2026-11-26T19:59:45Z" level=debug msg={json.dumps(each)}\n' for each in self.log]
        (self._place / "log").write_text("".join(lines))
        calls, log = self._place / "calls", self._place / "log"
        (bin_dir / "podman").write_text(PODMAN.format(calls=calls, log=log, status=self.status, info=self.info))
        (bin_dir / "podman").chmod(0o755)
        monkeypatch.setenv("PATH", f"{bin_dir}:/usr/bin:/bin")
        return roots()

    def asked(self) -> bool:
        return "info" in (self._place / "calls").read_text()


@pytest.mark.parametrize("name", ["graph", "with space", 'with"quote', "with\\backslash", "é", "a%20b", "a?b#c"])
@pytest.mark.parametrize("database", ["db.sql", "libpod/db.sql"])
def test_what_podman_has_on_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, database: str) -> None:
    podman = Podman(tmp_path, name)
    podman.record(str(podman.graph), "/on/record", database)
    podman.log.insert(0, "a bell \a in a message")
    assert podman.answer(monkeypatch) == Roots(podman.graph, Path("/on/record"), (podman.graph, Path("/images")))
    assert not podman.asked()


@pytest.mark.parametrize("what", ["no record", "another's", "no volumes", "damaged", "no table", "silent", "two"])
def test_podman_info_is_asked_for_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    podman = Podman(tmp_path)
    if what == "another's":
        podman.record("/another", "/on/record")
    elif what == "damaged":
        (podman.graph / "db.sql").write_bytes(b"x" * 10000)
    elif what == "no table":
        sqlite3.connect(podman.graph / "db.sql").close()
    elif what != "no record":
        podman.record(str(podman.graph), "" if what == "no volumes" else "/on/record")
    if what == "silent":
        podman.log = ["Using something else"]
    elif what == "two":
        podman.log.append("Using graph root /another")
    assert podman.answer(monkeypatch) == INFO
    assert podman.asked()


def test_a_podman_that_does_not_work_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    podman = Podman(tmp_path)
    podman.record(str(podman.graph), "/on/record")
    podman.status = 125
    podman.info = "echo 'Error: database volume path does not match' >&2; exit 125"
    with pytest.raises(CommandError, match="database volume path does not match"):
        podman.answer(monkeypatch)


@pytest.mark.parametrize("answer", ["", "[]", "{}", '{"graphRoot": 1, "volumePath": 2}', "null"])
def test_an_answer_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    podman = Podman(tmp_path)
    podman.info = f"echo '{answer}'"
    with pytest.raises(OcickptError):
        podman.answer(monkeypatch)
