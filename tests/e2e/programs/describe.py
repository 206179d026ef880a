"""describe.py DIRECTORY…: every file below, with all that stat and listxattr say of it, as JSON. Runs in a container.

Contents are hashed. Left out is what a copy cannot have: inode numbers, change and access times, sizes of directories.
"""

import hashlib
import json
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

Attributes = dict[str, object]


def walk(top: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """`top` and all below it on the same file system, sorted."""
    device = top.lstat().st_dev
    pending = [top]
    while pending:
        path = pending.pop()
        status = path.lstat()
        if status.st_dev != device:
            continue
        yield path, status
        if stat.S_ISDIR(status.st_mode):
            pending += sorted(path.iterdir(), reverse=True)


def describe(path: Path, status: os.stat_result, first: dict[int, Path]) -> Attributes:
    """One file; `first` are the first names of those that have several."""
    found: Attributes = {
        "mode": oct(status.st_mode),
        "owner": (status.st_uid, status.st_gid),
        "mtime": status.st_mtime_ns,
        "xattrs": {
            name: os.getxattr(path, name, follow_symlinks=False).hex()
            for name in os.listxattr(path, follow_symlinks=False)
        },
    }
    if not stat.S_ISDIR(status.st_mode):
        found["size"] = status.st_size
        found["sparse"] = status.st_blocks * 512 < status.st_size
        found["links"] = status.st_nlink
        if status.st_nlink > 1:
            found["same as"] = str(first.setdefault(status.st_ino, path))
    if stat.S_ISREG(status.st_mode):
        with path.open("rb") as file:
            found["sha256"] = hashlib.file_digest(file, "sha256").hexdigest()
    if stat.S_ISLNK(status.st_mode):
        found["target"] = str(path.readlink())
    if stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
        found["device"] = (os.major(status.st_rdev), os.minor(status.st_rdev))
    return found


described = {}
for directory in sys.argv[1:]:
    names: dict[int, Path] = {}
    for path, status in walk(Path(directory)):
        described[str(path)] = describe(path, status, names)
json.dump(described, sys.stdout)
