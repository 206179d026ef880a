"""The shim's half of a restore that a flow waits for, and what it does of a container that waits for its `start`.

    shim                            flow
    {"event": "restore", …}     →   {"ok": true, …}    pages and files are in place; what to add to the runtime's call,
                                                       and how what it restores is held
                                    {"error": TEXT}    the runtime must not run
    {"event": "standing", …}    →   {"ok": true}       what was restored is as it should be, and may run
                                    {"error": TEXT}    it must not
    {"event": "restored", …}    →   {"ok": true}       what takes a runtime that knows it is done
                                    {"error": TEXT}    it must not run

Standard library only, and little of it: the shim loads this. `sequence` is the other end.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

from ocickpt import rendezvous
from ocickpt.engine.criu.configuration import ENVIRONMENT
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


def restore(key: str, call: list[str], rest: list[str]) -> int:
    """Do what ``RUNTIME restore …`` does, with memory and files that the flow brings; the exit status.

    What the runtime has restored runs when the flow has looked at it. Where that must not be, it has been said why.
    """
    given = command_line.read(rest, "restore")[0]
    bundle, image_path = (given.get(f"--{each}", "") for each in ("bundle", "image-path"))
    container = command_line.container(rest, "restore")
    flow = connect(key)
    asked: Asked = {
        "event": "restore",
        "bundle": bundle,
        "image_path": image_path,
        "conmon": os.getppid(),
        "criu_configuration": os.environ.get(ENVIRONMENT, ""),
    }
    answer: Answer = ask(flow, asked, _load) if flow else {}
    if not flow or not answer.get("ok"):
        _came_to_nothing(key, image_path)
        return _refuse(answer.get("error") or GONE)
    from ocickpt.restoration.held import Held, RefusedError

    def tell(message: Asked) -> None:
        told = ask(flow, message)
        if not told.get("ok"):
            raise RefusedError(told.get("error") or GONE)

    def look(first: int) -> None:
        tell({"event": "standing", "container": container, "pid": first})

    def settle() -> None:
        tell({"event": "restored"})

    place = answer.get("cgroup")
    held = Held(Path(answer["hold"]), Path(place) if place else None, look, settle)
    command = [*call, "restore", *answer.get("arguments", ()), *rest]
    try:
        status = held.call(command, os.environ | answer.get("environment", {}))
    except (RefusedError, OSError) as error:
        subprocess.run([*call, "delete", "--force", container], check=False, capture_output=True)
        _came_to_nothing(key, image_path)
        return _refuse(str(error))
    if status == 0:
        held.go()
    else:
        _came_to_nothing(key, image_path)
    return command_line.exit_status(status)


def _came_to_nothing(key: str, image_path: str) -> None:
    """Leave word for whoever puts right what the restore has left, if the flow is gone by then (`outcome`)."""
    if is_key(key):
        with contextlib.suppress(OSError, IndexError):
            (rendezvous.work_directory(Path(image_path).parents[3], key) / rendezvous.REFUSED).touch()


def _refuse(why: str) -> int:
    sys.stderr.write(f"ocickpt: {why}\n")
    return 1


def _load() -> None:
    from ocickpt.restoration import held  # noqa: F401 - while the flow is at work


def before_it_runs(call: list[str], verb: str, rest: list[str]) -> int:
    """`start`, `state` and `delete` of a container that stands still, for it was restored in its `create`."""
    if verb == "state":
        done = subprocess.run([*call, "state", *rest], check=False, stdout=subprocess.PIPE)
        sys.stdout.buffer.write(_PAUSED.sub(rb"\1created", done.stdout))
        return done.returncode
    named = command_line.container(rest, verb)
    waiting = rendezvous.CREATED / named
    what = ["resume", named] if verb == "start" else ["delete", *rest]
    status = subprocess.run([*call, *what], check=False).returncode
    if status == 0:
        if verb == "start":
            _thaw(Path(waiting.read_text("utf-8")))
        waiting.unlink(missing_ok=True)
    return status


def _thaw(bundle: Path) -> None:
    """Thaw the cgroup that the container of this `bundle` was frozen in: under systemd, crun's is one below it."""
    from ocickpt.engine import cgroups, freezer

    spec = json.loads((bundle / "config.json").read_bytes())
    if place := cgroups.place_of(str((spec.get("linux") or {}).get("cgroupsPath") or "")):
        with contextlib.suppress(FileNotFoundError):  # it has ended already, and its cgroup with it
            freezer.thaw(place)
