"""The index of a checkpoint, read and validated: which chunks make up which file.

Nothing in it is believed before it was verified against the manifest (through the root's digest) and checked:
numbers against counts, ranges against packs, chunks and files. What comes out can be used without further checks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ocickpt.errors import IntegrityError
from ocickpt.model import BlobSource, Descriptor, Entry, FileType, Kind, Stored, digest_of
from ocickpt.pack import format as fmt
from ocickpt.pack.codec import PLAIN, Codec
from ocickpt.pack.files import Tree, decode, weight

_READ = 8 << 20


@dataclass(frozen=True, slots=True, eq=False)
class Index:
    """A validated index, whole or (after `load_head`) only what describes the BOOT files.

    `chunks` and `extents` are one-dimensional structured arrays (`format.CHUNK`, `format.EXTENT`), read-only.
    An extent's `file` counts in `files`, its `chunk` in `chunks` (`format.ZEROS`: nothing but zeros), a chunk's `pack`
    in `packs`. Extents are sorted by (file, offset) and do not overlap. All numbers in a head are those of the
    whole index, because BOOT files, their chunks and their extents come first.
    """

    page_size: int
    chunk_size: int
    packs: tuple[Descriptor, ...]
    files: list[Entry]
    chunks: fmt.Records
    extents: fmt.Records
    whole: bool
    """False for a head."""
    codec: Codec = PLAIN
    """Whose its segments were: it opens the chunks too."""

    @classmethod
    def load(cls, source: BlobSource, blob: Descriptor, codec: Codec = PLAIN) -> Index:
        """The whole index that `blob`, a manifest's layer with its annotations, describes.

        Raises IntegrityError, UnsupportedError (a later format, or not of `codec`), and whatever `source` raises.
        """
        place = fmt.Place.of(blob)
        # The root is at the end: a small index comes with it in one request.
        window = _Window(source, blob, 0 if blob.size <= _READ else place.head, blob.size)
        return _load(window, _root(window, place, codec), blob.size, codec, whole=True)

    @classmethod
    def load_head(cls, source: BlobSource, blob: Descriptor, codec: Codec = PLAIN) -> Index:
        """Only what describes the BOOT files, by one read of the blob's end; errors as in `load`."""
        place = fmt.Place.of(blob)
        window = _Window(source, blob, place.head, blob.size)
        return _load(window, _root(window, place, codec), blob.size, codec, whole=False)

    def check_layers(self, layers: Iterable[Descriptor]) -> None:
        """IntegrityError unless every pack is among the manifest's `layers`, where copying and garbage collection
        see it."""
        listed = {(layer.media_type, layer.digest, layer.size) for layer in layers}
        for pack in self.packs:
            if (pack.media_type, pack.digest, pack.size) not in listed:
                raise IntegrityError(f"the index refers to pack {pack.digest}, which the manifest does not list")

    def stored(self, number: int) -> Stored:
        """Where chunk `number` is kept, and what it holds."""
        pack, offset, stored, raw, digest = self.chunks[number].item()
        return Stored(self.packs[pack], offset, stored, raw, bytes(digest))

    def files_of(self, kind: Kind) -> Iterator[tuple[int, Entry]]:
        """The numbers and entries of one kind, in order."""
        return ((number, entry) for number, entry in enumerate(self.files) if entry.kind is kind)

    def extents_of(self, number: int) -> fmt.Records:
        """The extents of file `number`, sorted by offset (a view)."""
        first, last = np.searchsorted(self.extents["file"], np.array([number, number + 1], dtype="<u4"))
        return self.extents[first:last]


class _Window:
    """Reads pieces of the blob through one buffer, so that neighbouring segments cost one request."""

    def __init__(self, source: BlobSource, blob: Descriptor, start: int, end: int) -> None:
        self._source, self._blob = source, blob
        self._start, self._data = start, source.read_at(blob, start, end - start)

    def get(self, offset: int, length: int) -> memoryview:
        """`length` bytes at `offset` of the blob; reads ahead when they are not at hand."""
        at = offset - self._start
        if at < 0 or at + length > len(self._data):
            size = min(max(_READ, length), self._blob.size - offset)
            self._start, at = offset, 0
            self._data = self._source.read_at(self._blob, offset, size)
        found = memoryview(self._data)[at : at + length]
        if len(found) != length:
            raise IntegrityError("the index is shorter than its descriptor says")
        return found


def _root(window: _Window, place: fmt.Place, codec: Codec) -> fmt.Root:
    data = bytes(window.get(place.offset, place.length))
    if digest_of(data) != place.digest:
        raise IntegrityError("the index's root does not match its digest")
    return fmt.Root.from_bytes(data, place.offset, codec)


