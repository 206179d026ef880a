"""The types the rooms share: frozen dataclasses and the protocols between them.

This module imports nothing of ours but `names` and `errors`, and nothing that is slow to load.
"""

from __future__ import annotations

import enum
import hashlib
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, BinaryIO, Protocol, Self

from ocickpt import names
from ocickpt.errors import IntegrityError

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_NO_ANNOTATIONS: Mapping[str, str] = MappingProxyType({})
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_DIGITS = 20
"""Of a number of 64 bits."""


def digest_of(data: bytes) -> str:
    """The OCI digest of `data`: ``sha256:`` and 64 hexadecimal digits."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def check_digest(value: object) -> str:
    """`value` as an OCI digest, or IntegrityError. Only SHA-256 is used (image-spec, descriptor.md)."""
    if not isinstance(value, str) or not _DIGEST.fullmatch(value):
        raise IntegrityError(f"{str(value)[:100]!r} is not a sha256 digest")
    return value


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A blob by media type, digest and size in bytes (image-spec, descriptor.md)."""

    media_type: str
    digest: str
    size: int
    annotations: Mapping[str, str] = field(default_factory=lambda: _NO_ANNOTATIONS, hash=False)
    artifact_type: str = ""

    def to_json(self) -> dict[str, Any]:
        """The descriptor as a JSON object, absent fields left out."""
        found: dict[str, Any] = {"mediaType": self.media_type, "digest": self.digest, "size": self.size}
        if self.annotations:
            found["annotations"] = dict(sorted(self.annotations.items()))
        if self.artifact_type:
            found["artifactType"] = self.artifact_type
        return found

    @classmethod
    def from_json(cls, value: object) -> Self:
        """The descriptor in a JSON object; IntegrityError if it is not one."""
        if not isinstance(value, dict):
            raise IntegrityError("a descriptor is not a JSON object")
        media_type, size = value.get("mediaType"), value.get("size")
        annotations, artifact_type = value.get("annotations") or {}, value.get("artifactType") or ""
        if not isinstance(media_type, str) or not isinstance(artifact_type, str):
            raise IntegrityError("a descriptor has no media type")
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size < 1 << 62:
            raise IntegrityError("a descriptor has no sensible size")
        return cls(media_type, check_digest(value.get("digest")), size, _strings(annotations), artifact_type)


@dataclass(frozen=True, slots=True)
class Manifest:
    """An OCI image manifest (image-spec, manifest.md)."""

    config: Descriptor
    layers: tuple[Descriptor, ...]
    artifact_type: str = ""
    annotations: Mapping[str, str] = field(default_factory=lambda: _NO_ANNOTATIONS, hash=False)
    subject: Descriptor | None = None

    def to_bytes(self) -> bytes:
        """The manifest's canonical bytes: what is hashed and stored."""
        found: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": names.MANIFEST_TYPE,
            "artifactType": self.artifact_type,
            "config": self.config.to_json(),
            "layers": [layer.to_json() for layer in self.layers],
        }
        if self.subject:
            found["subject"] = self.subject.to_json()
        if self.annotations:
            found["annotations"] = dict(sorted(self.annotations.items()))
        return json.dumps(found, separators=(",", ":"), ensure_ascii=False).encode()

    def descriptor(self) -> Descriptor:
        """The descriptor of the manifest itself."""
        data = self.to_bytes()
        return Descriptor(names.MANIFEST_TYPE, digest_of(data), len(data), artifact_type=self.artifact_type)

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """The manifest in `data` (verified, bounded bytes); IntegrityError if it is not one."""
        value = parse_json(data, "manifest")
        layers = value.get("layers")
        media_type = value.get("mediaType", names.MANIFEST_TYPE)
        if value.get("schemaVersion") != 2 or media_type != names.MANIFEST_TYPE or not isinstance(layers, list):
            raise IntegrityError(f"not an OCI image manifest (media type {str(media_type)[:100]!r})")
        artifact_type, subject = value.get("artifactType") or "", value.get("subject")
        if not isinstance(artifact_type, str):
            raise IntegrityError("a manifest's artifactType is not a string")
        return cls(
            config=Descriptor.from_json(value.get("config")),
            layers=tuple(Descriptor.from_json(layer) for layer in layers),
            artifact_type=artifact_type,
            annotations=_strings(value.get("annotations") or {}),
            subject=Descriptor.from_json(subject) if subject is not None else None,
        )


