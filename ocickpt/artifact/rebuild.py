"""From an index and a source of blobs back to what podman and CRIU read: pages, archives, live trees."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import BinaryIO

from ocickpt import names
from ocickpt.artifact import address_spaces, extras, parts
from ocickpt.engine.files import archive
from ocickpt.engine.files.treewriter import TreeWriter
from ocickpt.errors import IntegrityError, StorageError
from ocickpt.memory.pagemap import PageMap
from ocickpt.model import BlobSource, Content, FileType, Kind, Progress, Run
from ocickpt.pack import reader
from ocickpt.pack.files import Tree
from ocickpt.pack.format import ZEROS
from ocickpt.pack.index import Index

_INODE = 1 << 10
"""Bytes that the kernel takes for a file in memory, whatever is in it."""
_BLOCK = 1 << 20
_IMAGES = "checkpoint/"
"""Where podman's archive has CRIU's images."""
_SHOWN = 80
"""Characters of a name in a message."""


class Rebuilder:
    """One checkpoint, and where its blobs are read."""

    def __init__(self, index: Index, source: BlobSource, progress: Progress) -> None:
        self.index = index
        self._source = source
        self._progress = progress
        self._boot = self._read_boot()
        self._pagemaps: dict[str, PageMap] = {}
        self._replaced: dict[str, bytes] = {}
        self._extras: extras.Extras | None = None

    def replace(self, files: Mapping[str, bytes]) -> None:
        """From now on write these instead of the files of the checkpoint that have these names in podman's archive."""
        self._replaced = {**self._replaced, **files}

    def replaced_images(self, directory: Path) -> None:
        """Write those of CRIU's images that were replaced into `directory`, over what is there."""
        for path, data in self._replaced.items():
            if path.startswith(_IMAGES):
                (directory / path.removeprefix(_IMAGES)).write_bytes(data)

    def file(self, name: str) -> bytes:
        """A small file of the checkpoint by its name in podman's archive; IntegrityError without it."""
        if name not in self._boot:
            for number, entry in self.index.files_of(Kind.STATE):
                if entry.path == name:
                    return reader.read_file(self.index, self._source, number, parts.SMALL_LIMIT)
            raise IntegrityError(f"the checkpoint has no {name}")
        return self._boot[name]

    def extras(self) -> extras.Extras:
        """What neither podman nor CRIU has saved; IntegrityError."""
        if self._extras is None:
            there = extras.NAME in self.small_files()
            self._extras = extras.Extras.from_bytes(self.file(extras.NAME)) if there else extras.NONE
        return self._extras

    def volumes(self) -> list[str]:
        """The volumes whose content it holds, but for what was there without them (`extras`)."""
        host = {each.name for each in self.extras().volumes if each.is_of_host}
        return sorted({entry.path.split("/")[0] for _, entry in self.index.files_of(Kind.VOLUME)} - host)

    def written(self, name: str) -> bytes:
        """As `file`, and as it is written: what replaced it, if anything did."""
        return self._replaced[name] if name in self._replaced else self.file(name)

    def small_files(self) -> list[str]:
        """The names of all that `written` may be asked for."""
        entries = (*self.index.files_of(Kind.BOOT), *self.index.files_of(Kind.STATE))
        names = [entry.path for _, entry in entries if entry.type is FileType.REGULAR]
        return list(dict.fromkeys((*names, *self._replaced)))

    def _read_boot(self) -> dict[str, bytes]:
        regular = [
            (number, entry) for number, entry in self.index.files_of(Kind.BOOT) if entry.type is FileType.REGULAR
        ]
        numbers = {number: entry.path for number, entry in regular}
        found = reader.read_files(self.index, self._source, numbers, parts.SMALL_LIMIT)
        return {numbers[number]: data for number, data in found.items()}

    def check_space(self, place: Path) -> None:
        """StorageError unless the filesystem of `place` has room for all content."""
        extents = self.index.extents
        needed = int(extents["length"][extents["chunk"] != ZEROS].sum())
        if (free := shutil.disk_usage(place).free) < needed:
            raise StorageError(
                f"the checkpoint needs {needed >> 20} MiB, the filesystem of {place} has {free >> 20} free"
            )

    def memory_for(self, volumes: Iterable[str]) -> int:
        """The bytes of memory that these volumes would take, were they kept in memory."""
        size, wanted = 0, set(volumes)
        for number, entry in self.index.files_of(Kind.VOLUME) if wanted else ():
            if entry.path.split("/")[0] in wanted:
                extents = self.index.extents_of(number)
                size += _INODE + int(extents["length"][extents["chunk"] != ZEROS].sum())
        return size

    def expect(self, *kinds: Kind) -> None:
        """Tell the progress how much `extract` will have to read for these kinds."""
        files = [number for kind in kinds for number, _ in self.index.files_of(kind)]
        self._progress.expect(reader.stored_size(self.index, files))

    def pages(self, directory: Path, *, lazy: bool = False) -> None:
        """Write the memory of every process as sparse ``pages-N.img`` into `directory`, all of it or an error.

        With `lazy` only what must be there before a process runs; the rest are holes.
        """
        with ExitStack() as stack:
            spaces = self._address_spaces()
            handles = {}
            for name, pagemap in self._pagemaps.items():
                handles[name] = _create(directory / f"pages-{pagemap.pages_id}.img", pagemap.file_size)
                stack.callback(os.close, handles[name])

            def write(number: int, address: int, data: memoryview) -> None:
                name = spaces[number]
                for offset, length in self._pagemaps[name].locate(address, len(data)):
                    _write_at(handles[name], data[:length], offset)
                    data = data[length:]

            whole = self._eager_files(spaces) if lazy else list(spaces)
            reader.extract(self.index, self._source, whole, write, self._progress)
            if lazy:
                self._extract_eager({number: name for number, name in spaces.items() if number not in whole}, write)

    def divided(self) -> tuple[int, int]:
        """How many bytes of memory can follow, and how many must be there before the processes run."""
        self._address_spaces()
        later = sum(pagemap.lazy_bytes for name, pagemap in self._pagemaps.items() if address_spaces.is_lazy(name))
        return later, sum(pagemap.file_size for pagemap in self._pagemaps.values()) - later

    def images(self, directory: Path) -> None:
        """Write CRIU's own images into `directory`, all but the pages."""
        self.replaced_images(directory)
        for number, entry in (*self.index.files_of(Kind.BOOT), *self.index.files_of(Kind.STATE)):
            if entry.type is FileType.REGULAR and entry.path.startswith(_IMAGES) and entry.path not in self._replaced:
                data = self._boot.get(entry.path)
                name = entry.path.removeprefix(_IMAGES)
                if data is None:
                    data = reader.read_file(self.index, self._source, number, parts.SMALL_LIMIT)
                (directory / name).write_bytes(data)

    def _eager_files(self, spaces: dict[int, str]) -> list[int]:
        """The files that are needed whole: eager memory in the boot pack, and memory that cannot follow."""
        return [
            n for n, name in spaces.items() if self.index.files[n].kind is Kind.BOOT or not address_spaces.is_lazy(name)
        ]

    def _extract_eager(self, spaces: dict[int, str], write: Callable[[int, int, memoryview], None]) -> None:
        """Where eager memory did not fit into the boot pack it is fetched by chunks."""
        done = {name for number, name in self._address_spaces().items() if self.index.files[number].kind is Kind.BOOT}
        for number, name in spaces.items():
            if name not in done:
                eager, _ = address_spaces.divide(name, self._pagemaps[name])
                for address, data in address_spaces.read_runs(self.index, self._source, number, eager):
                    write(number, address, data)

    def _address_spaces(self) -> dict[int, str]:
        """The files that hold memory, and whose: by the name of the pagemap, which they cover exactly."""
        found = {}
        covered: dict[str, int] = {}
        for number, entry in (*self.index.files_of(Kind.BOOT), *self.index.files_of(Kind.MEMORY)):
            if entry.type is FileType.PAGES:
                name = entry.path.removeprefix(names.EAGER)
                if name not in self._pagemaps:
                    self._pagemaps[name] = PageMap.parse(self.file(name), self.index.page_size)
                found[number] = name
                size = address_spaces.covered(self.index.extents_of(number), self._pagemaps[name])
                covered[name] = covered.get(name, 0) + size
        for name, size in covered.items():
            if size != self._pagemaps[name].file_size:
                wanted = self._pagemaps[name].file_size
                raise IntegrityError(f"{name} has {wanted} bytes of memory, the checkpoint {size}")
        return found

    def tree(self, kind: Kind, root: Path, prefix: str = "") -> None:
        """Apply the files of `kind` (a volume's: those below `prefix`) to the live tree at `root`."""
        entries = [(number, entry) for number, entry in self.index.files_of(kind) if _below(entry.path, prefix)]
        if not entries:
            return
        with TreeWriter(root) as writer:
            writer.prepare(entries, strip=prefix)
            files = [number for number, entry in entries if entry.type is FileType.REGULAR]
            reader.extract(self.index, self._source, files, writer.write, self._progress)
            writer.finish()
        self._tell_lost(writer.refused, f"volume {prefix}" if prefix else "the root filesystem")

    def shm(self, root: Path, work: Path) -> None:
        """Apply the container's /dev/shm to the live directory `root`; files are made in `work`."""
        staged = self._stage(Kind.STATE, parts.DEVSHM, work)
        tar: Path | bytes | None = self._boot.get(parts.DEVSHM)
        for number, entry in self.index.files_of(Kind.STATE):
            if entry.path == parts.DEVSHM:
                tar = staged(number)
        if tar is None:
            return
        with TreeWriter(root) as writer:
            writer.prepare(list(enumerate(content.entry for content in _tree(tar))))
            for number, content in enumerate(_tree(tar)):
                if content.open:
                    for offset, data in _blocks(content.runs, content.open()):
                        writer.write(number, offset, memoryview(data))
            writer.finish()
        self._tell_lost(writer.refused, "/dev/shm")  # noqa: S108 - the container's

    def _tell_lost(self, attributes: Sequence[tuple[str, str]], where: str) -> None:
        if attributes:
            first = ", ".join(f"{name[:_SHOWN]!r} of {path[:_SHOWN]!r}" for path, name in attributes[:3])
            count = (
                "1 extended attribute was" if len(attributes) == 1 else f"{len(attributes)} extended attributes were"
            )
            self._progress.note(
                f"{count} lost, for {where} is on a filesystem that does not take them: file capabilities and access"
                f" lists, say, are missing there ({first}{', …' if len(attributes) > 3 else ''})"
            )

    def skeleton(self, path: Path, members: dict[str, bytes], work: Path) -> None:
        """Write the archive podman imports when the shim brings memory and files: everything but these.

        Of `members` are those that podman gets instead of the checkpoint's, or besides.
        """
        with archive.ArchiveWriter(path) as out:
            self._add_small(out, members, work)

    def whole(self, path: Path, members: dict[str, bytes], work: Path) -> None:
        """Write a complete podman checkpoint archive, with `members` as in `skeleton`.

        `work` is an empty directory on a disk with room for all.
        """
        pages = work / "pages"
        pages.mkdir()
        self.pages(pages)
        with archive.ArchiveWriter(path) as out:
            self._add_small(out, members, work)
            for each in sorted(pages.iterdir()):
                out.add_file(f"checkpoint/{each.name}", each)
            self._add_rootfs(out, work)
            for name in self.volumes():
                self._add_tree(out, f"volumes/{name}.tar", Kind.VOLUME, name, work)

    def _add_small(self, out: archive.ArchiveWriter, members: dict[str, bytes], work: Path) -> None:
        instead = self._replaced | members
        state = work / "state"
        state.mkdir()
        staged = self._stage(Kind.STATE, "", state)
        out.add_directory("checkpoint")
        for name, data in (self._boot | instead).items():
            if name == extras.NAME:
                continue
            if name == parts.DEVSHM:
                out.add_file(name, _rewritten(data, work))
            else:
                out.add_bytes(name, data)
        for number, entry in self.index.files_of(Kind.STATE):
            if entry.path in instead or entry.path == extras.NAME:
                continue
            found = staged(number)
            out.add_file(entry.path, _rewritten(found, work) if entry.path == parts.DEVSHM else found)

    def _add_rootfs(self, out: archive.ArchiveWriter, work: Path) -> None:
        gone = self._add_tree(out, parts.ROOTFS_DIFF, Kind.ROOTFS, "", work)
        if gone:
            out.add_bytes(parts.DELETED, json.dumps(["/" + path for path in gone]).encode())

    def _add_tree(self, out: archive.ArchiveWriter, name: str, kind: Kind, prefix: str, work: Path) -> list[str]:
        files = work / f"files-{kind.name}-{prefix}"
        files.mkdir()
        staged = self._stage(kind, prefix, files)

        def contents() -> Iterator[Content]:
            for number, entry in self.index.files_of(kind):
                if not _below(entry.path, prefix):
                    continue
                if entry.type is FileType.REGULAR:
                    yield Content(entry, (Run(0, entry.size),), partial(parts.open_file, staged(number)))
                else:
                    yield Content(entry)

        tar = work / "tree.tar"
        gone = archive.tree_tar(tar, contents(), strip=prefix)
        out.add_file(name, tar)
        tar.unlink()
        return gone.deleted

    def _stage(self, kind: Kind, prefix: str, directory: Path) -> Callable[[int], Path]:
        """Extract the regular files of `kind` into `directory` under their numbers."""
        wanted = [
            (number, entry)
            for number, entry in self.index.files_of(kind)
            if entry.type is FileType.REGULAR and _below(entry.path, prefix)
        ]
        for number, entry in wanted:
            os.close(_create(directory / str(number), entry.size))

        def write(number: int, offset: int, data: memoryview) -> None:
            with (directory / str(number)).open("r+b", buffering=0) as file:
                _write_at(file.fileno(), data, offset)

        reader.extract(self.index, self._source, [number for number, _ in wanted], write, self._progress)
        return lambda number: directory / str(number)


