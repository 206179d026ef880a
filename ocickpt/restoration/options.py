"""What may be asked for of a restore, and what comes of it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from ocickpt import rendezvous
from ocickpt.engine import host, podman
from ocickpt.lazy.helpers import Helpers


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
    allow: tuple[str, ...] = ()
    """What it is to have of what podman gives nobody unasked (`asked`)."""
    lazy: bool = False


@dataclass(frozen=True)
class Restored:
    """A container that runs."""

    container_id: str
    name: str
    reference: str
    digest: str


@dataclass(frozen=True)
class Preparation:
    """What was begun before the rest of a restore was loaded."""

    key: str
    """What this restore is called in its journal, and its directory."""
    pool: ThreadPoolExecutor
    roots: Future[podman.Roots]
    facts: Future[host.Host]
    helpers: Future[Helpers] | None
    """Of a lazy restore: what will bring its memory, once it is told to."""
    on_running: Callable[[], None]
    """Is called when podman is done and memory follows; whether the container is confined is not known yet."""

    @property
    def work(self) -> Path:
        """The directory of this restore."""
        return rendezvous.work_directory(self.roots.result().graph, self.key)