def parse_json(data: bytes, what: str) -> dict[str, Any]:
    """`data` as a JSON object; IntegrityError naming `what` otherwise."""
    try:
        value = json_value(data)
    except ValueError as error:
        raise IntegrityError(f"the {what} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise IntegrityError(f"the {what} is not a JSON object")
    return value


def json_value(data: bytes, *, file_names: bool = False) -> Any:
    """`data` as JSON (RFC 8259) of which every value can be used and written again; ValueError otherwise.

    That is UTF-8 without lone surrogates, integers of 64 bits, finite numbers, no deeper than Python goes. With
    `file_names`, a lone surrogate may stand for a byte that is no UTF-8 (os.fsdecode).
    """
    text = data.decode()
    try:
        value = json.loads(text, parse_int=_int, parse_float=_float, parse_constant=_float)
        if _SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode(errors="surrogateescape" if file_names else "strict")
    except RecursionError as error:
        raise ValueError("it is too deep") from error
    except UnicodeEncodeError as error:
        raise ValueError("it has text that is not Unicode") from error
    return value


def _int(text: str) -> int:
    if len(text) <= _DIGITS and -(1 << 63) <= (value := int(text)) < 1 << 64:
        return value
    raise ValueError(f"the number {text[:_DIGITS]}… is too large")


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:_DIGITS]} is not a number to work with")
    return value


def _strings(value: object) -> Mapping[str, str]:
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise IntegrityError("annotations are not a map of strings")
    return MappingProxyType(dict(value))


MAX_PATH = 4095
"""Bytes of a path: PATH_MAX without its NUL (linux/limits.h)."""


class Kind(enum.IntEnum):
    """What a pack holds; a file belongs to one kind and its chunks to packs of that kind."""

    BOOT = 0
    STATE = 1
    MEMORY = 2
    ROOTFS = 3
    VOLUME = 4

    @property
    def media_type(self) -> str:
        """The media type of a pack of this kind."""
        return f"{names.PACK_TYPE_PREFIX}{self.name.lower()}+zstd"


