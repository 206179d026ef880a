"""The OCI hook that publishes what podman checkpointed, where no launcher stands in front of the runtime.

What a hook can see, and what not, is in ``hooks/README.md``. podman is never asked: it holds the container's lock.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from ocickpt import config
from ocickpt.description import Options
from ocickpt.engine.podman import database
from ocickpt.log import say, told
from ocickpt.model import Silent
from ocickpt.operations import journal, launcher
from ocickpt.save import collect, extras, intercept, unpublished


def push(container: str, bundle: str) -> int:
    """Publish the checkpoint of a container that has just ended with it; always 0, for it has ended.

    A container that was stopped or removed may have an older dump in its bundle, which is not of how it ended.
    """
    unpublished.settle_all(Silent(), container)
    try:
        found = database.read(Path(bundle))
        subject = found.container
        fresh = subject.checkpointed and (subject.image_path / "inventory.img").exists()
        if not fresh or collect.was_taken(found):
            return 0
        if launcher.installed(subject.runtime_path) or _somebody_is_at_it(container):
            collect.mark_taken(found)
            return 0
        settings = config.load()
        text, by_itself = collect.wanted(found, settings)
        if text:
            _package(found, text, quiet=not by_itself)
    except Exception as error:  # noqa: BLE001 - podman has its checkpoint, whatever it is
        say(f"the checkpoint of {container[:12]} is not published: {told(error)}", error=True)
    return 0


def _package(found: database.Recorded, text: str, *, quiet: bool) -> None:
    # The state says nothing of how it was dumped, but who runs us does, unless it is podman's service.
    words = Path(f"/proc/{os.getppid()}/cmdline").read_bytes().decode("utf-8", "replace").split("\0")
    options = Options(
        leave_running=False,
        tcp_established="--tcp-established" in words,
        file_locks="--file-locks" in words,
        rootfs=True,
        volumes=True,
    )
    made = collect.begin(found, text, options, running=False)
    try:
        collect.take_files(found, Path(made.record.work))
        # Its pid is still on record, and somebody else's by now.
        extras.take(replace(found.container, pid=0, conmon=0), Path(made.record.work))
        collect.take_images(found, Path(made.record.work))
        made.step("dumped")
    except BaseException:
        unpublished.drop(made)
        raise
    # Not in the background: the runtime's next dump would write to the very files that are linked.
    intercept.publish(made, background=False, quiet=quiet)


def _somebody_is_at_it(container: str) -> bool:
    """Whether an `ocickpt checkpoint` waits for this very dump."""
    return any(each.container == container and isinstance(each, journal.Checkpoint) for each in journal.records())
