"""The local store: where it is, who may see it, names, pins."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from ocickpt.errors import StorageError
from ocickpt.store import Reference, open_store
from ocickpt.store.local import LocalStore, default_path
from tests.store.material import put_artifact


def test_where_it_is(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    monkeypatch.setenv("OCICKPT_STORE", "/a/b")
    assert default_path() == Path("/a/b")
    monkeypatch.delenv("OCICKPT_STORE")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert default_path() == Path("/var/lib/ocickpt")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert default_path() == home / ".local/share/ocickpt"
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert default_path() == Path("/data/ocickpt")


def test_nobody_else_sees_it(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "store"
    with LocalStore(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    path.chmod(0o755)
    with LocalStore(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700


def test_somebody_elses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    LocalStore(tmp_path / "store").close()
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    with pytest.raises(StorageError, match="belongs to another user"):
        LocalStore(tmp_path / "store")


def test_names() -> None:
    with LocalStore() as everything:
        for text in ("web:1", "web:2", "db", "team/Web:1"):
            reference = Reference.parse(text)
            store = open_store(reference)
            put_artifact(store, reference.tag, b"{}", text.encode())
            assert reference.tag in store.tags()
            store.close()
        found = [name for name, _ in everything.references()]
        assert found == ["db:latest", "team/Web:1", "web:1", "web:2"]
        assert everything.tags() == found
    with LocalStore(repository="web") as view:
        assert view.tags() == ["1", "2"]
        assert view.name == "web"


def test_a_blob_is_spooled_beside_the_others() -> None:
    with LocalStore() as store:
        writer = store.new_blob()
        writer.write(b"half")
        assert [file.stat().st_size for file in (store.path / "tmp").iterdir()] == [4]
        writer.discard()
        assert list((store.path / "tmp").iterdir()) == []
