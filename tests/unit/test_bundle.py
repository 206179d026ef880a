"""Bind mounts name what their sources lead to, before CRIU mounts them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ocickpt.engine.bundle import resolve_bind_sources
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
    with pytest.raises(StorageError, match=r"config\.json cannot be made to name"):
        resolve_bind_sources(tmp_path)