def _load(window: _Window, root: fmt.Root, size: int, codec: Codec, *, whole: bool) -> Index:
    want = root.total if whole else root.boot
    chunks, extents = np.empty(want.chunks, fmt.CHUNK), np.empty(want.extents, fmt.EXTENT)
    files: list[Entry] = []
    done = dict.fromkeys(fmt.RecordType, 0)
    work: list[tuple[int, fmt.Segment]] = []
    for segment in root.segments:
        if done[segment.type] < want.of(segment.type):
            work.append((done[segment.type], segment))
        done[segment.type] += segment.count
    pieces: list[tuple[int, list[Entry]]] = []
    room = fmt.room(root.segments, size)
    # Boot segments, already in the window, first; then the rest as it lies in the blob.
    for first, segment in sorted(work, key=lambda item: (item[0] >= root.boot.of(item[1].type), item[1].offset)):
        data = _segment(window, segment, codec)
        if segment.type is fmt.RecordType.FILES:
            pieces.append((first, list(decode(bytes(data), segment.count))))
            room -= weight(pieces[-1][1])
            if room < 0:
                raise IntegrityError("the files of the index have more attributes than those of one of its size should")
        elif segment.type is fmt.RecordType.CHUNKS:
            chunks[first : first + segment.count] = np.frombuffer(data, fmt.CHUNK)
        else:
            extents[first : first + segment.count] = np.frombuffer(data, fmt.EXTENT)
    for _, piece in sorted(pieces, key=lambda item: item[0]):
        files += piece
    Tree().add_all(files)
    for number, entry in enumerate(files):
        if (entry.kind is Kind.BOOT) != (number < root.boot.files):
            raise IntegrityError("the index's boot files are not its first")
    _check_chunks(root, chunks)
    _check_extents(root, files, chunks, extents)
    chunks.flags.writeable = extents.flags.writeable = False
    return Index(root.page_size, root.chunk_size, root.packs, files, chunks, extents, whole, codec)


def _segment(window: _Window, segment: fmt.Segment, codec: Codec) -> bytes | memoryview:
    """The records of a segment. Its hash is of what is stored: nothing unverified is opened or decompressed."""
    stored = window.get(segment.offset, segment.stored)
    codec.verify(stored, segment.hash, "an index segment")
    frame = codec.open(stored, "an index segment")
    return codec.decompress(frame, segment.raw, "an index segment") if segment.codec == fmt.ZSTD else frame


def _need(good: npt.NDArray[np.bool_], text: str) -> None:
    if not good.all():
        raise IntegrityError(f"the index is malformed: {text}")


def _check_chunks(root: fmt.Root, chunks: fmt.Records) -> None:
    if not len(chunks):
        return
    pack, offset, stored, raw = (np.ascontiguousarray(chunks[name]) for name in ("pack", "offset", "stored", "raw"))
    _need(pack < len(root.packs), "a chunk lies in no pack")
    _need((raw > 0) & (raw <= root.chunk_size), "a chunk is larger than chunks are")
    _need((stored > 0) & (stored <= raw.astype("<u8") * 2 + 64), "a chunk takes more room than it can need")
    size = np.array([pack.size for pack in root.packs], "<u8")[pack]
    _need((offset < size) & (stored <= size - offset), "a chunk lies outside its pack")
    is_boot = np.array([fmt.kind_of(pack) is Kind.BOOT for pack in root.packs])[pack]
    _need(is_boot == (np.arange(len(chunks)) < root.boot.chunks), "boot chunks are not in the boot pack alone")


def _check_extents(root: fmt.Root, files: list[Entry], chunks: fmt.Records, extents: fmt.Records) -> None:
    if not len(extents):
        return
    file, offset, chunk, inner, length = (np.ascontiguousarray(extents[name]) for name in fmt.EXTENT.names or ())
    most = np.uint64(fmt.MAX_OFFSET)
    _need(file < len(files), "an extent belongs to no file")
    _need((length > 0) & (offset < most) & (length <= most) & (offset + length <= most), "an extent is out of range")
    _need((file < root.boot.files) == (np.arange(len(file)) < root.boot.extents), "boot extents are not the first")
    same = file[1:] == file[:-1]
    _need(file[1:] >= file[:-1], "extents are not sorted")
    _need(~same | ((offset + length)[:-1] <= offset[1:]), "extents overlap or are not sorted")
    kinds, sizes = _bounds(files)
    pages = (sizes == most)[file]
    _need(offset + length <= sizes[file], "an extent lies outside its file")
    mask = np.uint64(root.page_size - 1)
    _need(~pages | (((offset | length) & mask) == 0), "memory is not cut at pages")
    real = chunk != fmt.ZEROS
    _need(real | (inner == 0), "a run of zeros lies inside a chunk")
    file, chunk, inner, length = file[real], chunk[real], inner[real], length[real]
    _need(chunk < len(chunks), "an extent has no chunk")
    raw = np.ascontiguousarray(chunks["raw"])[chunk]
    _need((length <= raw) & (inner <= raw - np.minimum(length, raw)), "an extent is longer than its chunk")
    pack_kinds = np.array([fmt.kind_of(pack) for pack in root.packs], "u1")
    pack = np.ascontiguousarray(chunks["pack"])[chunk]
    _need(kinds[file] == pack_kinds[pack], "a file's chunk lies in a pack of another kind")


def _bounds(files: list[Entry]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint64]]:
    """For each file its kind, and where its extents must end: its size, 2^63 for PAGES, 0 where there is no content."""
    kinds, sizes = np.empty(len(files), np.uint8), np.zeros(len(files), np.uint64)
    for number, entry in enumerate(files):
        kinds[number] = entry.kind
        if entry.type is FileType.REGULAR:
            sizes[number] = entry.size
        elif entry.type is FileType.PAGES:
            sizes[number] = fmt.MAX_OFFSET
    return kinds, sizes
