"""The bundle of a container: its specification, as the runtime reads it (runtime-spec, bundle.md and config.md)."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ocickpt import atomic
from ocickpt.engine.files import openat2
from ocickpt.errors import StorageError

_BINDS = {"bind", "rbind"}


def bind_symlinks(bundle: Path, pid: int) -> dict[str, str]:
    """Those bind sources of a container that runs as `pid` which lead to elsewhere on this host by symlinks, and where.

    Only where what it has mounted is still there: a directory that it shares with the host may have the source of
    another bind in it, and the container may have put a symlink of its own in that place.

    StorageError when the specification cannot be read.
    """
    found = {}
    for mount in _binds(_read(bundle)):
        source = mount["source"]
        if (real := os.path.realpath(source)) != source and _is_mounted(real, pid, mount.get("destination") or ""):
            found[source] = real
    return found


def resolve_bind_sources(bundle: Path, known: Mapping[str, str] | None = None) -> None:
    """Have the bind mounts of a bundle name what their sources lead to on this host, in its ``config.json``.

    A runtime that creates a container follows a symlink there. CRIU, which is handed the source when it restores, does
    not, and mounts the symlink itself (criu/mount-v2.c, do_bind_mount_v2).

    Where a container has run that may have made symlinks, only those that are `known` are followed (`bind_symlinks`).
    StorageError for another one, and when the specification cannot be read or written.
    """
    path, spec = bundle / "config.json", _read(bundle)
    changed = False
    for mount in _binds(spec):
        source = mount["source"]
        found = os.path.realpath(source)
        if known is not None and found != known.get(source, source):
            raise StorageError(f"{source}, which the container has mounted, leads to {found} by now")
        if found != source and Path(found).exists():
            mount["source"], changed = found, True
    if changed:
        try:
            atomic.replace(path, json.dumps(spec).encode(), mode=path.stat().st_mode & 0o777)
        except OSError as error:
            raise StorageError(f"{path} cannot be written: {error.strerror}") from error


def _read(bundle: Path) -> Any:
    path = bundle / "config.json"
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise StorageError(f"{path} cannot be read: {error}") from error


def _binds(spec: Any) -> Iterator[dict[str, Any]]:
    """The mounts that bind an absolute path; StorageError for a specification that is none."""
    try:
        for mount in spec.get("mounts") or ():
            absolute = (mount.get("source") or "").startswith("/")
            if absolute and (mount.get("type") == "bind" or not _BINDS.isdisjoint(mount.get("options") or ())):
                yield mount
    except (TypeError, AttributeError) as error:
        raise StorageError(f"a bundle's config.json is not what a runtime takes: {error}") from error


def _is_mounted(path: str, pid: int, destination: str) -> bool:
    """Whether a container has that file of the host at its `destination`, no symlink of its own followed out of it."""
    try:
        root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            place = openat2.openat2(root, destination, os.O_PATH, resolve=openat2.RESOLVE_IN_ROOT)
        finally:
            os.close(root)
        try:
            return os.path.samestat(os.fstat(place), Path(path).stat())
        finally:
            os.close(place)
    except OSError:
        return False
