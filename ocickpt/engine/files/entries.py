"""What an entry of a tree may say, so that nothing is touched for one that may not be."""

from __future__ import annotations

from collections.abc import Sequence

from ocickpt.errors import IntegrityError
from ocickpt.model import MAX_PATH, Entry, FileType

DIRECTORIES = FileType.DIRECTORY, FileType.OPAQUE
NODES = frozenset(
    (
        FileType.REGULAR,
        FileType.SYMLINK,
        FileType.HARDLINK,
        FileType.CHARACTER,
        FileType.BLOCK,
        FileType.FIFO,
    )
)
_MAX_ID = (1 << 32) - 1
"""Which means "leave it" to chown(2)."""
_MAX_ATTRIBUTE = 64 * 1024
_CARRIED = frozenset(("security.capability", "system.posix_acl_access", "system.posix_acl_default"))
_OVERLAYS = "trusted.overlay.", "user.overlay."


def carried(name: str) -> bool:
    """Whether the extended attribute `name` is part of a checkpoint.

    Users' and trusted ones, file capabilities and ACLs are. Overlay's own describe the layers of the
    host that made them, labels and integrity hashes belong to the host's policy: neither may travel.
    """
    return name in _CARRIED or (name.startswith(("user.", "trusted.")) and not name.startswith(_OVERLAYS))


def check_path(path: str) -> str:
    """`path` if it is a plain relative path, or ``.``; IntegrityError otherwise."""
    try:
        length = len(path.encode("utf-8", "surrogateescape"))
    except UnicodeEncodeError as error:
        raise IntegrityError(f"{path[:200]!r} is not a path") from error
    if path != "." and ("\0" in path or {"", ".", ".."} & {*path.split("/")} or length > MAX_PATH):
        raise IntegrityError(f"{path[:200]!r} is not a path inside a tree")
    return path


def check_tree(entries: Sequence[tuple[str, Entry]]) -> None:
    """Refuse with IntegrityError what cannot be a tree; `entries` are (path within it, entry)."""
    types: dict[str, FileType] = {}
    for path, entry in entries:
        if entry.type is FileType.WHITEOUT and path != ".":
            continue
        if path in types:
            raise IntegrityError(f"{path[:200]!r} comes twice")
        types[path] = entry.type
        if entry.type not in (DIRECTORIES if path == "." else (*DIRECTORIES, *NODES)):
            raise IntegrityError(f"{path[:200]!r} cannot be a {entry.type.name}")
        _check_values(path, entry)
    for path in types:
        parts = path.split("/")
        for depth in range(1, len(parts)):
            if types.get("/".join(parts[:depth])) in NODES:
                raise IntegrityError(f"{path[:200]!r} is inside of what is no directory")


def _check_values(path: str, entry: Entry) -> None:
    numbers = (
        (entry.uid, _MAX_ID),
        (entry.gid, _MAX_ID),
        (entry.size, 1 << 62),
        (abs(entry.mtime), 1 << 63),
        (entry.major, 1 << 12),
        (entry.minor, 1 << 20),
    )
    if any(not 0 <= number < limit for number, limit in numbers):
        raise IntegrityError(f"{path[:200]!r} has an owner, size, time or device that cannot be")
    if entry.type is FileType.SYMLINK and (not entry.link or "\0" in entry.link):
        raise IntegrityError(f"{path[:200]!r} is a symlink to nothing")
    if entry.size and entry.type is not FileType.REGULAR:
        raise IntegrityError(f"{path[:200]!r} is no regular file but has a size")
    for name, value in entry.xattrs:
        if not carried(name) or "\0" in name or len(value) > _MAX_ATTRIBUTE:
            raise IntegrityError(f"{path[:200]!r} has the attribute {name[:100]!r}, which may not travel")
