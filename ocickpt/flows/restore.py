"""The door of a restore: what may be asked for, what comes of it. `restoring.py` does it.

podman and CRIU take a while to tell of themselves; they are asked first, and loading what a restore needs
takes as long.
"""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from ocickpt.engine import host, podman
from ocickpt.errors import PrerequisiteError
from ocickpt.model import Progress
from ocickpt.store import Access, Reference


@dataclass(frozen=True)
class RestoreOptions:
    """What `podman container restore` calls by the same names."""

    name: str | None = None
    tcp_established: bool = False
    ignore_static_ip: bool = False
    ignore_static_mac: bool = False
    ignore_rootfs: bool = False
    ignore_volumes: bool = False
    publish: tuple[str, ...] = ()
    host_access: bool = False
    """Let it have the directories, devices and namespaces of the host that it had."""
    lazy: bool = False


@dataclass(frozen=True)
class Restored:
    """A container that runs."""

    container_id: str
    name: str
    reference: str
    digest: str


@dataclass(frozen=True)
class Aside:
    """What goes on beside the restore itself."""

    pool: ThreadPoolExecutor
    roots: Future[podman.Roots]
    facts: Future[host.Host]


def restore(ref: str, options: RestoreOptions, access: Access, progress: Progress) -> Restored:
    """Restore the artifact `ref`; when it fails, nothing of it is left on this host."""
    reference = Reference.parse(ref)
    if os.geteuid():
        raise PrerequisiteError("podman restores containers of root only", hint="run ocickpt as root")
    with ThreadPoolExecutor(4, "aside") as pool:
        aside = Aside(pool, pool.submit(podman.roots), pool.submit(host.facts))
        from ocickpt.flows import restoring

        return restoring.restore(reference, options, access, progress, aside)
