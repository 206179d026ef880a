"""What the shim does before a checkpoint that podman makes by itself. Standard library only: the shim loads this."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path

from ocickpt import names, rendezvous
from ocickpt.engine.runtime import command_line


def prepare(rest: list[str]) -> bool:
    """Make a checkpoint that podman makes by itself possible, and harmless to others; False when it cannot be made."""
    if any(rendezvous.LAZY.glob("*.json")):
        from ocickpt.errors import OcickptError
        from ocickpt.lazy import following
        from ocickpt.model import Silent

        try:
            following.wait_for_memory(command_line.container(rest, "checkpoint"), Silent())
        except OcickptError as error:
            sys.stderr.write(f"ocickpt: {error.message}\n")
            return False
    # CRIU writes into files that are there: not into those that a checkpoint of ours has as well.
    image_path = command_line.option(rest, "--image-path", "checkpoint")
    for pages in Path(image_path).glob("pages-*.img") if image_path else ():
        with contextlib.suppress(FileNotFoundError):
            if pages.stat().st_nlink > 1:
                pages.unlink()
    return True


def wanting_bundle(call: list[str], rest: list[str]) -> Path | None:
    """The bundle of a container, if something says that its checkpoints are to be published; `intercept` knows more."""
    image_path = command_line.option(rest, "--image-path", "checkpoint")
    bundle = Path(image_path).parent
    if not image_path or not (bundle / "config.json").is_file():
        told = subprocess.run(
            [*call, "state", command_line.container(rest, "checkpoint")],
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        try:
            bundle = Path(json.loads(told.stdout)["bundle"])
        except (ValueError, KeyError, TypeError):
            return None
    for path, word in ((bundle / "config.json", names.ANNOTATION_PUSH), (names.HOST_CONFIG, "repository")):
        with contextlib.suppress(OSError):
            if word.encode() in Path(path).read_bytes():
                return bundle
    return None
