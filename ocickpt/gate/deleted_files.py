"""Whether the deleted files of a checkpoint lie where podman and CRIU would look for them, with no symlink on the way.

Both follow symlinks as the host's root: podman to remove what the container has deleted of its image, CRIU to make and
remove what processes have open still (`remaps`). What the container's filesystems hold is known from this host where
they are in place, else from the checkpoint's index and the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ocickpt import oci
from ocickpt.artifact.rebuild import Rebuilder
from ocickpt.engine.podman.imported import Imported
from ocickpt.errors import IntegrityError, UnsupportedError
from ocickpt.gate import verification
from ocickpt.gate.expected import mounts_of
from ocickpt.gate.remaps import check_remaps
from ocickpt.model import FileType, Kind


def check_placed(rebuilder: Rebuilder, spec: oci.Spec, bundle: Path) -> None:
    """Hold the images against the files of the container of this `bundle`, which are in place. IntegrityError."""
    places = {path: Path(mount.source or "/") for path, mount in mounts_of(spec).items()}
    places["/"] = spec.root_in(bundle)

    def is_symlink(mountpoint: str, path: str) -> bool:
        # Of what is mounted from elsewhere nothing is known.
        return mountpoint not in places or (places[mountpoint] / path).is_symlink()

    check_remaps(verification.of(rebuilder), is_symlink)


def check_packed(rebuilder: Rebuilder, imported: Imported, layers: Sequence[Path], hint: str) -> None:
    """Hold what was deleted against what podman will unpack over the image's `layers`.

    IntegrityError, and UnsupportedError with that `hint` where the layers cannot be looked into.
    """
    _check_removals(rebuilder, layers, hint)
    links = {
        (entry.kind, entry.path)
        for kind in (Kind.ROOTFS, Kind.VOLUME)
        for _, entry in rebuilder.index.files_of(kind)
        if entry.type is FileType.SYMLINK
    }
    volumes = {place: name for name, place in imported.volumes.items()}
    sources = {path: mount.source or "/" for path, mount in mounts_of(imported.spec).items()}

    def is_symlink(mountpoint: str, path: str) -> bool:
        if mountpoint == "/":
            if not layers:
                raise UnsupportedError(
                    "the container has deleted files open, and the layers of its image cannot be looked into here",
                    hint=hint,
                )
            return (Kind.ROOTFS, path) in links or any((layer / path).is_symlink() for layer in layers)
        source = sources.get(mountpoint)
        if source is None or (Path(source) / path).is_symlink():
            return True
        return source in volumes and (Kind.VOLUME, f"{volumes[source]}/{path}") in links

    check_remaps(verification.of(rebuilder), is_symlink)


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
