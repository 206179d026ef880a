"""``ocickpt prune``: the old checkpoints are not wanted any more."""

from __future__ import annotations

from pathlib import Path

import click

import ocickpt
from ocickpt.cli.options import access_options, format_option, verb
from ocickpt.cli.output import data_json, short, size, table
from ocickpt.cli.progress import progress


@verb
@click.argument("repo")
@click.option("--keep-last", type=int, metavar="N", default=0, help="Keep the N newest.")
@click.option("--keep-hourly", type=int, metavar="N", default=0, help="Keep the newest of each of the last N hours.")
@click.option("--keep-daily", type=int, metavar="N", default=0, help="Keep the newest of each of the last N days.")
@click.option("--keep-weekly", type=int, metavar="N", default=0, help="Keep the newest of each of the last N weeks.")
@click.option("--keep-monthly", type=int, metavar="N", default=0, help="Keep the newest of each of the last N months.")
@click.option("--keep-within", metavar="SPAN", help="Keep those of the last SPAN before the newest: 36h, 2w3d.")
@click.option("--keep-tag", metavar="PATTERN", multiple=True, help="Keep those whose tag matches PATTERN. Repeatable.")
@click.option("--dry-run", is_flag=True, help="Remove nothing; print what would be.")
@access_options
@format_option("table")
def command(
    *,
    repo: str,
    dry_run: bool,
    authfile: Path | None,
    tls_verify: bool | None,
    form: str,
    keep_within: str | None,
    keep_tag: tuple[str, ...],
    **keep: int,
) -> None:
    """Remove old checkpoints.

    Of each container's checkpoints in REPO those that a --keep option names are kept, and all others
    removed. Hours, days, weeks and months are those in which there are checkpoints, in UTC. What remains
    needs nothing of what goes; a registry frees the space when it collects garbage. What is damaged is
    kept: `ocickpt rm` removes it.
    """
    with progress(quiet=False) as shown:
        found = ocickpt.prune(
            repo,
            **keep,
            keep_within=keep_within,
            keep_tag=keep_tag,
            dry_run=dry_run,
            authfile=authfile,
            tls_verify=tls_verify,
            progress=shown,
        )
    if form == "json":
        data_json(found)
        return
    gone = "would be removed" if dry_run else "removed"
    rows = [
        (
            each.name,
            short(each.digest),
            each.created,
            each.container,
            size(each.size),
            f"kept: {', '.join(each.kept)}" if each.kept else gone,
        )
        for each in found
    ]
    table(("NAME", "DIGEST", "CREATED", "CONTAINER", "SIZE", "STATE"), rows, right=(4,))
