"""What containers' storage wrote down, read without asking podman: it may hold a container's lock, and takes longer.

Source: containers/storage, containers.go (``containers.json``, and ``volatile-containers.json`` for those of --rm)
and images.go (``images.json``).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import msgspec

from ocickpt import structs
from ocickpt.errors import IntegrityError


class _Entry(msgspec.Struct, frozen=True):
    """A container, or an image."""

    id: str = ""
    names: tuple[str, ...] = ()
    image: str = ""
    """That of a container."""
    digest: str = ""
    """That of an image."""


def image_of(bundle: Path) -> str:
    """The ID of the image that the container of podman's bundle ``overlay-containers/ID/userdata`` is made from.

    Nothing for a bundle of another engine, or when storage knows no such container.
    """
    return _with_id(_containers(bundle.parent.parent), bundle.parent.name).image


def digest_of(image: str, stores: Iterable[Path]) -> str:
    """The digest of an image by its ID, in the first of these stores that has it; nothing when none has."""
    return _with_id(map(_images, stores), image).digest


def has_image(image: str, stores: Iterable[Path]) -> bool:
    """Whether one of these stores has the image of that ID."""
    return any(each.id == image for store in stores for each in _listed(_images(store)))


def taken(names: Iterable[str], graph_root: Path) -> list[str]:
    """Those of `names` that are the name or the whole ID of a container in the storage at `graph_root`.

    Those of a transient store are listed elsewhere; podman itself refuses a name that is taken.
    """
    known = set[str]()
    for path in _containers(graph_root / "overlay-containers"):
        for each in _listed(path):
            known |= {each.id, *each.names}
    return [name for name in names if name in known]


def _containers(directory: Path) -> tuple[Path, Path]:
    return directory / "containers.json", directory / "volatile-containers.json"


def _images(store: Path) -> Path:
    return store / "overlay-images" / "images.json"


def _with_id(lists: Iterable[Path], identity: str) -> _Entry:
    return next((each for path in lists for each in _listed(path) if each.id == identity), _Entry())


def _listed(path: Path) -> list[_Entry]:
    """What such a file lists; nothing where it cannot be read, or has another form."""
    try:
        return [structs.read(each, _Entry, "entry") for each in json.loads(path.read_text("utf-8")) or ()]
    except (OSError, ValueError, TypeError, IntegrityError):
        return []
