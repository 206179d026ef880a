"""What containers' storage wrote down about a container, read without asking podman, which may hold its lock.

Source: containers/storage, containers.go: ``containers.json``, and ``volatile-containers.json`` for those of --rm.
"""

from __future__ import annotations

import json
from pathlib import Path


def image_of(bundle: Path) -> str:
    """The ID of the image that the container of podman's bundle ``overlay-containers/ID/userdata`` is made from.

    Nothing for a bundle of another engine, or when storage knows no such container.
    """
    identity, directory = bundle.parent.name, bundle.parent.parent
    for name in ("containers.json", "volatile-containers.json"):
        try:
            found = json.loads((directory / name).read_text("utf-8"))
        except (OSError, ValueError):
            continue
        for container in found or ():
            if container.get("id") == identity:
                return str(container.get("image") or "")
    return ""
