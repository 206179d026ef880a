"""What containers' storage wrote down, read without asking podman, which may hold a container's lock.

Source: containers/storage, containers.go (``containers.json``, and ``volatile-containers.json`` for those of --rm)
and images.go (``images.json``).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path


def image_of(bundle: Path) -> str:
    """The ID of the image that the container of podman's bundle ``overlay-containers/ID/userdata`` is made from.

    Nothing for a bundle of another engine, or when storage knows no such container.
    """
    directory = bundle.parent.parent
    lists = (directory / "containers.json", directory / "volatile-containers.json")
    return _said(lists, bundle.parent.name, "image")


def digest_of(image: str, stores: Iterable[Path]) -> str:
    """The digest of an image by its ID, in the first of these stores that has it; nothing when none has."""
    return _said((store / "overlay-images" / "images.json" for store in stores), image, "digest")


def _said(lists: Iterable[Path], identity: str, key: str) -> str:
    for path in lists:
        try:
            found = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError):
            continue
        for each in found or ():
            if each.get("id") == identity:
                return str(each.get(key) or "")
    return ""
