"""Deleted files that processes have open: CRIU makes them again by their paths, and takes their names away again.

It does so as the host's root, in a mount namespace that has the container's files below a directory of the host: a
symlink of the container's on the way would lead it to the host's own. The kernel tells paths without symlinks, so the
checkpoint of a process has none there.

Source: criu/files-reg.c (create_ghost, clean_one_remap), criu/mount-v2.c; images/remap-file-path.proto.
"""

from __future__ import annotations

import io
import posixpath
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import Final

from ocickpt.engine.files import archive
from ocickpt.errors import IntegrityError
from ocickpt.gate.images import Images, Message, text
from ocickpt.model import FileType

_REGULAR: Final = 1
_PROCFS: Final = 2
"""A remap by a process, not by a path."""


def check_remaps(images: Images, is_symlink: Callable[[str, str], bool]) -> None:
    """Refuse deleted files that lie behind a symlink. IntegrityError.

    `is_symlink` says whether a path is one, for ``(mount point, path below it)``: in the root filesystem ("/"), and
    where the container has a volume or a directory of the host. What it has in memory is in the images.
    """
    in_memory = None
    for mount, path in _remapped(images):
        parents = [str(each) for each in PurePosixPath(path).parents][:-1]
        outside = mount.ext_key or (mount.mountpoint == "/" and "/")
        if in_memory is None and parents and not outside:
            in_memory = _symlinks_in_memory(images)
        if any(is_symlink(text(outside), each) if outside else each in (in_memory or ()) for each in parents):
            raise IntegrityError(f"the deleted file {path[:200]!r} of the checkpoint lies behind a symlink")


def _remapped(images: Images) -> Iterator[tuple[Message, str]]:
    """The files that CRIU makes or removes: the mount they are on, and the path below it."""
    remaps = [each for each in images.messages("remap-fpath") if each.remap_type != _PROCFS]
    if not remaps:
        return
    mounts = {mount.mnt_id: mount for found in images.numbered("mountpoints").values() for mount in found}
    files = {each.id: each.reg for each in images.messages("files") if each.type == _REGULAR}
    for number in {number for each in remaps for number in (each.orig_id, each.remap_id)} & files.keys():
        name, mount = text(files[number].name), mounts.get(files[number].mnt_id)
        place = text(mount.mountpoint) if mount else ""
        if not mount or not f"{name}/".startswith(f"{place.rstrip('/')}/"):
            raise IntegrityError(f"the checkpoint's deleted file {name[:200]!r} is on no mount of its container")
        yield mount, posixpath.normpath(name.removeprefix(place).lstrip("/"))


def _symlinks_in_memory(images: Images) -> set[str]:
    """The symlinks in the container's own filesystems, wherever they are mounted."""
    return {
        posixpath.normpath(member.name)
        for name in images.names(r"tmpfs-(dev-)?\d+\.tar\.gz")
        for member in archive.nested(io.BytesIO(images.raw(name)), f"{name}.img")
        if member.type is FileType.SYMLINK
    }