class FileType(enum.IntEnum):
    """The type of an entry in the index's file table."""

    REGULAR = 0
    DIRECTORY = 1
    SYMLINK = 2
    HARDLINK = 3
    CHARACTER = 4
    BLOCK = 5
    FIFO = 6
    WHITEOUT = 7
    OPAQUE = 8
    PAGES = 9


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of the file table.

    `path` is relative and without ``.``/``..`` parts (``.`` alone is the root of a tree); bytes that
    are not UTF-8 are surrogate-escaped. By kind: BOOT and STATE are names in podman's checkpoint
    archive (``config.dump``, ``checkpoint/core-1.img``); ROOTFS is relative to the container's root;
    VOLUME is ``NAME`` (the volume's root) or ``NAME/…``; MEMORY is the pagemap image whose address
    space it is (``checkpoint/pagemap-1.img``), with type PAGES, size 0, and extents by virtual address.

    WHITEOUT says that the image's file at that path is gone; OPAQUE that the directory hides whatever
    the image had in it (it carries the directory's metadata like DIRECTORY). `link` is a symlink's
    text, or the path of an earlier entry for a HARDLINK. `mtime` is in nanoseconds since 1970.
    """

    kind: Kind
    type: FileType
    path: str
    mode: int = 0
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    size: int = 0
    link: str = ""
    major: int = 0
    minor: int = 0
    xattrs: tuple[tuple[str, bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class Run:
    """`length` bytes at `offset` (a file offset, or a virtual address for PAGES)."""

    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Content:
    """An entry and its bytes, on the way into packs.

    `open` gives a stream of exactly the bytes of all `runs`, one after the other (runs are ascending
    and do not overlap); what no run covers is a hole. None for entries without bytes.
    """

    entry: Entry
    runs: Iterable[Run] = ()
    open: Callable[[], BinaryIO] | None = None


class Stage(enum.Enum):
    """What a flow is at; how it is called is for whoever shows it."""

    DUMPING = enum.auto()
    PACKING = enum.auto()
    """And sending what is packed."""
    SENDING = enum.auto()
    FETCHING = enum.auto()
    PULLING = enum.auto()
    """The image whose name is told."""
    RESTORING = enum.auto()
    WAITING_FOR_PODMAN = enum.auto()
    """The one of an interrupted operation, whose verb is told."""
    WAITING_FOR_MEMORY = enum.auto()
    """The container's, which follows it."""


class Progress(Protocol):
    """Told what happens; never asked. Every method may be called from any thread."""

    def stage(self, stage: Stage, of: str = "") -> None:
        """A new stage begins; `of` what, where there are several."""

    def expect(self, size: int) -> None:
        """`size` more bytes are to be moved."""

    def advance(self, size: int) -> None:
        """`size` of the expected bytes were moved."""

    def present(self, size: int) -> None:
        """`size` of the expected bytes need not be moved: they were there already."""

    def note(self, text: str) -> None:
        """Something the user should know; one sentence."""


class Silent:
    """Progress that nobody watches."""

    def stage(self, stage: Stage, of: str = "") -> None:
        """Ignored."""

    def expect(self, size: int) -> None:
        """Ignored."""

    def advance(self, size: int) -> None:
        """Ignored."""

    def present(self, size: int) -> None:
        """Ignored."""

    def note(self, text: str) -> None:
        """Ignored."""


class BlobSource(Protocol):
    """Where blobs are read: the half of a store that `pack/` and `memory/` see."""

    def read_at(self, blob: Descriptor, offset: int, length: int) -> bytes:
        """Exactly `length` bytes at `offset`, *not verified*: the caller holds a digest of them.

        Raises IntegrityError when the blob is shorter, NotFoundError, RegistryError, StorageError.
        Safe to call from several threads.
        """

    def open_blob(self, blob: Descriptor) -> AbstractContextManager[BinaryIO]:
        """The whole blob as a stream that raises IntegrityError at its end (or as soon as it is too
        long) unless size and digest are those of the descriptor."""


class BlobWriter(Protocol):
    """A blob on its way into a spool; its digest is known when it is complete."""

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Append."""

    def commit(self, media_type: str, annotations: Mapping[str, str] = ...) -> Descriptor:
        """Make it durable under its digest (fsync, rename) and describe it."""

    def discard(self) -> None:
        """Forget it; nothing is left. Harmless after commit."""


class BlobSpool(Protocol):
    """Where new blobs are made: the local store."""

    def new_blob(self) -> BlobWriter:
        """An empty blob under a temporary name."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A chunk: where it is kept and what it holds once decompressed."""

    pack: Descriptor
    offset: int
    stored: int
    raw: int
    hash: bytes


@dataclass(frozen=True)
class Packed:
    """What packing made: everything a manifest needs but the config."""

    index: Descriptor
    packs: tuple[Descriptor, ...]
    """Every pack the index refers to, inherited ones too, in the index's order."""
    new: tuple[Descriptor, ...]
    """Those of `packs` that were written now and lie in the spool."""
    raw: Mapping[Kind, int] = field(default_factory=dict)
    """Bytes by kind before compression, zero pages left out, repeated content counted each time."""


@dataclass(frozen=True)
class Published:
    """An artifact that is complete in its store, under its tag."""

    reference: str
    digest: str
    size: int
    """Bytes of all its blobs."""
    sent: int
    """Bytes that had to be moved into the store."""
    present: int
    """Bytes that were there already."""
