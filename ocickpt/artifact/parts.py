"""What a checkpoint consists of, as one stream of contents for the packer.

The parts come from a podman checkpoint archive (the small one the shim leaves, or a whole one) and,
where the shim was at work, from what it set aside: pages, the captured upper directory, volumes.
"""

from __future__ import annotations

import io
import mmap
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import BinaryIO

from ocickpt import names
from ocickpt.artifact import address_spaces, allowed_files
from ocickpt.artifact.extras import read as read_extras
from ocickpt.artifact.file_pieces import pieces_of
from ocickpt.engine import criu
from ocickpt.engine.files import archive, archivewriter, tree
from ocickpt.engine.files.archive import Member
from ocickpt.errors import IntegrityError, StorageError, UnsupportedError
from ocickpt.memory.pagemap import PageMap, mark_lazy
from ocickpt.model import Content, Entry, FileType, Kind, Run, json_value

CONFIG, SPEC, INVENTORY = "config.dump", "spec.dump", "checkpoint/inventory.img"
NETWORK = "network.status"
LOCKS = "checkpoint/filelocks.img"
CONNECTION = re.compile(r"checkpoint/tcp-stream-[0-9a-f]+\.img", re.ASCII)
SHM = "shm"
ROOTFS_DIFF, DELETED, DEVSHM, LOG = "rootfs-diff.tar", "deleted.files", "devshm-checkpoint.tar", "ctr.log"
VOLUME = re.compile(r"volumes/([a-zA-Z0-9][a-zA-Z0-9_.-]*)\.tar")
PAGES = re.compile(r"checkpoint/pages-(\d+)\.img")
_MAPPINGS = re.compile(r"checkpoint/mm-(\d+\.img)")
PAGEMAP = re.compile(r"checkpoint/pagemap-(shmem-)?\d+\.img")

_CORE = re.compile(r"checkpoint/core-\d+\.img", re.ASCII)
_KEPT = (CONFIG, SPEC, INVENTORY)
_LEFT_OUT = ("dump.log", "artifacts")
_NETWORK = re.compile(r"checkpoint/(ifaddr|route6?|rule|ip6?tables|nftables)-\d+\.img", re.ASCII)
"""What CRIU would give to root's tools when it restores a network of its own making (--network none under crun): the
kernel gives a loopback device its addresses by itself."""
_BOOT_FILE, _BOOT = 512 << 10, 7 << 20
"""The largest file, and the largest sum of files, of the boot pack; the pack may have 8 MiB."""
SMALL_LIMIT = 64 << 20
_MAPPED = 16 << 20
"""So much of mm images is kept until the pagemaps come, which follow them where names are sorted."""


