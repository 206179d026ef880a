"""The paths by which CRIU opens, makes and removes files: none that a symlink of the container's leads elsewhere.

It follows them as the host's root. What it opens it opens in the container's mount namespace, but out of a process that
still has CRIU's own descriptors, which the container's /proc/self/fd leads to. Deleted files that processes have open
it makes again by their paths, and takes their names away again, in a mount namespace that has the container's files
below a directory of the host. The kernel tells paths without symlinks, so the checkpoint of a process has none there;
only a unix socket has the name that its process gave it.

Source: criu/files-reg.c (open_path, create_ghost, clean_one_remap), sk-unix.c (bind_unix_sk), fsnotify.c, mount-v2.c;
images/remap-file-path.proto.
"""

from __future__ import annotations

import os
import posixpath
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Final, NamedTuple, TypeAlias

from ocickpt.errors import IntegrityError, UnsupportedError
from ocickpt.gate.expected import RDONLY, Expected
from ocickpt.gate.files import is_magic
from ocickpt.gate.images import Images, Message, text
from ocickpt.model import FileType

_LINKED, _PROCFS = 0, 2
"""remap_type: a file under another name that CRIU gave it, and a process that has ended, which has no path."""
_LINK_REMAP: Final = re.compile(r".*/link_remap\.\d+", re.ASCII | re.DOTALL)
"""That name (create_link_remap in criu/files-reg.c)."""
_TMPFS: Final = 5
_MOST_LINKS: Final = 40
"""MAXSYMLINKS (linux/namei.h)."""
_O_PATH, _O_NOFOLLOW, _O_ACCMODE = os.O_PATH, os.O_NOFOLLOW, os.O_ACCMODE


class Seen(NamedTuple):
    """What is at a path, not followed."""

    link: str
    """Where a symlink leads; empty for anything else."""
    uid: int
    gid: int
    mode: int
    """As in stat(2)."""


Look: TypeAlias = Callable[[str, str], Seen | None]
"""What is at (mount point, path below it), for the root filesystem ("/") and for what is mounted from outside: None for
nothing, LookupError where it is not known, UnsupportedError where it cannot be known here."""


def check_paths(images: Images, expected: Expected, look: Look) -> None:
    """Refuse files that lie behind a symlink, and such as no process of the container can have opened.

    IntegrityError, UnsupportedError.
    """
    mounts = {mount.mnt_id: mount for found in images.numbered("mountpoints").values() for mount in found}
    view = _View(images, look)
    remapped = set[int]()
    for remap, number, file in _remapped(images):
        mount, path = _place(file, mounts)
        _check_remap(remap, number, file, mount)
        if view.is_behind_a_symlink(mount, path, surely=True):
            raise IntegrityError(f"the deleted file {path[:200]!r} of the checkpoint lies behind a symlink")
        remapped.add(number)
    for file in images.messages("files"):
        if file.HasField("reg"):
            name, mount = text(file.reg.name), mounts[file.reg.mnt_id]
            below = _below(name, mount)
            if below is None or view.is_behind_a_symlink(mount, below):
                raise IntegrityError(f"the checkpoint opens {name[:200]!r}, which lies behind a symlink")
            if file.id not in remapped:
                _check_opened(file.reg, view.look(mount, below), expected)
        for name in _names(file):
            if is_magic(view.resolved(name, mounts), mounts.values()):
                raise IntegrityError(f"the checkpoint's {name[:200]!r} leads to what CRIU has open")


def _remapped(images: Images) -> Iterator[tuple[Message, int, Message]]:
    """The files that CRIU makes or removes: why, and their ids."""
    files = {each.id: each.reg for each in images.messages("files") if each.HasField("reg")}
    for remap in images.messages("remap-fpath"):
        if not remap.HasField("remap_type"):
            raise UnsupportedError("the checkpoint has a deleted file of an old format")
        # A deleted file's content is numbered by itself, and its number no file's.
        numbers = {_LINKED: {remap.orig_id, remap.remap_id}, _PROCFS: set[int]()}
        for number in numbers.get(remap.remap_type, {remap.orig_id}) & files.keys():
            yield remap, number, files[number]


def _place(file: Message, mounts: Mapping[int, Message]) -> tuple[Message, str]:
    """The mount that a file is on, and the path below it."""
    name, mount = text(file.name), mounts.get(file.mnt_id)
    path = _below(name, mount) if mount else None
    if mount is None or path is None:
        raise IntegrityError(f"the checkpoint's deleted file {name[:200]!r} is on no mount of its container")
    return mount, path


def _below(name: str, mount: Message) -> str | None:
    place = text(mount.mountpoint)
    if not f"{name}/".startswith(f"{place.rstrip('/')}/"):
        return None
    return posixpath.normpath(name.removeprefix(place).lstrip("/"))


def _above(name: str, mounts: Mapping[int, Message]) -> Message:
    """The mount that covers a path."""
    places = [mount for mount in mounts.values() if _below(name, mount) is not None]
    if not places:
        raise IntegrityError(f"the checkpoint has {name[:200]!r}, which is on no mount of its container")
    return max(places, key=lambda mount: len(text(mount.mountpoint)))


