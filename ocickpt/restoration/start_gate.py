"""The OCI hook that keeps a container from starting which is to be restored instead, and would not be.

For hosts where no launcher stands in front of the runtime, and as a second lock where one does. What a hook can see,
and what not, is in ``hooks/README.md``. podman is never asked: it holds the container's lock.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ocickpt import config, names, rendezvous
from ocickpt.errors import OcickptError, PrerequisiteError
from ocickpt.log import say, told
from ocickpt.restoration import on_create, policy


def check(container: str, bundle: str, annotations: Mapping[str, str]) -> int:
    """Let a container be created unless it is to be restored, and policy or this host is against it; 0 lets it."""
    text = annotations.get(names.ANNOTATION_RESTORE, "")
    # The shim is restoring it right now, or did when it was created: later starts are starts.
    restored = (rendezvous.CREATED / container).exists() or on_create.was_restored(Path(bundle), container)
    if not text or restored:
        return 0
    try:
        policy.pinned(text, config.load())
        raise PrerequisiteError(
            "it is to be restored instead of started, but its runtime is not called through ocickpt",
            hint="`ocickpt setup` puts the launcher in front of podman's runtimes",
        )
    except OcickptError as error:
        say(f"container {container[:12]} does not start: {told(error)}", error=True)
        return 1
