"""The runtime shim: what the launcher hands over to (`ocickpt setup`; it execs the runtime for everything else).

A `checkpoint` that podman was told to make by itself may have to be published, and a `create` may be a restore: these
are flows of their own, `intercept` and `instead`. What is most at work here are the `checkpoint` and `restore`
that a flow waits for. This side knows the runtime's command line and one socket; what is done with a dump, or
before a restore, is done by the flow at the other end of it:

    shim                            flow
    {"event": "checkpoint", …}  →   {"ok": true, "aside": DIR, "trees": [[SOURCE, TARGET], …], "kill": BOOL}
        the container is frozen; the trees are copied, the runtime dumps, the pages go aside
    {"event": "captured", …}    →   {"ok": true}       everything is safe in DIR
        the container is killed where it stands; with --leave-running it runs on
    {"event": "restore", …}     →   {"ok": true}       pages and files are in place; perhaps "arguments" to add, and
                                                       "environment"
                                    {"error": TEXT}    the runtime must not run

Up to that "ok" nothing has happened to the container but that it stood still: whatever goes wrong,
and whoever dies, it runs on. Without "kill" (established TCP connections would be reset) CRIU ends the
container with the dump, so the flow is asked before that. Without "aside" the runtime just dumps.

One JSON object a line. Standard library only, and only what is needed: this runs in every
container's way. The flow's socket is ``/run/ocickpt/op/KEY``, where KEY is the container's id for a
checkpoint, and for a restore what the skeleton archive brought in `MARKER`.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import select
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

from ocickpt import names, runtimes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

OPERATIONS = Path("/run/ocickpt/op")
CREATED = Path("/run/ocickpt/created")
"""Holds a file for each container that was restored instead of created, and does not run yet."""
MARKER = "ocickpt-operation"
EXPORT = "export.tar"
CAPTURED = "captured"
"""The file in DIR that says pages and trees are whole."""

REFUSED = "refused"
"""The file in a restore's directory that says that the runtime was kept from restoring."""

_KEY = re.compile(r"[0-9a-f]{8,64}")
_PAUSED = re.compile(rb'("status"\s*:\s*")paused(?=")')
_GONE = "the ocickpt that asked for this is no longer running"
_PATIENCE = 60.0


def main(argv: list[str]) -> NoReturn:
    """Run ``RUNTIME ARGUMENT…`` as podman means it, with the flow's part in it."""
    runtime, arguments = argv[0], argv[1:]
    position = runtimes.subcommand(arguments)
    verb = arguments[position] if position < len(arguments) else ""
    rest = arguments[position + 1 :]
    named = runtimes.container(rest, verb) if verb in runtimes.VALUED else ""
    if verb == "checkpoint" and named and _asked_for(named):
        flow = _connect(named)
        sys.exit(_checkpoint(flow, runtime, arguments[:position], rest) if flow else f"ocickpt: {_GONE}")
    if verb == "checkpoint" and named:
        _before_checkpoint(rest)
        if bundle := _may_be_wanted([runtime, *arguments[:position]], rest):
            sys.exit(_intercept([runtime, *arguments[:position]], rest, bundle))
    if verb == "create":
        sys.exit(_create([runtime, *arguments[:position]], rest))
    if verb in ("start", "state", "delete") and named and (CREATED / named).exists():
        sys.exit(_before_it_runs([runtime, *arguments[:position]], verb, rest))
    if verb == "restore" and (key := _marked(runtimes.option(rest, "--image-path", verb))):
        arguments[position + 1 : position + 1] = _prepare_restore(key, rest)
        from ocickpt import orphans

        os._exit(_status(orphans.call([runtime, *arguments])))  # what an interpreter does at its end takes a while
    become(runtime, arguments)


def become(runtime: str, arguments: list[str]) -> NoReturn:
    """Be the runtime from now on."""
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)  # Python ignores them, and the runtime would go on ignoring them
    os.execv(runtime, [runtime, *arguments])  # noqa: S606 - handing over is what this is for


