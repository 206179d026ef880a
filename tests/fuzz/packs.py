"""What is read out of blobs: manifests, descriptions, the index, frames and chunks, memory by CRIU's pagemaps."""

from __future__ import annotations

import functools
import hashlib
import json
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, cast

import zstandard

from ocickpt import names
from ocickpt.artifact import allowed_files, opening
from ocickpt.description import Description
from ocickpt.errors import IntegrityError, OcickptError
from ocickpt.memory import page_protocol
from ocickpt.memory.pagemap import COMMON_MAGIC, PAGEMAP_MAGIC, PageMap, mark_lazy
from ocickpt.model import Descriptor, FileType, Manifest, digest_of, json_value, parse_json
from ocickpt.pack import files
from ocickpt.pack import format as fmt
from ocickpt.pack.codec import PLAIN
from ocickpt.pack.index import Index
from ocickpt.pack.reader import extract, read_files, stored_size
from ocickpt.store.base import Store
from ocickpt.store.reference import Reference
from tests.fuzz.target import Choices, Find, Target

GOLDEN: Final = Path(__file__).parent.parent / "unit" / "golden" / "v1"
_HEADER, _PACK, _SEGMENT = struct.Struct("<8sHBBIIIIIIIIII"), struct.Struct("<BQ32s"), struct.Struct("<BBIQII32s")
_HASH_AT: Final = _SEGMENT.size - 32
_PAGE: Final = 4096
_REQUEST: Final = struct.Struct("<I4xQQQ")


# JSON and what consists of it.


def read_json(data: bytes) -> None:
    for file_names in (False, True):
        try:
            value = json_value(data, file_names=file_names)
        except ValueError:
            continue
        written = json.dumps(value, ensure_ascii=False)
        written.encode("utf-8", "surrogateescape" if file_names else "strict")
    parse_json(data, "input")


def json_seeds() -> Iterator[bytes]:
    yield b'{"a": [1, -2.5e3, true, null, "x\\u00e9\\ud83d\\ude00"], "b": {"c": {}}}'
    yield b'["\\udcff", 18446744073709551615, -9223372036854775808]'
    yield b"[" * 5000


