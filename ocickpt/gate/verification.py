"""What a checkpoint would have podman, the runtime and CRIU do, held against what it may be, before they do it.

CRIU gives every process the credentials and filters its image names, whatever the OCI specification says,
and mounts what the images list: looking at the container afterwards would be too late. The rules are `gate`'s.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from ocickpt import oci
from ocickpt.artifact import origin, parts
from ocickpt.artifact.extras import Extras
from ocickpt.artifact.rebuild import Rebuilder
from ocickpt.description import Description
from ocickpt.engine import criu, podman
from ocickpt.engine.podman import config as libpod
from ocickpt.engine.podman.imported import Imported, import_config
from ocickpt.errors import IntegrityError
from ocickpt.gate import confinement, waits
from ocickpt.gate.cgroups import check_cgroups
from ocickpt.gate.check import check
from ocickpt.gate.expected import Expected
from ocickpt.gate.files import check_descriptors, check_tree
from ocickpt.gate.filters import counts
from ocickpt.gate.images import Images
from ocickpt.model import FileType, Kind
from ocickpt.trust import security

_IMAGES = "checkpoint/"
_DESCRIPTORS = "checkpoint/descriptors.json"
_MOUNTS = re.compile(rf"{_IMAGES}{confinement.MOUNTS.pattern}", re.ASCII)


def saved(rebuilder: Rebuilder) -> tuple[libpod.Record, oci.Saved]:
    """The container's configuration and OCI specification, not yet held against anything (see `verify`)."""
    return origin.configuration(rebuilder.file(parts.CONFIG)), origin.specification(rebuilder.file(parts.SPEC))


def imported_config(
    config: libpod.Record, spec: oci.Saved, beyond: Extras, shown: Description, roots: podman.Roots
) -> Imported:
    """The container as podman may get to see it, once it is the one that the description shows; IntegrityError."""
    found = import_config(config, spec, roots.graph, roots.volumes)
    if (found.id, found.name, found.image_id, found.runtime) != (
        shown.container.id,
        shown.container.name,
        shown.image.id,
        shown.runtime.name,
    ):
        raise IntegrityError("the checkpoint holds another container than its description shows")
    return found.making(beyond.volumes)


def verify(
    rebuilder: Rebuilder,
    config: libpod.Record,
    spec: oci.Saved,
    shown: Description,
    bundle: oci.Bundle | None = None,
) -> dict[str, bytes]:
    """Hold what is `saved` against what the description shows of the container's security, and CRIU's images against
    the specification: that of the `bundle` that they are to be restored in, if there is one already.

    What CRIU is to be given instead of some of them, by their names in the archive (`Rebuilder.replace`).
    Raises IntegrityError, UnsupportedError.
    """
    real = security.summary(spec, criu.images_lsm(rebuilder.file(parts.INVENTORY)), origin.labels(config.config))
    if real != shown.security:
        raise IntegrityError("the checkpoint's security settings are not those its description shows")
    expected = Expected.of(bundle or spec)
    if _DESCRIPTORS in rebuilder.small_files():
        check_descriptors(rebuilder.file(_DESCRIPTORS))
    found = of(rebuilder)
    instead = check(found, expected)
    check_cgroups(found, shown.container.id, expected, ignored=criu.ignores_cgroups(shown.runtime.name))
    check_tree(
        (
            (entry.path, entry.type, entry.major, entry.minor)
            for entry in rebuilder.index.files
            if entry.kind in (Kind.ROOTFS, Kind.VOLUME) and entry.type in (FileType.CHARACTER, FileType.BLOCK)
        ),
        expected,
    )
    instead |= waits.begun_again(found, instead)
    return {_IMAGES + name: data for name, data in instead.items()}


def of(rebuilder: Rebuilder) -> Images:
    """CRIU's images in a checkpoint; UnsupportedError for a file among them that is none."""
    return _images(rebuilder, rebuilder.file)


def filters(rebuilder: Rebuilder) -> dict[int, int]:
    """How many seccomp filters each thread will have, by its id inside, once `verify` has said what CRIU is given."""
    return counts(_images(rebuilder, rebuilder.written))


def _images(rebuilder: Rebuilder, read: Callable[[str], bytes]) -> Images:
    names = [path for path in rebuilder.small_files() if path.startswith(_IMAGES) and path != _DESCRIPTORS]
    return Images((path.removeprefix(_IMAGES) for path in names), lambda name: read(_IMAGES + name))


def mountpoints(rebuilder: Rebuilder) -> list[bytes]:
    """The images that list the mounts of the container, one for each mount namespace."""
    return [rebuilder.file(path) for path in rebuilder.small_files() if _MOUNTS.fullmatch(path)]
