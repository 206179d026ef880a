"""What containers' storage wrote down, read without asking podman: it may hold a container's lock, and takes longer.

Source: containers/storage, containers.go (``containers.json``, and ``volatile-containers.json`` for those of --rm)
and images.go (``images.json``).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def image_of(bundle: Path) -> str:
    """The ID of the image that the container of podman's bundle ``overlay-containers/ID/userdata`` is made from.

    Nothing for a bundle of another engine, or when storage knows no such container.
    """
    return _said(_containers(bundle.parent.parent), bundle.parent.name, "image")


def digest_of(image: str, stores: Iterable[Path]) -> str:
    """The digest of an image by its ID, in the first of these stores that has it; nothing when none has."""
    return _said(map(_images, stores), image, "digest")


def has_image(image: str, stores: Iterable[Path]) -> bool:
    """Whether one of these stores has the image of that ID."""
    return any(each.get("id") == image for store in stores for each in _listed(_images(store)))


def taken(names: Iterable[str], graph_root: Path) -> list[str]:
    """Those of `names` that are the name or the whole ID of a container in the storage at `graph_root`.

    Those of a transient store are listed elsewhere; podman itself refuses a name that is taken.
    """
    known = set()
    for path in _containers(graph_root / "overlay-containers"):
        for each in _listed(path):
            known |= {each.get("id"), *(each.get("names") or ())}
    return [name for name in names if name in known]


def _containers(directory: Path) -> tuple[Path, Path]:
    return directory / "containers.json", directory / "volatile-containers.json"


def _images(store: Path) -> Path:
    return store / "overlay-images" / "images.json"


def _said(lists: Iterable[Path], identity: str, key: str) -> str:
    for path in lists:
        for each in _listed(path):
            if each.get("id") == identity:
                return str(each.get(key) or "")
    return ""


def _listed(path: Path) -> list[dict[str, Any]]:
    try:
        return json.loads(path.read_text("utf-8")) or []
    except (OSError, ValueError):
        return []
