"""OCI hooks, for hosts where no launcher stands in front of the runtime, and as a second lock where one does.

What a hook can see, and what not, is in ``hooks/README.md``. podman is never asked: it holds the container's lock.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from ocickpt import config, names, shim
from ocickpt.engine import libpoddb
from ocickpt.errors import OcickptError, PrerequisiteError
from ocickpt.flows import instead, intercept, journal, package, policy, setup, unpublished
from ocickpt.flows.tell import say, told
from ocickpt.model import Silent


def gate(container: str, bundle: str, annotations: Mapping[str, str]) -> int:
    """Let a container be created unless it is to be restored, and policy or this host is against it; 0 lets it."""
    text = annotations.get(names.ANNOTATION_RESTORE, "")
    # The shim is restoring it right now, or did when it was created: later starts are starts.
    restored = (shim.CREATED / container).exists() or instead.was_restored(Path(bundle), container)
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


def push(container: str, bundle: str) -> int:
    """Publish the checkpoint of a container that has just ended with it; always 0, for it has ended.

    A container that was stopped or removed may have an older dump in its bundle, which is not of how it ended.
    """
    unpublished.settle_all(Silent(), container)
    try:
        found = libpoddb.read(Path(bundle))
        subject = found.container
        fresh = subject.checkpointed and (subject.image_path / "inventory.img").exists()
        if not fresh or package.was_taken(found):
            return 0
        if setup.installed(subject.runtime_path) or _somebody_is_at_it(container):
            package.mark_taken(found)
            return 0
        settings = config.load()
        text = package.wanted(found, settings)
        if text:
            _package(found, text)
    except Exception as error:  # noqa: BLE001 - podman has its checkpoint, whatever it is
        say(f"the checkpoint of {container[:12]} is not published: {told(error)}", error=True)
    return 0


def _package(found: libpoddb.Recorded, text: str) -> None:
    # The state says nothing of how it was dumped, but who runs us does, unless it is podman's service.
    words = Path(f"/proc/{os.getppid()}/cmdline").read_bytes().decode("utf-8", "replace").split("\0")
    options = {name: option in words for name, option in intercept.OPTIONS.items()}
    made = package.begin(found, text, leave_running=False, options=options)
    try:
        package.take_files(found, Path(made.record.work))
        package.take_images(found, Path(made.record.work))
        made.step("dumped")
    except BaseException:
        unpublished.drop(made)
        raise
    # Not in the background: the runtime's next dump would write to the very files that are linked.
    intercept.publish(made, background=False)


def _somebody_is_at_it(container: str) -> bool:
    """Whether an `ocickpt checkpoint` waits for this very dump."""
    return any(each.container == container and each.verb == journal.CHECKPOINT for each in journal.records())
