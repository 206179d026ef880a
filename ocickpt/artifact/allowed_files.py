"""Which files a checkpoint may consist of: an allow-list of names.

podman unpacks whatever an archive holds beside the container's bundle and acts on it: the paths in
``deleted.files`` are removed on the host with all that is below them. And CRIU follows what lies beside
its images: ``parent`` leads to other images. So nothing passes but what podman, the runtimes and CRIU
write in a dump and read in a restore, and ``extras.json``, which is ours.

Source: checkpointctl, lib/metadata.go; CRIU, criu/image-desc.c.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from ocickpt import names
from ocickpt.errors import UnsupportedError
from ocickpt.model import Entry, FileType, Kind

_FILE = re.compile(
    r"config\.dump|spec\.dump|extras\.json|network\.status|stats-dump|ctr\.log|devshm-checkpoint\.tar"
    r"|checkpoint/(descriptors\.json|(?!pages-)[A-Za-z0-9][A-Za-z0-9_-]*(\.tar\.gz)?\.img)"
)
_MEMORY = re.compile(r"checkpoint/pagemap-(shmem-)?\d+\.img", re.ASCII)
_VOLUME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*(/.*)?", re.DOTALL)


def check(entries: Iterable[Entry]) -> None:
    """UnsupportedError for a file that is no part of a checkpoint of podman as this version knows it."""
    for entry in entries:
        if not _known(entry):
            raise UnsupportedError(f"{entry.path[:200]!r} is no part of a checkpoint that this version knows")


def _known(entry: Entry) -> bool:
    if entry.type is FileType.PAGES:
        return bool(_MEMORY.fullmatch(entry.path.removeprefix(names.EAGER)))
    if entry.kind in (Kind.BOOT, Kind.STATE):
        return entry.type is FileType.REGULAR and bool(_FILE.fullmatch(entry.path))
    return entry.kind is not Kind.VOLUME or bool(_VOLUME.fullmatch(entry.path))
