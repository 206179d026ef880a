"""The manifest schema fits what is written, and names.py and the specification agree."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from ocickpt import names
from ocickpt.errors import IntegrityError
from ocickpt.model import Descriptor, Kind, Manifest
from ocickpt.pack import format as fmt
from tests import schema
from tests.unit.test_pack_support import MemoryStore, pack, pages, regular

SPECIFICATION = Path(__file__).parents[2] / "schemas" / "README.md"


def document() -> dict[str, Any]:
    packed = pack(
        MemoryStore(),
        [pages("m", {0: b"x" * 4096}), *(regular(kind, kind.name, b"y") for kind in Kind if kind is not Kind.MEMORY)],
    )
    config = Descriptor(names.CONFIG_TYPE, "sha256:" + "0" * 64, 1000)
    manifest = Manifest(
        config,
        (packed.index, *packed.packs),
        names.ARTIFACT_TYPE,
        {names.ANNOTATION_PARENT: "sha256:" + "1" * 64, names.ANNOTATION_CREATED: "2026-01-01T00:00:00Z"},
    )
    found: dict[str, Any] = json.loads(manifest.to_bytes())
    return found


def test_what_is_written_matches_the_schema() -> None:
    found = document()
    assert len(found["layers"]) == 6
    schema.validate("checkpoint-manifest", found, "manifest")
    del found["artifactType"]
    schema.validate("checkpoint-manifest", found, "manifest")


def test_what_is_not_a_checkpoint_does_not_match() -> None:
    changes: tuple[dict[str, Any], ...] = (
        {"artifactType": "other"},
        {
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": "sha256:" + "0" * 64,
                "size": 2,
            }
        },
        {"layers": []},
        {"layers": document()["layers"][1:]},
        {"layers": document()["layers"][:1] * 2},
        {"layers": document()["layers"][:1] + document()["layers"][1:2] * 400},
        {"layers": [{**document()["layers"][0], "annotations": {}}]},
        {"layers": [*document()["layers"], {**document()["layers"][1], "mediaType": "application/vnd.oci.layer"}]},
        {"annotations": {names.ANNOTATION_PARENT: "latest"}},
    )
    for change in changes:
        with pytest.raises(IntegrityError):
            schema.validate("checkpoint-manifest", document() | change, "manifest")


def test_the_specification_names_what_the_code_does() -> None:
    text = SPECIFICATION.read_text()
    for word in (
        names.ARTIFACT_TYPE,
        names.CONFIG_TYPE,
        names.INDEX_TYPE,
        names.ANNOTATION_PARENT,
        names.ANNOTATION_INDEX_ROOT,
        names.ANNOTATION_INDEX_HEAD,
        *(kind.media_type for kind in Kind),
        str(names.MAX_LAYERS),
    ):
        assert word in text, word
    rows = re.findall(r"^\| (\d+) \| (\d+) \| `[a-z0-9_ ]+` \|", text, re.MULTILINE)
    tables = [0, 0]
    for offset, size in rows:
        if int(offset) == 0:
            tables.append(0)
        assert int(offset) == tables[-1], f"the table with a row at {offset} has a hole"
        tables[-1] += int(size)
    assert tables[2:] == [52, 41, 54, fmt.CHUNK.itemsize, fmt.EXTENT.itemsize, 44, 6]
