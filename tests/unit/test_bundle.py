"""Bind mounts name what their sources lead to, before CRIU mounts them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from ocickpt.engine.bundle import bind_symlinks, resolve_bind_sources
from ocickpt.errors import StorageError


def sources(bundle: Path, *mounts: dict[str, Any]) -> list[str]:
    """The sources of these mounts once they are resolved."""
    (bundle / "config.json").write_text(json.dumps({"mounts": mounts, "hostname": "box"}))
    resolve_bind_sources(bundle)
    spec = json.loads((bundle / "config.json").read_text())
    assert spec["hostname"] == "box"
    return [mount.get("source", "") for mount in spec["mounts"]]


def test_sources_that_are_symlinks(tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir()
    (real / "file").touch()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "file").symlink_to("link/file")
    (tmp_path / "broken").symlink_to("nowhere")
    link, file, broken = (str(tmp_path / each) for each in ("link", "file", "broken"))
    assert sources(
        tmp_path,
        {"type": "bind", "source": link, "options": ["rbind", "ro"]},
        {"type": "none", "source": file, "options": ["bind"]},
        {"type": "bind", "source": f"{link}/file"},
        {"type": "bind", "source": broken},
        {"type": "bind", "source": str(real)},
        {"type": "tmpfs", "source": link},
        {"type": "bind", "source": "link"},
        {"type": "proc"},
    ) == [str(real), str(real / "file"), str(real / "file"), broken, str(real), link, "link", ""]


def test_what_needs_no_change_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('{ "mounts":[] }')
    resolve_bind_sources(tmp_path)
    assert path.read_text() == '{ "mounts":[] }'


@pytest.mark.parametrize("text", ["", "[]", '{"mounts": [1]}', '{"mounts": 1}', '{"mounts": [{"source": 1}]}'])
def test_a_bundle_that_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(StorageError, match=r"config\.json"):
        resolve_bind_sources(tmp_path)


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A directory that a container shares, with the source of another bind in it; the container's root is ours."""
    (tmp_path / "app" / "data").mkdir(parents=True)
    (tmp_path / "secret").mkdir()
    return tmp_path / "app" / "data"


def bound(bundle: Path, source: Path, destination: Path) -> None:
    mount = {"type": "bind", "source": str(source), "destination": str(destination)}
    (bundle / "config.json").write_text(json.dumps({"mounts": [mount]}))


def plant(shared: Path) -> None:
    """What a container can do: mv /app/data /app/d; ln -s /secret /app/data."""
    shared.rename(shared.with_name("d"))
    shared.symlink_to("../secret")


def source(bundle: Path) -> str:
    return str(json.loads((bundle / "config.json").read_text())["mounts"][0]["source"])


def test_a_symlink_of_the_hosts_is_followed(tmp_path: Path, shared: Path) -> None:
    (tmp_path / "link").symlink_to("app")
    given = tmp_path / "link" / "data"
    bound(tmp_path, given, shared)
    known = bind_symlinks(tmp_path, os.getpid())
    assert known == {str(given): str(shared)}
    resolve_bind_sources(tmp_path, known)
    assert source(tmp_path) == str(shared)


def test_one_that_the_container_made_is_not(tmp_path: Path, shared: Path) -> None:
    bound(tmp_path, shared, shared)
    known = bind_symlinks(tmp_path, os.getpid())
    assert known == {}
    plant(shared)
    with pytest.raises(StorageError, match=rf"{shared}, which .* leads to {tmp_path}/secret by now"):
        resolve_bind_sources(tmp_path, known)
    assert source(tmp_path) == str(shared)


def test_nor_one_that_it_made_before(tmp_path: Path, shared: Path) -> None:
    """Then something else is mounted than what the source leads to."""
    plant(shared)
    bound(tmp_path, shared, shared.with_name("d"))
    known = bind_symlinks(tmp_path, os.getpid())
    assert known == {}
    with pytest.raises(StorageError, match="leads to"):
        resolve_bind_sources(tmp_path, known)


def test_nor_one_within_what_a_symlink_of_the_hosts_leads_to(tmp_path: Path, shared: Path) -> None:
    (tmp_path / "link").symlink_to("app")
    bound(tmp_path, tmp_path / "link" / "data", shared)
    known = bind_symlinks(tmp_path, os.getpid())
    plant(shared)
    with pytest.raises(StorageError, match="leads to"):
        resolve_bind_sources(tmp_path, known)
