"""``ocickpt list``: which checkpoints are there."""

from __future__ import annotations

from pathlib import Path

import click

from ocickpt.cli.options import access, access_options, format_option, verb
from ocickpt.cli.output import data_json, short, size, table


@verb
@click.argument("repo", required=False)
@access_options
@format_option("table")
def command(*, repo: str | None, authfile: Path | None, tls_verify: bool | None, form: str) -> None:
    """List checkpoints.

    Those in REPO, or in the local store. REPO is a repository of a registry
    (HOST[:PORT]/REPOSITORY), oci:DIRECTORY, or a NAME in the local store. Checkpoints of containers
    on this host that were dumped but not published yet are listed too.
    """
    from ocickpt.flows.catalog import list_checkpoints

    found = list_checkpoints(repo, access(authfile, tls_verify))
    if form == "json":
        data_json(found)
        return
    rows = [
        (
            each.name,
            short(each.digest),
            str(each.created),
            each.container,
            each.image,
            size(each.size),
            each.state,
        )
        for each in found
    ]
    table(("NAME", "DIGEST", "CREATED", "CONTAINER", "IMAGE", "SIZE", "STATE"), rows, right=(5,))