class _OneManifest:
    """A store that has nothing but one manifest and one config."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def resolve(self, target: str) -> tuple[Descriptor, bytes]:
        return Descriptor(names.MANIFEST_TYPE, digest_of(self._data), len(self._data)), self._data


def read_manifest(data: bytes) -> None:
    _, manifest = opening.resolve(cast(Store, _OneManifest(data)), Reference.parse("reg.example/a:1"))
    again = Manifest.from_bytes(manifest.to_bytes())
    if again != manifest:
        raise Find("a manifest is another one when it was written and read")
    fmt.Place.of(opening.index_of(manifest))


def manifest_seeds() -> Iterator[bytes]:
    index = Descriptor.from_json(_golden("second")["index"])
    config = Descriptor(names.CONFIG_TYPE, "sha256:" + "0" * 64, 1000)
    packs = tuple(Descriptor.from_json(each) for each in _golden("second")["packs"])
    yield Manifest(config, (index, *packs), names.ARTIFACT_TYPE, {names.ANNOTATION_CREATED: "now"}).to_bytes()
    yield Manifest(config, (index,), "", {}, subject=config).to_bytes()


def read_description(data: bytes) -> None:
    found = Description.from_bytes(data)
    if Description.from_bytes(found.to_bytes()) != found:
        raise Find("a description is another one when it was written and read")


def description_seeds() -> Iterator[bytes]:
    yield (Path(__file__).parent / "seeds" / "description.json").read_bytes()


def read_reference(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    found = Reference.parse(text)
    if Reference.parse(str(found)) != found:
        raise Find(f"{text!r} is another reference when it was written and read")


def reference_seeds() -> Iterator[bytes]:
    digest = "sha256:" + "0a" * 32
    for text in (
        "reg.example:5000/a/b-c:tag",
        f"docker://[::1]:5/x@{digest}",
        f"oci:/a b:t@{digest}",
        "Name-",
        "a__b:1",
    ):
        yield text.encode()


# The index.


@functools.cache
def _golden(name: str) -> Any:
    return json.loads((GOLDEN / f"{name}.json").read_text("utf-8"))


@functools.cache
def _blob(digest: str) -> bytes:
    return (GOLDEN / digest[7:]).read_bytes()


class Blobs:
    """Blobs in memory."""

    def __init__(self, blobs: dict[str, bytes]) -> None:
        self.blobs = blobs

    def read_at(self, blob: Descriptor, offset: int, length: int) -> bytes:
        found = self.blobs.get(blob.digest, b"")[offset : offset + length]
        if len(found) != length:
            raise IntegrityError("the blob is shorter than that")
        return found

    def open_blob(self, blob: Descriptor) -> Any:
        raise NotImplementedError


def read_index(data: bytes) -> None:
    """Two bytes say how long the root is; digests are put right, for who lies about the rest has them right."""
    length = min(int.from_bytes(data[:2], "little"), len(data) - 2)
    if length < 0:
        return
    blob = _with_hashes(bytearray(data[2:]), length)
    root = blob[len(blob) - length :]
    place = fmt.Place(len(blob) - length, length, digest_of(root), max(0, len(blob) - fmt.MAX_HEAD))
    descriptor = Descriptor(names.INDEX_TYPE, digest_of(blob), len(blob), place.annotations())
    source = Blobs({descriptor.digest: blob})
    whole = Index.load(source, descriptor)
    head = Index.load_head(source, descriptor)
    if head.files != whole.files[: len(head.files)]:
        raise Find("the head says other things than the whole index")
    _use(whole, source)


def _use(index: Index, source: Blobs) -> None:
    """What is done with an index that was taken may only go wrong because the packs are not there."""
    index.check_layers(index.packs)
    regular = [number for number, entry in enumerate(index.files) if entry.type is FileType.REGULAR]
    stored_size(index, regular)
    for number in range(len(index.files)):
        index.extents_of(number)
    for number in range(len(index.chunks)):
        index.stored(number)
    try:
        allowed_files.check(index.files)
        read_files(index, source, regular, 1 << 20)
    except OcickptError:
        return


def _with_hashes(blob: bytearray, length: int) -> bytes:
    at = len(blob) - length
    if length >= _HEADER.size:
        packs, segments = struct.unpack_from("<II", blob, at + 20)
        first = at + _HEADER.size + packs * _PACK.size
        if first + segments * _SEGMENT.size == len(blob):
            for row in range(first, len(blob), _SEGMENT.size):
                _, _, _, offset, stored, _, _ = _SEGMENT.unpack_from(blob, row)
                piece = bytes(memoryview(blob)[offset : offset + stored])
                blob[row + _HASH_AT : row + _SEGMENT.size] = hashlib.sha256(piece).digest()
    return bytes(blob)


def index_seeds() -> Iterator[bytes]:
    for name in ("first", "second"):
        descriptor = Descriptor.from_json(_golden(name)["index"])
        blob, place = _blob(descriptor.digest), fmt.Place.of(descriptor)
        yield place.length.to_bytes(2, "little") + blob
        yield _uncompressed(blob, place)


def _uncompressed(blob: bytes, place: fmt.Place) -> bytes:
    """The same index with segments as they are, so that a changed byte is a changed record."""
    root = fmt.Root.from_bytes(blob[place.offset :], place.offset)
    body, segments = b"", []
    for each in root.segments:
        data = blob[each.offset : each.offset + each.stored]
        if each.codec == fmt.ZSTD:
            data = PLAIN.decompress(data, each.raw, "a segment")
        segments.append(fmt.Segment(each.type, fmt.RAW, each.count, len(body), len(data), len(data), PLAIN.hash(data)))
        body += data
    written = fmt.Root(root.page_size, root.chunk_size, root.packs, tuple(segments), root.total, root.boot).to_bytes()
    return len(written).to_bytes(2, "little") + body + written


def read_entries(data: bytes) -> None:
    found = list(files.decode(data[1:], data[0] if data else 0))
    if b"".join(map(files.encode, found)) != data[1:]:
        raise Find("file records are others when they were read and written")
    files.Tree().add_all(found)


def entry_seeds() -> Iterator[bytes]:
    descriptor = Descriptor.from_json(_golden("second")["index"])
    entries = Index.load(Blobs({descriptor.digest: _blob(descriptor.digest)}), descriptor).files
    yield bytes([len(entries)]) + b"".join(map(files.encode, entries))
    for entry in entries:
        yield b"\1" + files.encode(entry)


# Packs.


def read_frame(data: bytes) -> None:
    """A frame is taken for as long as it says, up to a chunk; then for another length."""
    try:
        size = zstandard.get_frame_parameters(data).content_size
    except zstandard.ZstdError:
        size = 0
    for raw in (size, 4096):
        if raw <= fmt.MAX_CHUNK_SIZE and len(PLAIN.decompress(data, raw, "a frame")) != raw:
            raise Find("a frame has another length than was asked for")


def frame_seeds() -> Iterator[bytes]:
    for data in (bytes(4096), b"All work and no play. " * 300, bytes(range(256)) * 16, b""):
        yield PLAIN.compress(data)
        yield zstandard.ZstdCompressor(write_content_size=False).compress(data)
    yield b"\x50\x2a\x4d\x18\x04\0\0\0abcd" + PLAIN.compress(b"after a skippable frame")


def read_packs(data: bytes) -> None:
    """A good index over packs of which some bytes are others: what comes out is as it was, or nothing does."""
    choices = Choices(data)
    index, blobs, expected = _good()
    changed = bytearray(blobs[(pack := choices.pick(index.packs)).digest])
    while choices:
        at, new = choices.below(len(changed)), choices.some()
        changed[at : at + len(new)] = new[: len(changed) - at]
    found = _contents(index, blobs | {pack.digest: bytes(changed)})
    if found != expected:
        raise Find("other content came out of a pack than went in")


@functools.cache
def _good() -> tuple[Index, dict[str, bytes], dict[tuple[int, int], bytes]]:
    """The golden index, its blobs, and what is in them."""
    descriptor = Descriptor.from_json(_golden("second")["index"])
    index = Index.load(Blobs({descriptor.digest: _blob(descriptor.digest)}), descriptor)
    blobs = {each.digest: _blob(each.digest) for each in index.packs}
    return index, blobs, _contents(index, blobs)


def _contents(index: Index, blobs: dict[str, bytes]) -> dict[tuple[int, int], bytes]:
    found: dict[tuple[int, int], bytes] = {}

    def write(file: int, offset: int, data: memoryview) -> None:
        found[file, offset] = bytes(data)

    extract(index, Blobs(blobs), range(len(index.files)), write, threads=1)
    return found


def pack_seeds() -> Iterator[bytes]:
    for pack in range(5):
        yield bytes([pack])
        yield bytes([pack]) + struct.pack("<I", 40) + b"\x04abcd"


# Memory.


def read_pagemap(data: bytes) -> None:
    """Four bytes for each of two areas, and then the image."""
    areas = [tuple(sorted(struct.unpack_from("<HH", data, at))) for at in (0, 4) if len(data) >= at + 4]
    image = data[8:]
    found = PageMap.parse(image)
    if sum(run.length for run in found.runs()) != found.file_size or found.lazy_bytes > found.file_size:
        raise Find("the runs of a pagemap are not all its pages")
    for run in found.runs():
        if sum(length for _, length in found.locate(run.offset, run.length)) != run.length:
            raise Find("a run of a pagemap is not where it should be")
    marked = PageMap.parse(mark_lazy(image, [(first * _PAGE, last * _PAGE) for first, last in areas]))
    if marked.runs() != found.runs() or marked.lazy_bytes < found.lazy_bytes:
        raise Find("marking pages as lazy changed which there are")


def pagemap_seeds() -> Iterator[bytes]:
    from tests.fuzz.containers import MEMBERS

    areas = struct.pack("<HHHH", 0, 1, 2, 0xFFFF)
    yield from (areas + data for name, data in MEMBERS.items() if "pagemap-" in name)

    def varints(*found: tuple[int, int]) -> bytes:
        data = bytearray()
        for number, value in found:
            data.append(number << 3)
            rest = value
            while rest > 0x7F:
                data.append(rest & 0x7F | 0x80)
                rest >>= 7
            data.append(rest)
        return struct.pack("<I", len(data)) + data

    head = struct.pack("<II", COMMON_MAGIC, PAGEMAP_MAGIC) + varints((1, 1))
    yield areas + head + varints((1, 0x10000), (2, 3), (4, 4)) + varints((1, 0x20000), (2, 0), (4, 6), (5, 1 << 30))


class _Criu:
    """CRIU's end of a connection: it has asked for what is in `data`, and reads what it is sent."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.sent = 0

    def recv(self, size: int) -> bytes:
        found, self._data = self._data[:size], self._data[size:]
        return found

    def sendall(self, data: bytes) -> None:
        self.sent += len(data)

    def sendmsg(self, pieces: list[memoryview]) -> int:
        self.sent += (size := sum(map(len, pieces)))
        return size


