"""Where the filesystems of a container lie on this host, and what is in them, for the paths of a checkpoint (`paths`).

CRIU follows paths as the host's root, and podman those of what the container has deleted of its image. What the
container's filesystems hold is known from this host where they are in place, else from the checkpoint's index and the
image.
"""

from __future__ import annotations

import errno
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path

from ocickpt import oci
from ocickpt.artifact.rebuild import Rebuilder
from ocickpt.engine.podman.imported import Imported
from ocickpt.errors import IntegrityError, StorageError, UnsupportedError
from ocickpt.gate import verification
from ocickpt.gate.expected import Expected, mounts_of
from ocickpt.gate.paths import Seen, check_paths
from ocickpt.model import Entry, FileType, Kind


def check_placed(rebuilder: Rebuilder, spec: oci.Spec, bundle: Path) -> None:
    """Hold the paths of the images against the files of the container of this `bundle`, which are in place.

    IntegrityError, UnsupportedError.
    """
    places = {path: Path(mount.source or "/") for path, mount in mounts_of(spec).items()}
    places["/"] = spec.root_in(bundle)

    def look(mountpoint: str, path: str) -> Seen | None:
        # Of what is mounted from elsewhere nothing is known: KeyError.
        return _seen(places[mountpoint], path)

    check_paths(verification.of(rebuilder), Expected.of(spec), look)


def check_packed(rebuilder: Rebuilder, imported: Imported, layers: Sequence[Path], hint: str) -> None:
    """Hold the paths of the images, and what was deleted, against what podman will unpack over the image's `layers`.

    IntegrityError, and UnsupportedError with that `hint` where the layers cannot be looked into.
    """
    _check_removals(rebuilder, layers, hint)
    brought = {kind: _entries(entry for _, entry in rebuilder.index.files_of(kind)) for kind in _TREES}
    volumes = {place: name for name, place in imported.volumes.items()}
    sources = {path: mount.source or "/" for path, mount in mounts_of(imported.spec).items()}

    def look(mountpoint: str, path: str) -> Seen | None:
        if mountpoint == "/":
            if path in brought[Kind.ROOTFS]:
                return brought[Kind.ROOTFS][path]
            if not layers:
                raise UnsupportedError(
                    "the container has deleted files open, and the layers of its image cannot be looked into here",
                    hint=hint,
                )
            return next(filter(None, (_seen(layer, path) for layer in layers)), None)
        source = sources[mountpoint]
        in_volume = f"{volumes.get(source, '')}/{path}"
        return brought[Kind.VOLUME].get(in_volume) or _seen(Path(source), path)

    check_paths(verification.of(rebuilder), Expected.of(imported.spec), look)


_NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP)
_TREES = (Kind.ROOTFS, Kind.VOLUME)
_FORMATS = {
    FileType.DIRECTORY: stat.S_IFDIR,
    FileType.SYMLINK: stat.S_IFLNK,
    FileType.CHARACTER: stat.S_IFCHR,
    FileType.BLOCK: stat.S_IFBLK,
    FileType.FIFO: stat.S_IFIFO,
}


def _seen(place: Path, path: str) -> Seen | None:
    """What is at a path below a place of this host, which itself may be named by a symlink."""
    try:
        found = (place / path).lstat() if path != "." else place.stat()
        link = str((place / path).readlink()) if stat.S_ISLNK(found.st_mode) else ""
    except OSError as error:
        if error.errno not in _NOT_THERE:
            raise StorageError(f"{place / path} cannot be looked at: {error.strerror}") from error
        return None
    return Seen(link, found.st_uid, found.st_gid, found.st_mode)


def _entries(entries: Iterable[Entry]) -> dict[str, Seen | None]:
    """What a checkpoint brings, by paths; a hard link is what it leads to."""
    found: dict[str, Seen | None] = {}
    links = dict[str, str]()
    for entry in entries:
        mode = entry.mode | _FORMATS.get(entry.type, stat.S_IFREG)
        found[entry.path] = Seen(entry.link if entry.type is FileType.SYMLINK else "", entry.uid, entry.gid, mode)
        if entry.type is FileType.HARDLINK:
            links[entry.path] = entry.link
        elif entry.type is FileType.WHITEOUT:
            found[entry.path] = None
    return {path: found.get(links.get(path, path)) for path in found}


def _check_removals(rebuilder: Rebuilder, layers: Sequence[Path], hint: str) -> None:
    """What podman removes of the image; where files are in place, none of it is left to podman."""
    for _, entry in rebuilder.index.files_of(Kind.ROOTFS):
        if entry.type is FileType.WHITEOUT:
            if not layers:
                raise UnsupportedError(
                    "the container has deleted files of its image, whose layers cannot be looked into here", hint=hint
                )
            parents = list(Path(entry.path).parents)[:-1]
            if any((layer / parent).is_symlink() for layer in layers for parent in parents):
                raise IntegrityError(f"the deleted file {entry.path[:200]!r} lies behind a symlink of the image")
