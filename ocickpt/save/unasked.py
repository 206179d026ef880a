"""What the shim does before a checkpoint that podman makes by itself. Standard library only: the shim loads this."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path

from ocickpt import names, rendezvous
from ocickpt.engine.runtime import command_line

_VERB = "checkpoint"
_SELINUX = Path("/sys/fs/selinux")


def prepare(call: list[str], rest: list[str]) -> bool:
    """Make a checkpoint that podman makes by itself possible, and harmless to others; False when it cannot be made."""
    from ocickpt.errors import OcickptError

    container, image_path = command_line.container(rest, _VERB), command_line.option(rest, "--image-path", _VERB)
    runs_on = any(command_line.flag(rest, each, _VERB) for each in ("--leave-running", "--pre-dump"))
    try:
        if any(rendezvous.LAZY.glob("*.json")):
            from ocickpt.lazy import following
            from ocickpt.model import Silent

            following.wait_for_memory(container, Silent())
        # What no restore here can bring back must not be ended; where it runs on, the dump is podman's affair.
        if _SELINUX.is_dir() and not runs_on and (bundle := _bundle(call, rest)):
            from ocickpt.save import labels

            labels.check_kept(container, bundle)
    except OcickptError as error:
        sys.stderr.write(f"ocickpt: {error.message}\n")
        return False
    # CRIU writes into files that are there: not into those that a checkpoint of ours has as well.
    for pages in Path(image_path).glob("pages-*.img") if image_path else ():
        with contextlib.suppress(FileNotFoundError):
            if pages.stat().st_nlink > 1:
                pages.unlink()
    return True


def wanting_bundle(call: list[str], rest: list[str]) -> Path | None:
    """The bundle of a container, if something says that its checkpoints are to be published; `intercept` knows more."""
    if bundle := _bundle(call, rest):
        for path, word in ((bundle / "config.json", names.ANNOTATION_PUSH), (names.HOST_CONFIG, "repository")):
            with contextlib.suppress(OSError):
                if word.encode() in Path(path).read_bytes():
                    return bundle
    return None


def _bundle(call: list[str], rest: list[str]) -> Path | None:
    """Where podman has the images written, if that is a bundle; else what the runtime says; None where it has none."""
    image_path = command_line.option(rest, "--image-path", _VERB)
    bundle = Path(image_path).parent
    if image_path and (bundle / "config.json").is_file():
        return bundle
    told = subprocess.run(
        [*call, "state", command_line.container(rest, _VERB)],
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        return Path(json.loads(told.stdout)["bundle"])
    except (ValueError, KeyError, TypeError):
        return None
