"""The shim's half of a restore that a flow waits for, and what it does of a container that waits for its `start`.

    shim                            flow
    {"event": "restore", …}     →   {"ok": true}       pages and files are in place; perhaps "arguments" to add, and
                                                       "environment"
                                    {"error": TEXT}    the runtime must not run

Standard library only, and little of it: the shim loads this. `sequence` is the other end.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from pathlib import Path

from ocickpt import rendezvous
from ocickpt.engine.runtime import command_line
from ocickpt.operations.asking import GONE, ask, connect, is_key

TYPE_CHECKING = False  # see `rendezvous`
if TYPE_CHECKING:
    from ocickpt.rendezvous import Answer, Asked

_PAUSED = re.compile(rb'("status"\s*:\s*")paused(?=")')


def key_in(image_path: str) -> str:
    """The key of the operation whose archive podman unpacked there; nothing when it is not one of ours."""
    try:
        return (Path(image_path) / rendezvous.MARKER).read_text("ascii").strip() if image_path else ""
    except (OSError, UnicodeDecodeError):
        return ""


def prepare(key: str, rest: list[str]) -> list[str] | None:
    """Have the flow bring memory and files; what is to be added to the runtime's arguments, once its environment is.

    None, and it has been said why, when the runtime must not restore.
    """
    given = command_line.read(rest, "restore")[0]
    bundle, image_path, pid_file = (given.get(f"--{each}", "") for each in ("bundle", "image-path", "pid-file"))
    flow = connect(key)
    asked: Asked = {
        "event": "restore",
        "bundle": bundle,
        "image_path": image_path,
        "pid_file": pid_file,
        "conmon": os.getppid(),
        "criu_configuration": os.environ.get("CRIU_CONFIG_FILE", ""),
    }
    answer: Answer = ask(flow, asked, _load) if flow else {}
    if not answer.get("ok"):
        if is_key(key):
            with contextlib.suppress(OSError, IndexError):
                (rendezvous.work_directory(Path(image_path).parents[3], key) / rendezvous.REFUSED).touch()
        sys.stderr.write(f"ocickpt: {answer.get('error') or GONE}\n")
        return None
    os.environ.update(answer.get("environment") or {})
    return [str(each) for each in answer.get("arguments") or ()]


def _load() -> None:
    from ocickpt.engine.runtime import calling  # noqa: F401 - while the flow is at work


def before_it_runs(call: list[str], verb: str, rest: list[str]) -> int:
    """`start`, `state` and `delete` of a container that stands still, for it was restored in its `create`."""
    if verb == "state":
        done = subprocess.run([*call, "state", *rest], check=False, stdout=subprocess.PIPE)
        sys.stdout.buffer.write(_PAUSED.sub(rb"\1created", done.stdout))
        return done.returncode
    named = command_line.container(rest, verb)
    what = ["resume", named] if verb == "start" else ["delete", *rest]
    status = subprocess.run([*call, *what], check=False).returncode
    if status == 0:
        (rendezvous.CREATED / named).unlink(missing_ok=True)
    return status
