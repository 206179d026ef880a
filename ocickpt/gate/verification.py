"""What a checkpoint would have podman, the runtime and CRIU do, held against what it may be, before they do it.

CRIU gives every process the credentials and filters its image names, whatever the OCI specification says,
and mounts what the images list: looking at the container afterwards would be too late. The rules are `gate`'s.
"""

from __future__ import annotations

import re
from typing import Any

from ocickpt.artifact import parts
from ocickpt.artifact.origin import labels
from ocickpt.artifact.rebuild import Rebuilder
from ocickpt.description import Description
from ocickpt.engine import criu, podman
from ocickpt.engine.podman import allowed
from ocickpt.engine.podman.imported import Imported, import_config
from ocickpt.errors import IntegrityError
from ocickpt.gate import confinement
from ocickpt.gate.check import check
from ocickpt.gate.expected import Expected
from ocickpt.gate.files import check_descriptors, check_tree
from ocickpt.gate.images import Images
from ocickpt.gate.tasks import check_cgroups
from ocickpt.model import FileType, Kind, parse_json
from ocickpt.trust import security

_IMAGES = "checkpoint/"
_DESCRIPTORS = "checkpoint/descriptors.json"
_MOUNTS = re.compile(rf"{_IMAGES}{confinement.MOUNTS.pattern}", re.ASCII)


def saved(rebuilder: Rebuilder) -> tuple[dict[str, Any], dict[str, Any]]:
    """The container's configuration and OCI specification, not yet held against anything (see `verify`)."""
    config = parse_json(rebuilder.file(parts.CONFIG), "container's configuration")
    spec = parse_json(rebuilder.file(parts.SPEC), "container's OCI specification")
    return config, spec


def imported_config(config: dict[str, Any], spec: dict[str, Any], shown: Description, roots: podman.Roots) -> Imported:
    """The container as podman may get to see it, once it is the one that the description shows; IntegrityError."""
    found = import_config(config, spec, roots.graph, roots.volumes)
    if (found.id, found.name, found.image_id, found.runtime) != (
        shown.container.id,
        shown.container.name,
        shown.image.id,
        shown.runtime.name,
    ):
        raise IntegrityError("the checkpoint holds another container than its description shows")
    return found


def verify(
    rebuilder: Rebuilder,
    config: dict[str, Any],
    spec: dict[str, Any],
    shown: Description,
    bundle: dict[str, Any] | None = None,
) -> None:
    """Hold what is `saved` against what the description shows of the container's security, and CRIU's images against
    the specification: that of the `bundle` that they are to be restored in, if there is one already.

    Raises IntegrityError, UnsupportedError.
    """
    real = security.summary(spec, criu.images_lsm(rebuilder.file(parts.INVENTORY)), labels(config))
    if real != shown.security:
        raise IntegrityError("the checkpoint's security settings are not those its description shows")
    expected = Expected.of(bundle or allowed.only(spec, allowed.SPEC, "OCI specification"))
    if _DESCRIPTORS in rebuilder.small_files():
        check_descriptors(rebuilder.file(_DESCRIPTORS))
    found = of(rebuilder)
    check(found, expected)
    check_cgroups(found, shown.container.id, expected, ignored=criu.ignores_cgroups(shown.runtime.name))
    check_tree(
        (
            (entry.path, entry.type, entry.major, entry.minor)
            for entry in rebuilder.index.files
            if entry.kind in (Kind.ROOTFS, Kind.VOLUME) and entry.type in (FileType.CHARACTER, FileType.BLOCK)
        ),
        expected,
    )


def of(rebuilder: Rebuilder) -> Images:
    """CRIU's images in a checkpoint; UnsupportedError for a file among them that is none."""
    names = [path for path in rebuilder.small_files() if path.startswith(_IMAGES) and path != _DESCRIPTORS]
    return Images((path.removeprefix(_IMAGES) for path in names), lambda name: rebuilder.file(_IMAGES + name))


def mountpoints(rebuilder: Rebuilder) -> list[bytes]:
    """The images that list the mounts of the container, one for each mount namespace."""
    return [rebuilder.file(path) for path in rebuilder.small_files() if _MOUNTS.fullmatch(path)]