def _checkpoint(flow: io.BufferedRWPair, runtime: str, before: list[str], rest: list[str]) -> int:
    from ocickpt.engine import capture, pages  # noqa: F401 - loaded now, not while the container is frozen

    call, container = [runtime, *before], runtimes.container(rest, "checkpoint")
    image_path, keep = Path(runtimes.option(rest, "--image-path", "checkpoint")), _leaves_running(rest)
    resume = [*call, "resume", container]
    plan = _ask(flow, event="checkpoint", image_path=str(image_path), resume=resume)
    if not plan.get("ok"):
        sys.exit(f"ocickpt: {plan.get('error') or _GONE}")
    if "aside" not in plan:
        become(runtime, [*before, "checkpoint", *rest])
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)  # what is begun is brought to an end: nothing stays frozen
    if subprocess.run([*call, "pause", container], check=False).returncode:
        _ask(flow, event="captured", error="it could not be paused")
        return 1
    status = 1
    try:
        status = _dump_frozen(flow, call, rest, image_path, plan)
    finally:
        if status or keep:
            subprocess.run(resume, check=False)
    return _status(status)


def _status(returncode: int) -> int:
    """An exit status as a shell has it; negative is a signal's number."""
    return returncode if returncode >= 0 else 128 - returncode


def _dump_frozen(
    flow: io.BufferedRWPair, call: list[str], rest: list[str], image_path: Path, plan: dict[str, Any]
) -> int:
    """Dump a frozen container; when this does not give back 0, the container is to run on."""
    from ocickpt.engine import capture, pages
    from ocickpt.errors import OcickptError

    aside, podman, keep = Path(plan["aside"]), os.getppid(), _leaves_running(rest)
    kill = plan.get("kill") and not keep

    def agreed() -> bool:
        return bool(_ask(flow, event="captured", error="").get("ok")) and os.getppid() == podman

    try:
        for source, target in plan["trees"]:
            capture.capture(Path(source), Path(target))
        if not keep and not kill and not agreed():
            return 1
        pages.clear(image_path)  # what an earlier --leave-running left would get mixed in
        status = subprocess.run(
            [*call, "checkpoint", *(["--leave-running"] if kill else []), *rest], check=False
        ).returncode
        if status:
            if keep or kill:
                pages.clear(image_path)
            return status
        pages.set_aside(image_path, aside)
        (aside / CAPTURED).touch()
        if (keep or kill) and not agreed():
            pages.clear(image_path)
            return 1
    except (OSError, OcickptError) as error:
        _ask(flow, event="captured", error=str(error), hint=getattr(error, "hint", ""))
        if keep or kill:
            pages.clear(image_path)
        return 1
    if kill:
        _end(call, runtimes.container(rest, "checkpoint"))
    return 0


def _leaves_running(rest: list[str]) -> bool:
    return runtimes.flag(rest, "--leave-running", "checkpoint")


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


def _create(call: list[str], rest: list[str]) -> int:
    """Restore the container that was to be created."""
    try:
        from ocickpt.flows import instead
    except Exception as error:  # noqa: BLE001 - an installation that is broken; rather no container than another
        from ocickpt.flows.tell import refuse

        return refuse(error, runtimes.option(call[1:], "--log"))
    return instead.create(call, rest)


def _before_it_runs(call: list[str], verb: str, rest: list[str]) -> int:
    """`start`, `state` and `delete` of a container that stands still, for it was restored in its `create`."""
    if verb == "state":
        done = subprocess.run([*call, "state", *rest], check=False, stdout=subprocess.PIPE)
        sys.stdout.buffer.write(_PAUSED.sub(rb"\1created", done.stdout))
        return done.returncode
    named = runtimes.container(rest, verb)
    what = ["resume", named] if verb == "start" else ["delete", *rest]
    status = subprocess.run([*call, *what], check=False).returncode
    if status == 0:
        (CREATED / named).unlink(missing_ok=True)
    return status


