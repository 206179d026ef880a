"""CRIU's `pre-resume`: its processes stand still, with all they are in force, and none has run an instruction.

CRIU calls an action script at each step of a restore, and waits for it (criu/cr-restore.c, restore_root_task). What the
script's exit status is does not matter at that step; what it kills is dead. Who is asked looks at a FIFO beside it.
Standard library only: the shim loads this.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

BEGINS, STANDS = "begins", "stands"
"""What CRIU tells: its own pid, once the first process is there; that one's, once all stand still."""
_SCRIPT, _TOLD, _GOES, _LEFT = "at-each-step", "told", "goes", "left"
_GO = "go"
# Where who holds the processes dies nothing may run: neither while CRIU waits for the answer, nor once CRIU let go, for
# which a shell stays behind. Opening a FIFO to read waits for a writer: so there is one until it is open, and from then
# on the holder's death is its end, also if that came first. No program is started: the script may be in the container's
# cgroup, whose pids.max the checkpoint has chosen.
_TEXT = f"""\
#!/bin/sh
here=${{0%/*}}
case $CRTOOLS_SCRIPT_ACTION in
*setup-namespaces) echo "{BEGINS} $PPID" 1<>"$here/{_TOLD}" && exit 0 ;;
pre-resume) ;;
*) exit 0 ;;
esac
end() {{
    for list in /proc/"$1"/task/*/children; do
        below=
        read -r below <"$list"
        set -- "$@" $below
    done
    while read -r key value; do
        [ "$key" != TracerPid: ] || [ "$value" = 0 ] || criu=$value
    done <"/proc/$1/status"
    kill -KILL "$1"
    shift
    for each do end "$each"; done
}}
# And then CRIU, which would wait for the first of them alone, while that waits for those that are CRIU's to wait for.
end_all() {{
    end "$CRTOOLS_INIT_PID"
    [ -z "$criu" ] || kill -KILL "$criu"
}}
criu=
trap end_all EXIT
exec 3<>"$here/{_GOES}" 4<"$here/{_GOES}" 3>&-
exec 3<>"$here/{_LEFT}" 5<"$here/{_LEFT}" 3>&-
(read -r answer <&5 || end_all) </dev/null >/dev/null 2>&1 &
echo "{STANDS} $CRTOOLS_INIT_PID" 1<>"$here/{_TOLD}"
read -r answer <&4
[ "$answer" != {_GO} ] || trap - EXIT
"""


def make(directory: Path) -> tuple[str, ...]:
    """Put in the new `directory` what a `Standstill` needs; the options that a configuration file of CRIU's gets."""
    directory.mkdir()
    for name in (_TOLD, _GOES, _LEFT):
        os.mkfifo(directory / name, 0o600)
    script = directory / _SCRIPT
    script.write_text(_TEXT, "ascii")
    script.chmod(0o700)
    return (f"action-script {script}",)


class Standstill:
    """One restore, which stops before its first instruction, and goes on when it is told."""

    def __init__(self, directory: Path) -> None:
        # Open in both directions: opening waits for nobody.
        self._told, self._goes, self._left = (
            os.open(directory / name, os.O_RDWR | os.O_CLOEXEC) for name in (_TOLD, _GOES, _LEFT)
        )

    def fileno(self) -> int:
        """What can be read from when there is something told."""
        return self._told

    def told(self) -> Iterator[tuple[str, int]]:
        """What CRIU has told since, BEGINS or STANDS, and a pid; waits until there is something."""
        for line in os.read(self._told, 256).decode("ascii").splitlines():
            what, _, pid = line.partition(" ")
            yield what, int(pid)

    def go(self) -> None:
        """CRIU lets go of the processes."""
        os.write(self._goes, f"{_GO}\n".encode())

    def end(self) -> None:
        """They are killed where they stand."""
        os.write(self._goes, b"end\n")

    def leave(self) -> None:
        """From now on the processes are not ended with who held them."""
        os.write(self._left, b"left\n")