def _check_remap(remap: Message, number: int, file: Message, mount: Message) -> None:
    """CRIU makes a mount writable for this, whatever it is for the container."""
    name = text(file.name)
    if mount.flags & RDONLY and (mount.ext_key or mount.mountpoint == "/"):
        raise UnsupportedError(
            f"the deleted file {name[:200]!r} of the checkpoint is on a mount that is only read, and CRIU would write"
        )
    if remap.remap_type == _LINKED and number == remap.remap_id and not _LINK_REMAP.fullmatch(name):
        raise IntegrityError(f"the checkpoint would remove {name[:200]!r}, which is not of CRIU's making")


def _names(file: Message) -> Iterator[str]:
    """The paths of an entry of files.img on which there may be symlinks."""
    if file.HasField("usk") and file.usk.name and file.usk.name[:1] != b"\0":
        yield posixpath.join(text(file.usk.name_dir) or "/", os.fsdecode(file.usk.name.rstrip(b"\0")))
    for watch in file.ify.wd if file.HasField("ify") else ():
        if watch.f_handle.path:
            yield text(watch.f_handle.path)


def _check_opened(file: Message, seen: Seen | None, expected: Expected) -> None:
    """CRIU opens it as root. That a process of the container can, too, is held where it is no root's and stays none."""
    name = text(file.name)
    if seen is None or file.flags & _O_PATH:
        if seen and seen.link and not file.flags & _O_NOFOLLOW:
            raise IntegrityError(f"the checkpoint opens {name[:200]!r}, which is a symlink")
        return
    if seen.link:
        raise IntegrityError(f"the checkpoint opens {name[:200]!r}, which is a symlink")
    if stat.S_ISDIR(seen.mode) or expected.may("DAC_OVERRIDE") or expected.is_user(seen.uid):
        return  # who owns a file may have opened it under another mode
    granted = seen.mode & 7 | (seen.mode >> 3 & 7 if expected.is_in(seen.gid) else 0)
    writes = file.flags & _O_ACCMODE != os.O_RDONLY
    if writes and not granted & 2:
        raise IntegrityError(f"the checkpoint has {name[:200]!r} open to be written, which its container cannot open")
    # Programs that may be run and not read are open, too.
    if not writes and not granted & 5 and not expected.may("DAC_READ_SEARCH"):
        raise IntegrityError(f"the checkpoint has {name[:200]!r} open, which its container cannot read")


class _View:
    """What the filesystems of a container hold, those from outside and those in memory."""

    def __init__(self, images: Images, look: Look) -> None:
        self._images = images
        self._outside = look
        self._known: dict[tuple[str, str], Seen | None] = {}
        self._in_memory: dict[str, dict[str, Seen]] = {}

    def is_behind_a_symlink(self, mount: Message, path: str, *, surely: bool = False) -> bool:
        """Whether a directory on the way to `path` is a symlink; with `surely` also where that is not known."""
        for parent in reversed([str(each) for each in PurePosixPath(path).parents][:-1]):
            try:
                seen = self._find(mount, parent)
            except LookupError:
                return surely
            except UnsupportedError:
                if surely:
                    raise
                return False
            if seen is not None and seen.link:
                return True
        return False

    def look(self, mount: Message, path: str) -> Seen | None:
        """What is there, as far as it is known."""
        try:
            return self._find(mount, path)
        except (LookupError, UnsupportedError):
            return None

    def resolved(self, path: str, mounts: Mapping[int, Message]) -> str:
        """Where a path leads, symlinks followed as far as they are known (path_resolution(7)); none into a /proc."""
        done, waiting, left = "/", path.split("/")[::-1], _MOST_LINKS
        while waiting:
            part = waiting.pop()
            there = posixpath.normpath(posixpath.join(done, part))
            if is_magic(f"{there}/", mounts.values()):
                return f"{there}/"
            mount = _above(there, mounts)
            seen = self.look(mount, _below(there, mount) or ".") if part else None
            if seen and seen.link:
                left -= 1
                if not left:
                    raise IntegrityError(f"the checkpoint's {path[:200]!r} goes through too many symlinks")
                waiting.extend(seen.link.split("/")[::-1])
                done = "/" if seen.link.startswith("/") else done
            else:
                done = there
        return done

    def _find(self, mount: Message, path: str) -> Seen | None:
        if outside := text(mount.ext_key or (mount.mountpoint == "/" and "/") or ""):
            key = (outside, path)
            if key not in self._known:
                self._known[key] = self._outside(*key)
            return self._known[key]
        if mount.fstype != _TMPFS:
            return None  # the kernel's own, whose symlinks stay in it (for /proc see `files.is_magic`)
        inside = posixpath.normpath(posixpath.join(text(mount.root).lstrip("/"), path))
        for name in (f"tmpfs-dev-{mount.root_dev}.tar.gz", f"tmpfs-{mount.mnt_id}.tar.gz"):
            if found := self._memory(name).get(inside):
                return found
        return None

    def _memory(self, name: str) -> dict[str, Seen]:
        """The members of a filesystem in memory by their paths."""
        if name not in self._in_memory:
            found = self._in_memory[name] = {}
            for member in self._images.filesystem(name):
                link = member.link if member.type is FileType.SYMLINK else ""
                seen = Seen(link, member.uid, member.gid, _mode(member.type, member.mode))
                found[member.path] = found[member.link] if member.type is FileType.HARDLINK else seen
        return self._in_memory[name]


def _mode(kind: FileType, permissions: int) -> int:
    return permissions | (stat.S_IFDIR if kind is FileType.DIRECTORY else stat.S_IFREG)
