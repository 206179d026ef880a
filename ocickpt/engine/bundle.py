"""The bundle of a container: its specification, as the runtime reads it (runtime-spec, bundle.md and config.md)."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ocickpt import atomic
from ocickpt.errors import StorageError

_BINDS = {"bind", "rbind"}


def resolve_bind_sources(bundle: Path) -> None:
    """Have the bind mounts of a bundle name what their sources lead to on this host, in its ``config.json``.

    A runtime that creates a container follows a symlink there. CRIU, which is handed the source when it restores, does
    not, and mounts the symlink itself (criu/mount-v2.c, do_bind_mount_v2).

    StorageError when the specification cannot be read or written.
    """
    path = bundle / "config.json"
    try:
        spec = json.loads(path.read_bytes())
        changed = [_resolve(mount) for mount in spec.get("mounts") or ()]
        if any(changed):
            atomic.replace(path, json.dumps(spec).encode(), mode=path.stat().st_mode & 0o777)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise StorageError(f"{path} cannot be made to name what is to be mounted: {error}") from error


def _resolve(mount: dict[str, Any]) -> bool:
    """Whether the source of a mount was changed."""
    source = mount.get("source") or ""
    if not source.startswith("/") or (mount.get("type") != "bind" and _BINDS.isdisjoint(mount.get("options") or ())):
        return False
    found = os.path.realpath(source)
    if found == source or not Path(found).exists():
        return False
    mount["source"] = found
    return True
