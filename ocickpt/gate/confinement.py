"""What CRIU and the runtimes leave undone when they restore a container, for it to be what its specification says.

It is done right after podman's restore, for a moment the container runs without; where a container is restored
instead of started it is done before the container runs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from ocickpt import oci
from ocickpt.description import Security
from ocickpt.engine import criu, namespaces
from ocickpt.engine.container import Running
from ocickpt.engine.runtime import table
from ocickpt.errors import IntegrityError, NotFoundError, StorageError
from ocickpt.gate import profile
from ocickpt.gate.expected import Expected
from ocickpt.model import parse_json
from ocickpt.trust import process

_CONFIG = "bundle's config.json"
MOUNTS = re.compile(r"mountpoints-\d+\.img", re.ASCII)
"""The names of the images that list a container's mounts."""


def verify(container: Running, mountpoints: list[bytes], security: Security) -> None:
    """Complete what the runtime left undone, and ask the kernel; IntegrityError, NotFoundError when it has ended."""
    complete(container, mountpoints)
    if problem := process.unconfined(container.pid, security):
        raise IntegrityError(
            f"the restored container is not confined as it was ({problem}); it was removed",
            hint="`ocickpt doctor` tells whether this host's criu supports its security module",
        )


def complete(container: Running, mountpoints: Iterable[bytes]) -> None:
    """Confine and set the restored `container` as its specification says, and as these images of its mounts do.

    Raises NotFoundError when the container has ended meanwhile.
    """
    try:
        data = (container.bundle / "config.json").read_bytes()
    except OSError as error:
        raise StorageError(f"{error.filename} cannot be read: {error.strerror}") from error
    spec = oci.read_bundle(parse_json(data, _CONFIG), _CONFIG)
    expected = Expected.of(spec)
    try:
        _restrict_mounts(container.pid, expected, criu.mount_flags(mountpoints))
        _protect(container.pid, expected)
        _set_sysctls(container.pid, spec)
    except OSError as error:
        raise NotFoundError(
            f"the restored container's process {container.pid} is gone", hint="`podman logs` may tell why"
        ) from error
    runtime = table.RUNTIMES[container.runtime]
    if runtime.needs_filter and expected.seccomp:
        runtime.keep_filter(container.id, next(profile.compiled(expected.seccomp)))


def _restrict_mounts(pid: int, expected: Expected, flags: dict[str, int]) -> None:
    """Give mounts what they should have: what the specification says, and what they had."""
    restricting = sum(namespaces.FLAGS.values())
    wanted = {path: value & restricting for path, value in flags.items()}
    for path, mount in expected.mounts.items():
        wanted[path] = wanted.get(path, 0) | mount.flags
    loose = namespaces.loose(pid, wanted)
    if loose:
        namespaces.remount(pid, loose)
        loose = namespaces.loose(pid, wanted)
    if loose:
        raise IntegrityError(f"the restored container may do more with its mount {min(loose)!r} than it could")


def _protect(pid: int, expected: Expected) -> None:
    """Hide and protect what this host has in /proc and /sys, and the checkpoint's host had not."""
    masked, readonly = expected.masked, expected.readonly - expected.masked
    open_to_all = namespaces.seen(pid, masked, readonly)
    if open_to_all:
        namespaces.protect(pid, masked & open_to_all, readonly & open_to_all)
        open_to_all = namespaces.seen(pid, masked & open_to_all, readonly & open_to_all)
    if open_to_all:
        raise IntegrityError(f"the restored container is not kept from {min(open_to_all)!r}, as it should be")


def _set_sysctls(pid: int, spec: oci.Spec) -> None:
    ours = namespaces.network_settings(pid, spec.linux.sysctl)
    if ours:
        namespaces.set_sysctls(pid, ours)
