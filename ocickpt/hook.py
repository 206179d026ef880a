"""What an OCI hook hands over to: `gate` and `push`, with the container's state on stdin (runtime-spec, config.md).

    createRuntime   gate   a container that is to be restored instead of started, and would not be, does not start
    poststop        push   a container that was checkpointed without the shim is published

Hooks are run by the engine or the runtime with hardly an environment, while the engine holds the container's lock.
"""

from __future__ import annotations

import json
import os
import sys

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def main(argv: list[str]) -> int:
    """Run the hook that ``argv[0]`` names; its exit status."""
    os.environ.setdefault("PATH", _PATH)
    try:
        state = json.loads(sys.stdin.read())
        container, bundle = str(state["id"]), str(state["bundle"])
        annotations = {str(name): str(value) for name, value in (state.get("annotations") or {}).items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        sys.stderr.write("ocickpt: what is on stdin is not the state of a container\n")
        return 1
    try:
        from ocickpt.restoration import start_gate
        from ocickpt.save import poststop
    except Exception as error:  # noqa: BLE001 - an installation that is broken
        from ocickpt.log import say, told

        say(f"container {container[:12]}: {told(error)}", error=True)
        return 0 if argv == ["push"] else 1  # what has ended has ended
    if argv == ["gate"]:
        return start_gate.check(container, bundle, annotations)
    if argv == ["push"]:
        return poststop.push(container, bundle)
    sys.stderr.write("ocickpt: a hook is one of gate, push\n")
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