def _before_checkpoint(rest: list[str]) -> None:
    """Make a checkpoint that podman makes by itself possible, and harmless to others."""
    from ocickpt import guard

    if any(guard.STATES.glob("*.json")):
        from ocickpt.errors import OcickptError
        from ocickpt.flows import status
        from ocickpt.model import Silent

        try:
            status.wait_for_memory(runtimes.container(rest, "checkpoint"), Silent())
        except OcickptError as error:
            sys.exit(f"ocickpt: {error.message}")
    # CRIU writes into files that are there: not into those that a checkpoint of ours has as well.
    image_path = runtimes.option(rest, "--image-path", "checkpoint")
    for pages in Path(image_path).glob("pages-*.img") if image_path else ():
        with contextlib.suppress(FileNotFoundError):
            if pages.stat().st_nlink > 1:
                pages.unlink()


def _may_be_wanted(call: list[str], rest: list[str]) -> Path | None:
    """The bundle of a container, if something says that its checkpoints are to be published; `intercept` knows more."""
    image_path = runtimes.option(rest, "--image-path", "checkpoint")
    bundle = Path(image_path).parent
    if not image_path or not (bundle / "config.json").is_file():
        told = subprocess.run(
            [*call, "state", runtimes.container(rest, "checkpoint")],
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


def _intercept(call: list[str], rest: list[str], bundle: Path) -> int:
    try:
        from ocickpt.flows import intercept
    except Exception as error:  # noqa: BLE001 - an installation that is broken; podman gets its checkpoint
        from ocickpt.flows.tell import say, told

        say(f"this checkpoint is podman's alone, it is not published: {told(error)}", error=True)
        become(call[0], [*call[1:], "checkpoint", *rest])
    return intercept.checkpoint(call, rest, bundle)


def _asked_for(container: str) -> bool:
    """Whether the podman that calls was started by a flow: without it, its export would lack the files.

    Any other podman gets its dump whole, also while a flow waits for its own to come to the container's lock.
    """
    try:
        words = Path(f"/proc/{os.getppid()}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return any(word.endswith(f"/ocickpt/{container}/{EXPORT}".encode()) for word in words)


def _prepare_restore(key: str, rest: list[str]) -> list[str]:
    """Have the flow bring memory and files; what is to be added to the runtime's arguments, once its environment is."""
    given = runtimes.read(rest, "restore")[0]
    bundle, image_path, pid_file = (given.get(f"--{each}", "") for each in ("bundle", "image-path", "pid-file"))
    flow = _connect(key)
    told = {"bundle": bundle, "image_path": image_path, "pid_file": pid_file, "conmon": os.getppid()}
    told["criu_configuration"] = os.environ.get("CRIU_CONFIG_FILE", "")
    answer = _ask(flow, _load_orphans, event="restore", **told) if flow else {}
    if not answer.get("ok"):
        if _KEY.fullmatch(key):
            with contextlib.suppress(OSError, IndexError):
                (Path(image_path).parents[3] / "ocickpt" / key / REFUSED).touch()
        sys.exit(f"ocickpt: {answer.get('error') or _GONE}")
    os.environ.update(answer.get("environment") or {})
    return [str(each) for each in answer.get("arguments") or ()]


def _load_orphans() -> None:
    from ocickpt import orphans  # noqa: F401 - while the flow is at work


def _marked(image_path: str) -> str:
    try:
        return (Path(image_path) / MARKER).read_text("ascii").strip() if image_path else ""
    except (OSError, UnicodeDecodeError):
        return ""


def _connect(key: str) -> io.BufferedRWPair | None:
    """The flow that waits under `key`, if there is one and it is root's."""
    if not _KEY.fullmatch(key):
        return None
    path = OPERATIONS / key
    try:
        if (found := path.lstat()).st_uid != 0 or not stat.S_ISSOCK(found.st_mode):
            return None
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.connect(str(path))
    except OSError:
        return None
    return connection.makefile("rwb")


def _ask(flow: io.BufferedRWPair, meanwhile: Callable[[], None] = lambda: None, **message: Any) -> dict[str, Any]:
    """Send one message and wait for its answer, doing something `meanwhile`; empty when the flow is gone."""
    try:
        flow.write(json.dumps(message).encode() + b"\n")
        flow.flush()
        meanwhile()
        answer = json.loads(flow.readline() or b"{}")
    except (OSError, ValueError):
        return {}
    return answer if isinstance(answer, dict) else {}


if __name__ == "__main__":
    main(sys.argv[1:])
