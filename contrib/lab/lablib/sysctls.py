"""Two settings that CRIU's lazy page server needs and that no namespace confines.

It moves pages through pipes of 16 MiB. Root is free to make such pipes only with CAP_SYS_RESOURCE; on a
machine that withholds it the limits must be raised, or post-copy migration dies with "tee: Operation not
permitted". The first lab that comes up raises them and notes what they were; the last one down puts that back.
"""

import contextlib
import json
from pathlib import Path

_WANTED = {"pipe-user-pages-soft": 0, "pipe-max-size": 128 << 20}
_PROC = Path("/proc/sys/fs")
_CAP_SYS_RESOURCE = 1 << 24


def _confined() -> bool:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("CapEff:"):
            return not int(line.split()[1], 16) & _CAP_SYS_RESOURCE
    return False


def borrow(note: Path) -> None:
    """Raise the limits, keeping their old values in the file `note`. Does nothing where that is done or not needed."""
    if note.exists() or not _confined():
        return
    before = {name: int((_PROC / name).read_text()) for name in _WANTED}
    note.write_text(json.dumps(before), encoding="ascii")
    _set(_WANTED)


def give_back(note: Path) -> None:
    """Restore what `note` says, and forget it."""
    if note.exists():
        _set(json.loads(note.read_text(encoding="ascii")))
        note.unlink()


def _set(values: dict[str, int]) -> None:
    for name, value in values.items():
        with contextlib.suppress(OSError):  # a read-only /proc/sys: lazy migration will say what it lacks
            (_PROC / name).write_text(str(value))
