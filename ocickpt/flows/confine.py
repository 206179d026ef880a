"""What CRIU and the runtimes leave undone when they restore a container, for it to be what it was.

It is done right after podman's restore, for a moment the container runs without; where a container is restored
instead of started it is done before the container runs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ocickpt.engine import criu, crun, namespaces, podman
from ocickpt.errors import IntegrityError, NotFoundError, StorageError
from ocickpt.model import parse_json

MOUNTS = re.compile(r"mountpoints-\d+\.img", re.ASCII)
"""The names of the images that list a container's mounts."""


@dataclass(frozen=True)
class EarlyFilter:
    """A seccomp profile, and what crun compiles of it while other things are done."""

    profile: dict[str, Any]
    compiled: Future[bytes]

    @classmethod
    def begin(cls, pool: Executor, spec: dict[str, Any], work: Path) -> EarlyFilter:
        """Have the profile of `spec` compiled in `pool`, with files in `work`."""
        profile = crun.profile_of(spec)
        return cls(profile, pool.submit(crun.compile_filter, profile, work))


def complete(
    container: podman.Running, mountpoints: Iterable[bytes], work: Path, early: EarlyFilter | None = None
) -> None:
    """Confine and set the restored `container` like the one whose `mountpoints` images these are.

    Files are made in `work`. crun's filter may have been begun `early`. Raises NotFoundError when the container has
    ended meanwhile.
    """
    try:
        spec = parse_json((container.bundle / "config.json").read_bytes(), "bundle's config.json")
    except OSError as error:
        raise StorageError(f"{error.filename} cannot be read: {error.strerror}") from error
    try:
        _restrict_mounts(container.pid, criu.mount_flags(mountpoints))
        _set_sysctls(container.pid, spec)
    except OSError as error:
        raise NotFoundError(
            f"the restored container's process {container.pid} is gone", hint="`podman logs` may tell why"
        ) from error
    if container.runtime == "crun":
        profile = crun.profile_of(spec)
        if early and early.profile == profile:
            crun.keep_filter(container.id, spec, early.compiled.result)
        else:
            crun.keep_filter(container.id, spec, lambda: crun.compile_filter(profile, work))


def _restrict_mounts(pid: int, flags: dict[str, int]) -> None:
    restricting = sum(namespaces.FLAGS.values())
    wanted = {path: value & restricting for path, value in flags.items()}
    loose = namespaces.loose(pid, wanted)
    if loose:
        namespaces.remount(pid, loose)
        loose = namespaces.loose(pid, wanted)
    if loose:
        raise IntegrityError(f"the restored container may do more with its mount {min(loose)!r} than it could")


def _set_sysctls(pid: int, spec: dict[str, Any]) -> None:
    values = (spec.get("linux") or {}).get("sysctl") or {}
    ours = namespaces.network_settings(pid, {str(name): str(value) for name, value in values.items()})
    if ours:
        namespaces.set_sysctls(pid, ours)
