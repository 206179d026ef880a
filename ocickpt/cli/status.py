"""``ocickpt status``: which containers still wait for memory."""

from __future__ import annotations

import ocickpt
from ocickpt.cli.options import format_option, verb
from ocickpt.cli.output import data_json, short, size, table


@verb
@format_option("table")
def command(*, form: str) -> None:
    """Show lazy restores.

    Containers that run while their memory is still being fetched, how much that is, and those that had
    to be killed because it could not be.
    """
    found = ocickpt.status()
    if form == "json":
        data_json(found)
        return
    rows = [
        (
            each.container[:12],
            each.name,
            short(each.reference),
            each.state,
            size(each.arrived),
            size(each.later),
            each.error,
        )
        for each in found
    ]
    table(("CONTAINER", "NAME", "REFERENCE", "STATE", "FETCHED", "OF MEMORY", "ERROR"), rows, right=(4, 5))
