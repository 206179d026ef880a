"""What a crafted checkpoint is, and the good containers that they are made of."""

from __future__ import annotations

from dataclasses import dataclass

from tests.hostile.changing import Change

PLAIN, USER, VOLUME, ASKING = "plain", "user", "volume", "asking"
OPTIONS = {
    PLAIN: (),
    ASKING: (),
    VOLUME: ("--volume", "held:/data:ro"),
    USER: ("--user", "33:33", "--security-opt", "no-new-privileges", "--ulimit", "nofile=256:256"),
}
"""How the good containers are made."""
ASK = """
import ctypes, os, threading, time
def ask(answer):
    while True:
        done = ctypes.CDLL(None).personality(0x40000)
        with open("/tmp/new" + answer, "w") as file:
            file.write("allowed" if done != -1 else "refused")
        os.replace("/tmp/new" + answer, "/tmp/" + answer)
        time.sleep(0.1)
threading.Thread(target=ask, args=("other",)).start()
ask("count")
"""
"""Two threads which ask for what the container's seccomp profile alone forbids, and write down what they are told."""
LOOK = (
    "rm -f /tmp/count /tmp/other; until [ -e /tmp/count ] && [ -e /tmp/other ]; do sleep 0.1; done;"
    " echo $(cat /tmp/count) $(cat /tmp/other) $(sed -n 's/^Seccomp_filters:.//p' /proc/1/task/*/status)"
)
"""What they are told from now on, and how many filters each of them has."""


def command(container: str) -> tuple[str, ...]:
    """Image and command of a good container."""
    return ("localhost/python", "python3", "-c", ASK) if container == ASKING else ("localhost/busybox", "/counter.sh")


@dataclass(frozen=True)
class Case:
    """One crafted checkpoint."""

    change: Change
    said: str = ""
    """A part of the sentence that refuses it; empty for what is made harmless instead."""
    on_start: str | None = None
    """What is said where the new container's own specification is what counts, if it is something else."""
    container: str = PLAIN
    inside: str = ""
    """What `look` prints inside, once it is restored."""
    look: str = LOOK
