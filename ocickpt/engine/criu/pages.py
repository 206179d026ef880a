"""Setting the memory of a dump aside by rename, and putting it back. Standard library only: the shim uses it.

CRIU writes memory to ``pages-N.img`` in the image path. What podman exports is that path, so while
podman exports the pages lie beside it on the same filesystem: nothing is copied.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from ocickpt import atomic


def clear(image_path: Path) -> None:
    """Remove whatever images an earlier dump left."""
    if image_path.is_dir():
        for image in image_path.iterdir():
            image.unlink(missing_ok=True)


def set_aside(image_path: Path, aside: Path) -> list[Path]:
    """Rename every ``pages-*.img`` of `image_path` into the directory `aside`, on the same filesystem."""
    moved = []
    for pages in sorted(image_path.glob("pages-*.img")):
        target = aside / pages.name
        pages.rename(target)
        moved.append(target)
    atomic.sync(aside)
    return moved


def put_back(aside: Path, image_path: Path) -> bool:
    """Link the pages in `aside` back into `image_path` unless they are there; they stay in `aside` too.

    False when there is no image path to put them into: the container is gone, or was restored.
    """
    if not (image_path / "inventory.img").exists():
        return False
    for pages in sorted(aside.glob("pages-*.img")):
        try:
            os.link(pages, image_path / pages.name)
        except FileExistsError:
            continue
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise
            return False
    atomic.sync(image_path)
    return True
