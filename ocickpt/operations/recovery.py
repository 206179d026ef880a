"""What operations that died left behind is put right: by every later call, and by `ocickpt doctor`.

A checkpoint comes to one of two ends: podman had dumped the container, and all parts are whole, then
the dump is kept until `ocickpt checkpoint` or `ocickpt push` publishes it; or the container runs on as if nothing
had been. So does a restore: the container runs, or nothing of it is left. A checkpoint that podman made by itself is
podman's; ours of it is whole or gone. What is needed to put an operation right is loaded only where there is one, for
a restore that looks first would run later for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ocickpt.errors import OcickptError
from ocickpt.model import Progress, Stage
from ocickpt.operations import journal, verbs
from ocickpt.operations.journal import Record


def recover(progress: Progress, mine: Callable[[Record], bool] = lambda _: True) -> list[Record]:
    """Put right whatever dead operations left; those that are `mine` and turned out to have come to their end.

    Of one that came to its end but is not `mine` the journal is left, for whoever runs that command again to
    be told. What cannot be put right is told, and left for the next call.
    """
    finished: list[Record] = []
    met: dict[str, verbs.Verb[Any]] = {}
    verbs.look_first(progress)
    for orphan in journal.orphans():
        record: Record = orphan.record
        verb = verbs.of(record)
        if verb.goes_on(record):
            continue
        met[record.verb] = verb
        try:
            if journal.podman_runs(record):
                progress.stage(Stage.WAITING_FOR_PODMAN, record.verb)
            finished += verb.settle(orphan, mine, progress)
        except (OcickptError, OSError) as error:
            what = "checkpoint" if record.verb == "intercept" else record.verb
            progress.note(f"the interrupted {what} of {record.name!r} could not be put right: {error}")
    for verb in met.values():
        verb.tidy()
    return finished
