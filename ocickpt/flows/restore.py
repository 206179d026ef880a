"""The door of a restore: what may be asked for, what comes of it. `restoring.py` does it.

podman and CRIU take a while to tell of themselves; they are asked first, and loading what a restore needs
takes as long. What brings memory later has as much to load, and does so meanwhile.
"""

from __future__ import annotations

import os
import secrets
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from ocickpt.engine import host, podman
from ocickpt.engine.roots import roots as podman_roots
from ocickpt.errors import PrerequisiteError
from ocickpt.flows.helpers import Helpers
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

    key: str
    """What this restore is called in its journal, and its directory."""
    pool: ThreadPoolExecutor
    roots: Future[podman.Roots]
    facts: Future[host.Host]
    helpers: Future[Helpers] | None
    """Of a lazy restore: what will bring its memory, once it is told to."""

    @property
    def work(self) -> Path:
        """The directory of this restore."""
        return self.roots.result().graph / "ocickpt" / self.key


def restore(ref: str, options: RestoreOptions, access: Access, progress: Progress) -> Restored:
    """Restore the artifact `ref`; when it fails, nothing of it is left on this host."""
    reference = Reference.parse(ref)
    if os.geteuid():
        raise PrerequisiteError("podman restores containers of root only", hint="run ocickpt as root")
    with ThreadPoolExecutor(4, "aside") as pool, ExitStack() as stack:
        key = secrets.token_hex(16)
        helpers = pool.submit(Helpers, key) if options.lazy else None
        if helpers:
            stack.callback(helpers.add_done_callback, _dismiss)
        roots, facts = pool.submit(podman_roots), pool.submit(host.facts)
        from ocickpt.flows import restoring

        return restoring.restore(reference, options, access, progress, Aside(key, pool, roots, facts, helpers))


def _dismiss(helpers: Future[Helpers]) -> None:
    if not helpers.exception():
        helpers.result().dismiss()