def serve_pages(data: bytes) -> None:
    def read(_image: int, _address: int, length: int) -> list[memoryview]:
        return [memoryview(bytes(min(length, 4 * _PAGE)))]

    connection = _Criu(data[1:])
    wide = bool(data[:1] and data[0] & 1)
    page_protocol.serve(cast(socket.socket, connection), read, wide=wide, page_size=_PAGE)


def request_seeds() -> Iterator[bytes]:
    yield (
        b"\1"
        + _REQUEST.pack(7, 3, 0x10000, 1)
        + _REQUEST.pack(0x10007, 1 << 20, 0x20000, 2)
        + _REQUEST.pack(0x1023, 0, 0, 0)
    )
    yield b"\0" + struct.pack("<IIQQ", 7, 3, 0x10000, 1) + struct.pack("<IIQQ", 0x1024, 0, 0, 0)


TARGETS: Final = {
    "json": Target(read_json, json_seeds),
    "manifest": Target(read_manifest, manifest_seeds),
    "description": Target(read_description, description_seeds),
    "reference": Target(read_reference, reference_seeds),
    "index": Target(read_index, index_seeds),
    "file-records": Target(read_entries, entry_seeds),
    "frame": Target(read_frame, frame_seeds),
    "packs": Target(read_packs, pack_seeds),
    "pagemap": Target(read_pagemap, pagemap_seeds),
    "page-requests": Target(serve_pages, request_seeds),
}
