"""The shim's half of a checkpoint that a flow waits for: the container is dumped while it stands still.

    shim                            flow
    {"event": "checkpoint", …}  →   {"ok": true, "aside": DIR, "trees": [[SOURCE, TARGET], …], "kill": BOOL, "pid": PID}
        the container is frozen; the trees are copied, the runtime dumps, the pages go aside
    {"event": "captured", …}    →   {"ok": true}       everything is safe in DIR
        the container is killed where it stands; with --leave-running it runs on

Up to that "ok" nothing has happened to the container but that it stood still: whatever goes wrong,
and whoever dies, it runs on. Without "kill" (established TCP connections would be reset) CRIU ends the
container with the dump, so the flow is asked before that. Without "aside" the runtime just dumps.

`dump` is the other end. All of this is loaded before the container is frozen, so it is not much.
"""

from __future__ import annotations

import io
import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

from ocickpt import rendezvous
from ocickpt.engine import freezer, interrupted
from ocickpt.engine.criu import pages
from ocickpt.engine.files import capture
from ocickpt.engine.runtime import command_line
from ocickpt.errors import OcickptError
from ocickpt.operations.asking import GONE, ask

TYPE_CHECKING = False  # see `rendezvous`
if TYPE_CHECKING:
    from ocickpt.rendezvous import Answer

_PATIENCE = 60.0


def checkpoint(flow: io.BufferedRWPair, call: list[str], rest: list[str]) -> int:
    """Do what ``RUNTIME checkpoint …`` does, for the flow; `call` is what comes before the verb. The exit status."""
    container = command_line.container(rest, "checkpoint")
    image_path, keep = Path(command_line.option(rest, "--image-path", "checkpoint")), _leaves_running(rest)
    resume = [*call, "resume", container]
    plan = ask(flow, {"event": "checkpoint", "image_path": str(image_path), "resume": resume})
    if not plan.get("ok"):
        sys.stderr.write(f"ocickpt: {plan.get('error') or GONE}\n")
        return 1
    if "aside" not in plan:
        command_line.become(call[0], [*call[1:], "checkpoint", *rest])
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)  # what is begun is brought to an end: nothing stays frozen
    if subprocess.run([*call, "pause", container], check=False).returncode:
        ask(flow, {"event": "captured", "error": "it could not be paused"})
        return 1
    status = 1
    try:
        status = _dump_frozen(flow, call, rest, image_path, plan)
    finally:
        if status or keep:
            _wait_on(plan["pid"])
            subprocess.run(resume, check=False)
    return command_line.exit_status(status)


def _dump_frozen(flow: io.BufferedRWPair, call: list[str], rest: list[str], image_path: Path, plan: Answer) -> int:
    """Dump a frozen container; when this does not give back 0, the container is to run on."""
    aside, podman, keep = Path(plan["aside"]), os.getppid(), _leaves_running(rest)
    kill = plan.get("kill") and not keep

    def agreed() -> bool:
        return bool(ask(flow, {"event": "captured", "error": ""}).get("ok")) and os.getppid() == podman

    try:
        freezer.wait(plan["pid"])
        for source, target, *merged in plan["trees"]:
            capture.capture(Path(source), Path(target), *map(Path, merged))
        if not keep and not kill and not agreed():
            return 1
        pages.clear(image_path)  # what an earlier --leave-running left would get mixed in
        status = subprocess.run(
            [*call, "checkpoint", *(["--leave-running"] if kill else []), *rest],
            check=False,
            env={**os.environ, **plan.get("environment", {})},
        ).returncode
        if status:
            if keep or kill:
                pages.clear(image_path)
            return status
        pages.set_aside(image_path, aside)
        (aside / rendezvous.CAPTURED).touch()
        if (keep or kill) and not agreed():
            pages.clear(image_path)
            return 1
    except (OSError, OcickptError) as error:
        ask(flow, {"event": "captured", "error": str(error), "hint": getattr(error, "hint", "")})
        if keep or kill:
            pages.clear(image_path)
        return 1
    if kill:
        _end(call, command_line.container(rest, "checkpoint"))
    return 0


def _wait_on(first: int) -> None:
    """Have the calls go on in which the processes from `first` down waited when CRIU dumped them."""
    try:
        interrupted.begin_again(first)
    except OSError as error:
        sys.stderr.write(f"ocickpt: calls in which the container waited may fail with EINTR: {error}\n")


def _leaves_running(rest: list[str]) -> bool:
    return command_line.flag(rest, "--leave-running", "checkpoint")


def _end(call: list[str], container: str) -> None:
    """Kill a frozen container's first process, and with it all others in its pid namespace; wait until it is gone."""
    state = json.loads(subprocess.run([*call, "state", container], check=True, stdout=subprocess.PIPE).stdout)
    try:
        process = os.pidfd_open(state["pid"])
    except ProcessLookupError:
        return
    signal.pidfd_send_signal(process, signal.SIGKILL)
    if not select.select([process], [], [], 1)[0]:
        # cgroup v1 keeps the frozen from dying.
        subprocess.run([*call, "resume", container], check=False)
        select.select([process], [], [], _PATIENCE)
