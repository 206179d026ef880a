"""The two JSON files of an OCI image layout directory: oci-layout and index.json."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any, Final

from ocickpt import names
from ocickpt.errors import IntegrityError, NotFoundError, StorageError, UnsupportedError
from ocickpt.model import Descriptor, parse_json
from ocickpt.store.files import Directory, storage_errors

INDEX_FILE: Final = "index.json"

_LAYOUT_FILE: Final = "oci-layout"
_MAX_INDEX_BYTES: Final = 64 << 20
_VERSION: Final = "1.0.0"


def ref_name_of(entry: dict[str, Any]) -> str:
    """The name a descriptor in index.json has there; "" when it has none."""
    annotations = entry.get("annotations")
    name = annotations.get(names.ANNOTATION_REF_NAME) if isinstance(annotations, dict) else None
    return name if isinstance(name, str) else ""


def read_index(root: Directory) -> dict[str, Any]:
    """index.json with its list `manifests` of objects that are descriptors; IntegrityError, NotFoundError."""
    data = root.read(INDEX_FILE, _MAX_INDEX_BYTES)
    if data is None:
        raise NotFoundError(f"there is no OCI layout in {root.shown}: it has no {INDEX_FILE}")
    index = parse_json(data, f"{INDEX_FILE} of {root.shown}")
    entries = index.setdefault("manifests", [])
    if not isinstance(entries, list):
        raise IntegrityError(f"the {INDEX_FILE} of {root.shown} has no list of manifests")
    for entry in entries:
        Descriptor.from_json(entry)
    return index


def check_version(root: Directory) -> None:
    """Raise NotFoundError when `root` is no layout, UnsupportedError when of a version other than 1.0.0."""
    data = root.read(_LAYOUT_FILE, 4096)
    if data is None:
        raise NotFoundError(f"{root.shown} is not an OCI layout: it has no {_LAYOUT_FILE} file")
    version = parse_json(data, f"{_LAYOUT_FILE} file of {root.shown}").get("imageLayoutVersion")
    if version != _VERSION:
        raise UnsupportedError(f"{root.shown} is an OCI layout of another version: {str(version)[:40]!r}")


def create_layout(path: Path, mode: int) -> None:
    """Make an empty layout at `path` unless one is there; two processes may do so at once."""
    with storage_errors(str(path)):
        path.mkdir(mode=mode, parents=True, exist_ok=True)
        root = Directory.open(path)
    try:
        with root.locked():
            if root.read(_LAYOUT_FILE, 4096) is not None:
                return
            with storage_errors(str(path)), os.scandir(root.fd) as entries:
                # A crash can have left what comes before the oci-layout file, which is written last.
                strange = [entry.name for entry in entries if entry.name not in ("blobs", INDEX_FILE, "tmp")]
            if any(not name.startswith(".ocickpt-") for name in strange):
                raise StorageError(f"{path} holds other files and is not an OCI layout directory")
            with contextlib.closing(root.child("blobs", create=True, mode=mode)) as blobs:
                blobs.child("sha256", create=True, mode=mode).close()
            empty = {"schemaVersion": 2, "mediaType": names.IMAGE_INDEX_TYPE, "manifests": []}
            root.replace(INDEX_FILE, json.dumps(empty, indent=2).encode() + b"\n")
            root.replace(_LAYOUT_FILE, json.dumps({"imageLayoutVersion": _VERSION}).encode())
    finally:
        root.close()
