"""The runtime shim: what the launcher hands over to (`ocickpt setup`; it execs the runtime for everything else).

    checkpoint              that a flow waits for (`save.frozen`), or that podman makes by itself (`save.unasked`,
                            `save.intercept`)
    create                  may be a restore (`restoration.on_create`)
    start, state, delete    of a container that was restored in its `create`, and waits (`restoration.asked`)
    restore                 that a flow waits for (`restoration.asked`)

A flow waits at the socket ``/run/ocickpt/op/KEY``, where KEY is the container's id for a checkpoint, and for a
restore what the archive it gave podman brought in `rendezvous.MARKER`. Standard library only, and only what is
needed: this runs in every container's way.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from ocickpt import rendezvous
from ocickpt.engine.runtime import command_line

TYPE_CHECKING = False  # see `rendezvous`
if TYPE_CHECKING:
    from typing import NoReturn


def main(argv: list[str]) -> NoReturn:
    """Run ``RUNTIME ARGUMENT…`` as podman means it, with the flow's part in it."""
    runtime, arguments = argv[0], argv[1:]
    position = command_line.subcommand(arguments)
    verb = arguments[position] if position < len(arguments) else ""
    call, rest = [runtime, *arguments[:position]], arguments[position + 1 :]
    named = command_line.container(rest, verb) if verb in command_line.VALUED else ""
    if verb == "checkpoint" and named and _asked_for(named):
        from ocickpt.operations import asking
        from ocickpt.save import frozen

        flow = asking.connect(named)
        sys.exit(frozen.checkpoint(flow, call, rest) if flow else f"ocickpt: {asking.GONE}")
    if verb == "checkpoint" and named:
        from ocickpt.save import unasked

        if not unasked.prepare(call, rest):
            sys.exit(1)
        if bundle := unasked.wanting_bundle(call, rest):
            sys.exit(_publish(call, rest, bundle))
    if verb == "create":
        sys.exit(_create(call, rest))
    if verb in ("start", "state", "delete") and named and (rendezvous.CREATED / named).exists():
        from ocickpt.restoration import asked

        sys.exit(asked.before_it_runs(call, verb, rest))
    if verb == "restore" and (image_path := command_line.option(rest, "--image-path", verb)):
        from ocickpt.restoration import asked

        if key := asked.key_in(image_path):
            os._exit(asked.restore(key, call, rest))  # what an interpreter does at its end takes a while
    command_line.become(runtime, arguments)


def _create(call: list[str], rest: list[str]) -> int:
    """Restore the container that was to be created."""
    try:
        from ocickpt.restoration import on_create
    except Exception as error:  # noqa: BLE001 - an installation that is broken; rather no container than another
        from ocickpt.log import refuse

        return refuse(error, command_line.option(call[1:], "--log"))
    return on_create.create(call, rest)


def _publish(call: list[str], rest: list[str], bundle: Path) -> int:
    try:
        from ocickpt.save import intercept
    except Exception as error:  # noqa: BLE001 - an installation that is broken; podman gets its checkpoint
        from ocickpt.log import say, told

        say(f"this checkpoint is podman's alone, it is not published: {told(error)}", error=True)
        command_line.become(call[0], [*call[1:], "checkpoint", *rest])
    return intercept.checkpoint(call, rest, bundle)


def _asked_for(container: str) -> bool:
    """Whether the podman that calls was started by a flow: without it, its export would lack the files.

    Any other podman gets its dump whole, also while a flow waits for its own to come to the container's lock.
    """
    try:
        words = Path(f"/proc/{os.getppid()}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return any(rendezvous.is_export_of(word, container) for word in words)


if __name__ == "__main__":
    main(sys.argv[1:])
