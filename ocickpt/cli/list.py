"""``ocickpt list``: which checkpoints are there."""

from __future__ import annotations

from pathlib import Path

import click

import ocickpt
from ocickpt.cli.options import access_options, format_option, verb
from ocickpt.cli.output import data_json, short, size, table
from ocickpt.cli.progress import progress


@verb
@click.argument("repo", required=False)
@access_options
@click.option(
    "--limit",
    type=int,
    metavar="N",
    default=1000,
    show_default=True,
    help="Look at no more than N tags of a repository: the last by name.",
)
@format_option("table")
def command(*, repo: str | None, authfile: Path | None, tls_verify: bool | None, limit: int, form: str) -> None:
    """List checkpoints.

    Those in REPO, or in the local store. REPO is a repository of a registry
    (HOST[:PORT]/REPOSITORY), oci:DIRECTORY, or a NAME in the local store. Checkpoints of containers
    on this host that were dumped but not published yet are listed too, and those that are damaged, with
    what is wrong with them. What is no checkpoint is left out. OWN is what no other of those listed has: so
    much is free without it; PARENT is the checkpoint that it was built upon, and which it does not need.
    """
    with progress(quiet=False) as shown:
        found = ocickpt.checkpoints(repo, limit=limit, authfile=authfile, tls_verify=tls_verify, progress=shown)
    if form == "json":
        data_json(found)
        return
    tags = {each.digest: each.name.rpartition(":")[2] for each in found if each.digest}
    rows = [
        (
            each.name,
            short(each.digest),
            str(each.created),
            each.container,
            each.image,
            size(each.size),
            size(each.own),
            tags.get(each.parent) or short(each.parent),
            each.state,
        )
        for each in found
    ]
    headings = ("NAME", "DIGEST", "CREATED", "CONTAINER", "IMAGE", "SIZE", "OWN", "PARENT", "STATE")
    table(headings, rows, right=(5, 6))
