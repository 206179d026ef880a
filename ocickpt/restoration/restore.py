"""The door of a restore: what may be asked for, what comes of it. `with_podman` does it.

podman and CRIU take a while to tell of themselves; they are asked first, and loading what a restore needs
takes as long. What brings memory later has as much to load, and does so meanwhile.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack

from ocickpt.engine import host
from ocickpt.engine.podman.roots import roots as podman_roots
from ocickpt.errors import PrerequisiteError
from ocickpt.lazy.helpers import Helpers
from ocickpt.model import Progress
from ocickpt.restoration.options import Preparation, Restored, RestoreOptions
from ocickpt.store import Access, Reference


def restore(
    ref: str, options: RestoreOptions, access: Access, progress: Progress, on_running: Callable[[], None]
) -> Restored:
    """Restore the artifact `ref`; when it fails, nothing of it is left. `on_running` is called once podman is done."""
    reference = Reference.parse(ref)
    if os.geteuid():
        raise PrerequisiteError("podman restores containers of root only", hint="run ocickpt as root")
    with ThreadPoolExecutor(4, "prepare") as pool, ExitStack() as stack:
        key = secrets.token_hex(16)
        helpers = pool.submit(Helpers, key) if options.lazy else None
        if helpers:
            stack.callback(helpers.add_done_callback, _dismiss)
        roots, facts = pool.submit(podman_roots), pool.submit(host.facts)
        from ocickpt.restoration import with_podman

        return with_podman.restore(
            reference, options, access, progress, Preparation(key, pool, roots, facts, helpers, on_running)
        )


def _dismiss(helpers: Future[Helpers]) -> None:
    if not helpers.exception():
        helpers.result().dismiss()
