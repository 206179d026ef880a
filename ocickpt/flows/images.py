"""What CRIU's images would have CRIU do as root, held against what the description shows, before it does it.

CRIU gives every process the credentials and filters its image names, whatever the OCI specification says,
and mounts what the images list: looking at the container afterwards would be too late.
"""

from __future__ import annotations

import re
from typing import Any

from ocickpt.description import Description, Security
from ocickpt.engine import criu
from ocickpt.errors import IntegrityError
from ocickpt.flows import confine
from ocickpt.flows import contents as parts
from ocickpt.flows.describe import labels
from ocickpt.flows.rebuild import Rebuilder
from ocickpt.model import FileType, parse_json
from ocickpt.trust import process, security

_CORE = re.compile(r"checkpoint/core-\d+\.img", re.ASCII)
_SECCOMP = re.compile(r"checkpoint/seccomp\.img")
_MOUNTS = re.compile(rf"checkpoint/{confine.MOUNTS.pattern}", re.ASCII)


def saved(rebuilder: Rebuilder) -> tuple[dict[str, Any], dict[str, Any]]:
    """The container's configuration and OCI specification, not yet held against anything (see `verify`)."""
    config = parse_json(rebuilder.file(parts.CONFIG), "container's configuration")
    spec = parse_json(rebuilder.file(parts.SPEC), "container's OCI specification")
    return config, spec


def verify(rebuilder: Rebuilder, config: dict[str, Any], spec: dict[str, Any], shown: Description) -> None:
    """Hold what is `saved`, and CRIU's images, against what the description shows of the container's security.

    Raises IntegrityError, UnsupportedError.
    """
    real = security.summary(spec, criu.images_lsm(rebuilder.file(parts.INVENTORY)), labels(config))
    if real != shown.security:
        raise IntegrityError("the checkpoint's security settings are not those its description shows")
    check(rebuilder, real)


def check(rebuilder: Rebuilder, shown: Security) -> None:
    """Refuse images of processes that may do more than `shown`, or that mount filesystems of the host.

    Raises IntegrityError, UnsupportedError.
    """
    synchronized = all(criu.synchronized(rebuilder.file(name)) for name in _named(rebuilder, _SECCOMP))
    for name in _named(rebuilder, _CORE):
        found = criu.confinement(rebuilder.file(name), synchronized=synchronized)
        problem = process.weaker(found, shown) or process.unlabelled(found, shown) if found else ""
        if problem:
            raise IntegrityError(f"a process of the checkpoint is not confined as its description shows ({problem})")
    criu.check_mounts(mountpoints(rebuilder))


def mountpoints(rebuilder: Rebuilder) -> list[bytes]:
    """The images that list the mounts of the container, one for each mount namespace."""
    return [rebuilder.file(name) for name in _named(rebuilder, _MOUNTS)]


def _named(rebuilder: Rebuilder, pattern: re.Pattern[str]) -> list[str]:
    return [
        entry.path
        for entry in rebuilder.index.files
        if entry.type is FileType.REGULAR and pattern.fullmatch(entry.path)
    ]
