"""A restored container, before its first instruction: what CRIU and the runtimes left undone is done, and then the
kernel says whether it is what its specification describes (`gate.kernel`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from ocickpt import oci
from ocickpt.engine import criu, freezer, namespaces
from ocickpt.engine.container import Running
from ocickpt.engine.runtime import table
from ocickpt.errors import IntegrityError, NotFoundError, StorageError
from ocickpt.gate import profile
from ocickpt.gate.expected import RDONLY, Expected
from ocickpt.gate.kernel import descriptors, mounts, tasks
from ocickpt.model import parse_json

_CONFIG = "bundle's config.json"
MOUNTS = re.compile(r"mountpoints-\d+\.img", re.ASCII)
"""The names of the images that list a container's mounts."""


def verify(container: Running, mountpoints: Iterable[bytes], filters: Mapping[int, int]) -> None:
    """Complete what the runtime left undone, and ask the kernel. The container stands still meanwhile.

    `mountpoints` are CRIU's images of its mounts, whose flags they keep; `filters` says how many seccomp filters each
    thread has to have, by its id inside. Raises IntegrityError, NotFoundError when a process of it has ended.
    """
    spec = specification(container.bundle)
    expected = Expected.of(spec)
    with _ends(container):
        _complete(container.pid, spec, expected, mountpoints)
        tree = freezer.tree(container.pid)
        tasks.check(container, tree, spec, expected, filters)
        for pid in tasks.mount_namespaces(tree):
            mounts.check(pid, spec, container.bundle, expected)
        descriptors.check(container, tree, expected)


def complete(container: Running, mountpoints: Iterable[bytes]) -> None:
    """As `verify` does, and no more, for a container that this host has dumped and restored, and that runs again."""
    spec = specification(container.bundle)
    with _ends(container):
        _complete(container.pid, spec, Expected.of(spec), mountpoints)
    confine_exec(container)


@contextmanager
def _ends(container: Running) -> Iterator[None]:
    """What keeps from looking: NotFoundError when its first process is gone, else IntegrityError."""
    try:
        yield
    except OSError as error:
        if freezer.tree(container.pid):
            raise IntegrityError(f"the restored container {container.name!r} cannot be looked at: {error}") from error
        raise NotFoundError(
            f"a process of the restored container {container.name!r} is gone: {error}",
            hint="`podman logs` may tell why",
        ) from error


def _complete(pid: int, spec: oci.Bundle, expected: Expected, mountpoints: Iterable[bytes]) -> None:
    _restrict_mounts(pid, expected, criu.mount_flags(mountpoints))
    _protect(pid, expected)
    _set_sysctls(pid, spec)


def confine_exec(container: Running) -> None:
    """Have what the runtime starts in a restored container confined like its own processes."""
    runtime, expected = table.RUNTIMES[container.runtime], Expected.of(specification(container.bundle))
    if runtime.needs_filter and expected.seccomp:
        runtime.keep_filter(container.id, next(profile.compiled(expected.seccomp)))


def specification(bundle: Path) -> oci.Bundle:
    """What an engine of this host has written of a container; StorageError, IntegrityError."""
    try:
        data = (bundle / "config.json").read_bytes()
    except OSError as error:
        raise StorageError(f"{error.filename} cannot be read: {error.strerror}") from error
    return oci.read_bundle(parse_json(data, _CONFIG), _CONFIG)


def _restrict_mounts(pid: int, expected: Expected, flags: dict[str, int]) -> None:
    """Give mounts what they should have: what the specification says, and what they had."""
    restricting = sum(namespaces.FLAGS.values())
    wanted = {path: value & restricting for path, value in flags.items()}
    for path, mount in expected.mounts.items():
        wanted[path] = wanted.get(path, 0) | mount.flags
    for path in expected.masked:  # one of the directories that crun masks is writable after a restore of podman's own
        if Path(f"/proc/{pid}/root{path}").is_dir():
            wanted[path] = wanted.get(path, 0) | RDONLY
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
