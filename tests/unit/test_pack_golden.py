"""An artifact that was written once is read for ever (tests/unit/golden)."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from ocickpt.model import Descriptor, Entry, FileType, Kind, digest_of
from ocickpt.pack.index import Index
from ocickpt.pack.reader import check
from tests.unit.test_pack_support import MemoryStore, unpack

GOLDEN = Path(__file__).parent / "golden" / "v1"


def store() -> MemoryStore:
    return MemoryStore({digest_of(data): data for path in GOLDEN.iterdir() for data in (path.read_bytes(),)})


def entry_of(file: dict[str, Any]) -> Entry:
    mode, uid, gid, mtime, size, major, minor = file["fields"]
    return Entry(
        Kind[file["kind"]],
        FileType[file["type"]],
        base64.b64decode(file["path"]).decode("utf-8", "surrogateescape"),
        mode,
        uid,
        gid,
        mtime,
        size,
        file["link"],
        major,
        minor,
        tuple((name, base64.b64decode(value)) for name, value in file["xattrs"]),
    )


@pytest.mark.parametrize("name", ["first", "second"])
def test_golden_artifacts(name: str) -> None:
    expected = json.loads((GOLDEN / f"{name}.json").read_text())
    source = store()
    index = Index.load(source, Descriptor.from_json(expected["index"]))
    assert list(index.packs) == [Descriptor.from_json(blob) for blob in expected["packs"]]
    assert index.files == [entry_of(file) for file in expected["files"]]
    check(index, source)
    found = unpack(index, source)
    for entry, file in zip(index.files, expected["files"], strict=True):
        content = {hex(offset): digest_of(data) for offset, data in found[entry.kind, entry.path].items()}
        assert content == file["content"], entry.path


def test_the_golden_artifacts_cover_what_they_should() -> None:
    source = store()
    first, second = (
        Index.load(source, Descriptor.from_json(json.loads((GOLDEN / f"{name}.json").read_text())["index"]))
        for name in ("first", "second")
    )
    assert {entry.type for entry in second.files} == set(FileType)
    assert {entry.kind for entry in second.files} == set(Kind)
    memory = {blob.digest for blob in first.packs if blob.media_type == Kind.MEMORY.media_type}
    assert memory < {blob.digest for blob in second.packs if blob.media_type == Kind.MEMORY.media_type}
    assert 0xFFFFFFFF in second.extents["chunk"]
    assert (second.extents["inner"] > 0).any()
    assert len(second.chunks) < (second.extents["chunk"] != 0xFFFFFFFF).sum()