def _rewritten(tar: Path | bytes, work: Path) -> Path:
    """The tree in a tar, checked and written anew.

    podman unpacks /dev/shm with the host as its root: what a tar has below a symlink is written where
    that leads.
    """

    Tree().add_all(content.entry for content in _tree(tar))
    target = work / "shm.tar"
    archive.tree_tar(target, _tree(tar))
    return target


def _tree(tar: Path | bytes) -> Iterator[Content]:
    with io.BytesIO(tar) if isinstance(tar, bytes) else parts.open_file(tar) as stream:
        yield from archive.tree_contents(archive.nested(stream, parts.DEVSHM), Kind.STATE)


def _blocks(runs: Iterable[Run], stream: BinaryIO) -> Iterator[tuple[int, bytes]]:
    for run in runs:
        for offset in range(run.offset, run.offset + run.length, _BLOCK):
            yield offset, stream.read(min(_BLOCK, run.offset + run.length - offset))


def _below(path: str, prefix: str) -> bool:
    return not prefix or path == prefix or path.startswith(prefix + "/")


def _create(path: Path, size: int) -> int:
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        os.truncate(handle, size)
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror}") from error
    return handle


def _write_at(handle: int, data: memoryview, offset: int) -> None:
    try:
        while data:
            written = os.pwrite(handle, data, offset)
            data, offset = data[written:], offset + written
    except OSError as error:
        raise StorageError(f"memory or files cannot be written: {error.strerror}") from error
