"""Archives from elsewhere: tar by libarchive, whole checkpoints of podman, OCI layout directories."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Iterator
from contextlib import closing
from typing import Final

import zstandard

from ocickpt import names
from ocickpt.artifact.parts import Parts
from ocickpt.engine.files import archive
from ocickpt.engine.files.archive import Member
from ocickpt.errors import OcickptError
from ocickpt.model import Content, Kind, digest_of
from ocickpt.store.layout import LayoutStore
from tests.fuzz.containers import MEMBERS
from tests.fuzz.packs import manifest_seeds
from tests.fuzz.target import SCRATCH, Choices, Find, Target

_READ: Final = 1 << 20
"""So much of each member is looked at: the rest is only more of it."""
_MOST: Final = 1000


def _read_some(members: Iterator[Member]) -> None:
    for number, member in enumerate(members):
        if member.name.startswith("/") or ".." in member.name.split("/"):
            raise Find(f"a member is called {member.name!r}")
        if number < _MOST and member.size:
            member.stream.read(min(_READ, member.size))


def read_tar(data: bytes) -> None:
    _read_some(archive.members(SCRATCH.file(data)))


def read_nested(data: bytes) -> None:
    """Read as a tree, with whiteouts and without."""
    for whiteouts in (False, True):
        for number, content in enumerate(
            archive.tree_contents(archive.nested(io.BytesIO(data)), Kind.ROOTFS, whiteouts=whiteouts)
        ):
            if number < _MOST:
                _drain(content)


def _drain(content: Content) -> None:
    if content.open:
        with closing(content.open()) as stream:
            stream.read(_READ)


def tar_of(members: dict[str, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def tar_seeds() -> Iterator[bytes]:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, kind, link in (
            ("etc", tarfile.DIRTYPE, ""), ("etc/.wh..wh..opq", tarfile.REGTYPE, ""), ("etc/a", tarfile.REGTYPE, ""),
            ("etc/b", tarfile.LNKTYPE, "etc/a"), ("etc/c", tarfile.SYMTYPE, "../../x"), ("null", tarfile.CHRTYPE, ""),
            ("pipe", tarfile.FIFOTYPE, ""), ("etc/.wh.gone", tarfile.REGTYPE, ""),
        ):  # fmt: skip
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.devmajor, info.devminor = kind, link, 1, 3
            info.pax_headers = {"SCHILY.xattr.user.a": "b", "mtime": "1700000000.5"} if name == "etc" else {}
            tar.addfile(info)
    plain = out.getvalue()
    yield plain
    yield tar_of({"a" * 200 + "/b": b"content"}, tarfile.GNU_FORMAT)
    yield tar_of({"x": b"content" * 100}, tarfile.USTAR_FORMAT)
    yield gzip.compress(plain)
    yield zstandard.ZstdCompressor().compress(plain)


# A checkpoint of podman.

_SMALL: Final = {name: data for name, data in MEMBERS.items() if len(data) < 4096 or "pages-" in name}
_NAMES: Final = (
    *MEMBERS, "shm", "volumes/a.tar", "volumes/../a.tar", "rootfs-diff.tar", "deleted.files", "devshm-checkpoint.tar",
    "checkpoint/parent", "checkpoint/pages-1.img", "checkpoint/pages-9.img", "checkpoint/pagemap-shmem-3.img",
    "checkpoint/mm-1.img", "../x", "/x", "bind.mounts", "artifacts/x", "checkpoint", "ctr.log", "descriptors.json",
)  # fmt: skip
_TYPES: Final = (tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE)


def read_checkpoint(data: bytes) -> None:
    """podman's archive, some members of it others."""
    choices = Choices(data)
    members = [(name, content, tarfile.REGTYPE) for name, content in MEMBERS.items()]
    for _ in range(1 + choices.below(4)):
        _change_members(choices, members)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content, kind in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "x"
            info.size = len(content) if kind == tarfile.REGTYPE else 0
            tar.addfile(info, io.BytesIO(content))
    parts = Parts(SCRATCH.file(out.getvalue()))
    for part in parts:
        _drain(part)


def _change_members(choices: Choices, members: list[tuple[str, bytes, bytes]]) -> None:
    way = choices.below(6)
    if not members or way == 0:
        name = choices.pick(_NAMES)
        nested = name.endswith(".tar") and choices.below(2)
        content = tar_of({choices.pick(_NAMES): choices.some()}) + choices.some() if nested else choices.some()
        members.insert(
            choices.below(len(members) + 1), (name, content, choices.pick(_TYPES) if way else tarfile.REGTYPE)
        )
        return
    at = choices.below(len(members))
    name, content, kind = members[at]
    if way == 1:
        members.pop(at)
    elif way == 2:
        members[at] = name, content, choices.pick(_TYPES)
    elif way == 3:
        members.append(members.pop(at))
    elif way == 4:
        members[at] = choices.pick(_NAMES), content, kind
    else:
        where, new = choices.below(len(content) + 1), choices.some()
        members[at] = name, content[:where] + new + content[where + len(new) * choices.below(2) :], kind


# A layout directory.


def read_layout(data: bytes) -> None:
    """``index.json`` is what was given, with one manifest beside it that it may name."""
    root, manifest = SCRATCH.path / "layout", next(manifest_seeds())
    blobs = root / "blobs" / "sha256"
    if not blobs.is_dir():
        blobs.mkdir(parents=True)
        (root / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
        (blobs / digest_of(manifest)[7:]).write_bytes(manifest)
    (root / "index.json").write_bytes(data)
    with LayoutStore(root) as store:
        for read in (store.tags, lambda: store.resolve("1"), lambda: store.referrers("sha256:" + "0" * 64)):
            try:
                read()
            except OcickptError:
                continue


def layout_seeds() -> Iterator[bytes]:
    manifest = next(manifest_seeds())
    entry = {"mediaType": names.MANIFEST_TYPE, "digest": digest_of(manifest), "size": len(manifest)}
    named = entry | {"annotations": {names.ANNOTATION_REF_NAME: "1"}}
    yield json.dumps({"schemaVersion": 2, "manifests": [named, entry]}).encode()
    yield json.dumps({"schemaVersion": 2, "mediaType": names.IMAGE_INDEX_TYPE, "manifests": [None, {}, named]}).encode()


def choice_seeds() -> Iterator[bytes]:
    for number in range(24):
        yield bytes((number * 53 + at * at * 7) % 256 for at in range(20))


TARGETS: Final = {
    "tar": Target(read_tar, tar_seeds),
    "nested-tar": Target(read_nested, tar_seeds),
    "checkpoint-archive": Target(read_checkpoint, choice_seeds, needs_lab=True, share=2),
    "layout": Target(read_layout, layout_seeds),
}