class Parts:
    """The parts of one checkpoint. Iterate once; then `kept` holds the members that describe it."""

    def __init__(
        self, export: Path, aside: Path | None = None, lowers: Iterable[str] = (), extras: Path | None = None
    ) -> None:
        self._export = export
        self._aside = aside
        self._extras = extras
        saved = read_extras(extras.parent).volumes if extras else ()
        self._of_host = {each.name for each in saved if each.is_of_host}
        """Volumes whose content is not the container's: podman exports every one."""
        self._lowers = [Path(lower) for lower in lowers if Path(lower).is_dir()]
        self._boot = 0
        self._mappings: dict[str, bytes] = {}
        self._mapped = 0
        self._pagemaps: dict[int, tuple[str, PageMap]] = {}
        self.kept: dict[str, bytes] = {}
        self.core = b""
        """A core image: it says what machine it is of."""
        self.connected = False
        """Whether there are established TCP connections."""
        self.locks = b""
        """The image of file locks."""
        self.files: dict[Kind, int] = dict.fromkeys(Kind, 0)

    def size(self) -> int:
        """Bytes there are to read, at most."""
        sizes = [self._export.stat().st_size]
        # By descriptors: the container may have made paths that are too long to be named.
        for _, _, inside, directory in os.fwalk(self._aside) if self._aside else ():
            found = (os.stat(name, dir_fd=directory, follow_symlinks=False) for name in inside)
            sizes.append(sum(each.st_size for each in found if stat.S_ISREG(each.st_mode)))
        return sum(sizes)

    def __iter__(self) -> Iterator[Content]:
        for content in self._all():
            if not self.kept:
                self._check_first(content.entry)
            allowed_files.check((content.entry,))
            self.files[content.entry.kind] += 1
            yield content

    def _check_first(self, entry: Entry) -> None:
        """What is no checkpoint at all shows it before anything of one was seen."""
        try:
            allowed_files.check((entry,))
        except UnsupportedError as error:
            raise IntegrityError(
                f"{self._export.name} is not a podman checkpoint: {error.message}",
                hint="`podman container checkpoint --export` writes one",
            ) from error

    def _all(self) -> Iterator[Content]:
        for member in archive.members(self._export):
            yield from self._member(member)
        missing = [name for name in _KEPT if name not in self.kept]
        if missing:
            raise IntegrityError(
                f"{self._export.name} is not a podman checkpoint: it has no {missing[0]}",
                hint="`podman container checkpoint --export` writes one",
            )
        if self._extras and self._extras.is_file():
            yield self._aside_file(self._extras)
        if self._aside:
            for number in sorted(self._pagemaps):
                yield from self._split_pages(number, self._aside / f"pages-{number}.img")
            if (self._aside / "rootfs").is_dir():
                yield from self._upper(self._aside / "rootfs")
            for volume in sorted((self._aside / "volumes").glob("*")):
                yield from tree.walk(volume, Kind.VOLUME, volume.name)
        elif self._pagemaps:
            raise IntegrityError(f"{self._export.name} has pagemaps without their pages: it is not a whole checkpoint")

    def _upper(self, upper: Path) -> Iterator[Content]:
        """An upper directory; what its opaque directories hide is named too, for archives know no such directories."""
        opaque = ""
        for content in tree.walk(upper, Kind.ROOTFS, overlay=True):
            yield content
            path = content.entry.path
            if content.entry.type is FileType.OPAQUE and not _inside(path, opaque):
                opaque = path
            if content.entry.type in (FileType.OPAQUE, FileType.DIRECTORY) and _inside(path, opaque):
                for name in tree.hidden_by(upper, self._lowers, path):
                    yield Content(Entry(Kind.ROOTFS, FileType.WHITEOUT, f"{path}/{name}"))

    def _member(self, member: Member) -> Iterator[Content]:
        name = member.name
        if name.split("/")[0] in _LEFT_OUT or _NETWORK.fullmatch(name) or member.type is FileType.DIRECTORY:
            return
        if name == ROOTFS_DIFF:
            yield from archive.tree_contents(archive.nested(member.stream), Kind.ROOTFS)
        elif name == DELETED:
            yield from _deleted(_read(member, SMALL_LIMIT))
        elif volume := VOLUME.fullmatch(name):
            if volume[1] not in self._of_host:
                yield from archive.tree_contents(archive.nested(member.stream), Kind.VOLUME, volume[1])
        elif pages := PAGES.fullmatch(name):
            yield self._pages(int(pages[1]), lambda: member.stream, member.size)
        elif member.type is FileType.SYMLINK and name == "checkpoint/parent":
            raise IntegrityError("this is an incremental checkpoint without the one it builds on")
        elif name == DEVSHM and self._aside and (self._aside / SHM).is_dir():
            yield self._shm(self._aside)
        elif member.type is FileType.REGULAR:
            yield self._file(member)

    def _shm(self, aside: Path) -> Content:
        """The container's /dev/shm as it was while it was frozen, in the place of what podman took of it later."""
        tar = aside / DEVSHM
        archivewriter.tree_tar(tar, tree.walk(aside / SHM, Kind.STATE))
        return self._aside_file(tar)

    def _aside_file(self, path: Path) -> Content:
        size = path.stat().st_size
        entry = Entry(self._kind(size), FileType.REGULAR, path.name, mode=0o600, size=size)
        return Content(entry, (Run(0, size),), partial(open_file, path))

    def _file(self, member: Member) -> Content:
        self.connected |= bool(CONNECTION.fullmatch(member.name))
        if member.size > SMALL_LIMIT:
            return Content(self._entry(member, member.size), (Run(0, member.size),), lambda: member.stream)
        data = _read(member, SMALL_LIMIT)
        if member.name in _KEPT:
            self.kept[member.name] = data
        elif (mappings := _MAPPINGS.fullmatch(member.name)) and self._mapped + len(data) <= _MAPPED:
            self._mappings[mappings[1]] = data
            self._mapped += len(data)
        elif member.name == LOCKS:
            self.locks = data
        elif not self.core and _CORE.fullmatch(member.name):
            self.core = data
        elif PAGEMAP.fullmatch(member.name):
            data = self._pagemap(member.name, data)
        return Content(self._entry(member, len(data)), (Run(0, len(data)),) if data else (), lambda: io.BytesIO(data))

    def _entry(self, member: Member, size: int) -> Entry:
        return Entry(self._kind(size), FileType.REGULAR, member.name, mode=member.mode & 0o777, size=size)

    def _pagemap(self, name: str, data: bytes) -> bytes:
        """Note whose pages come; the image, with what CRIU may have forgotten."""
        pagemap = PageMap.parse(data, mmap.PAGESIZE)
        mappings = self._mappings.pop(name.removeprefix("checkpoint/pagemap-"), b"")
        if mappings and not pagemap.lazy_bytes:
            # When a stack pointer is on a page boundary, CRIU takes every page for its stack, none of which is lazy
            # (is_stack() in criu/mem.c, 4.2.1): that is so for one thread of 256.
            data = mark_lazy(data, criu.lazy_areas(mappings), mmap.PAGESIZE)
            pagemap = PageMap.parse(data, mmap.PAGESIZE)
        if pagemap.pages_id in self._pagemaps:
            raise IntegrityError(f"{name} claims the pages of another pagemap")
        self._pagemaps[pagemap.pages_id] = (name, pagemap)
        return data

    def _kind(self, size: int) -> Kind:
        """Where a file of `size` bytes goes that podman or CRIU reads before the first instruction."""
        return Kind.BOOT if size <= _BOOT_FILE and self._boots(size) else Kind.STATE

    def _boots(self, size: int) -> bool:
        """Whether `size` more bytes fit into the boot pack; they are counted."""
        fits = self._boot + size <= _BOOT
        self._boot += size if fits else 0
        return fits

    def _split_pages(self, number: int, path: Path) -> Iterator[Content]:
        """The pages in a file; those that must be there before the process runs go into the boot pack."""
        name, pagemap = self._pagemaps[number]
        eager, later = address_spaces.divide(name, pagemap)
        if not eager or not self._boots(sum(run.length for run in eager)):
            yield self._pages(number, partial(open_file, path))
            return
        for kind, prefix, runs in ((Kind.BOOT, names.EAGER, eager), (Kind.MEMORY, "", later)):
            pieces = [piece for run in runs for piece in pagemap.locate(run.offset, run.length)]
            yield Content(Entry(kind, FileType.PAGES, prefix + name), runs, partial(pieces_of, path, pieces))

    def _pages(self, number: int, open_pages: Callable[[], BinaryIO], size: int | None = None) -> Content:
        if number not in self._pagemaps:
            raise IntegrityError(f"checkpoint/pages-{number}.img comes without its pagemap")
        name, pagemap = self._pagemaps.pop(number)
        if size not in (None, pagemap.file_size):
            raise IntegrityError(
                f"{name} has {pagemap.file_size} bytes of memory, checkpoint/pages-{number}.img {size}"
            )
        return Content(Entry(Kind.MEMORY, FileType.PAGES, name), pagemap.runs(), open_pages)


def _inside(path: str, directory: str) -> bool:
    return bool(directory) and (path == directory or path.startswith(directory + "/"))


def open_file(path: Path) -> BinaryIO:
    """Open a regular file for reading, or StorageError."""
    try:
        return path.open("rb")
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}") from error


def _read(member: Member, limit: int) -> bytes:
    if member.size > limit:
        raise IntegrityError(f"{member.name} is {member.size} bytes long, more than there can be")
    with closing(member.stream) as stream:
        data = stream.read(limit + 1)
    if len(data) != member.size:
        raise StorageError(f"{member.name} ends after {len(data)} of {member.size} bytes")
    return data


def _deleted(data: bytes) -> Iterator[Content]:
    try:
        paths = json_value(data, file_names=True)
    except ValueError as error:
        raise IntegrityError(f"{DELETED} is not JSON: {error}") from error
    if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
        raise IntegrityError(f"{DELETED} is not a list of paths")
    for path in sorted(path.strip("/") for path in paths):
        yield Content(Entry(Kind.ROOTFS, FileType.WHITEOUT, path))
