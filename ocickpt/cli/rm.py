"""``ocickpt rm``: a checkpoint is not wanted any more."""

from __future__ import annotations

from pathlib import Path

import click

import ocickpt
from ocickpt.cli.options import access_options, format_option, quiet_option, verb
from ocickpt.cli.output import data, data_json, size, words
from ocickpt.cli.progress import progress
from ocickpt.cli.published import pinned


@verb
@click.argument("refs", metavar="REF...", nargs=-1, required=True)
@access_options
@format_option("text")
@quiet_option
def command(*, refs: tuple[str, ...], authfile: Path | None, tls_verify: bool | None, form: str, quiet: bool) -> None:
    """Remove checkpoints.

    In the local store and in a directory the space is free at once; a registry frees it when it
    collects garbage. What `ocickpt list` shows as unpublished is named as it is there, or by its
    container's name or id; what `ocickpt doctor` cannot put right is ended by the name that it says.
    Prints what was removed; stops at the first that cannot be.
    """
    removed = []
    try:
        for ref in refs:
            with progress(quiet) as watch:
                gone = ocickpt.remove(ref, authfile=authfile, tls_verify=tls_verify, progress=watch)
            removed.append(gone)
            if form == "text":
                data(pinned(gone.reference, gone.digest))
                if gone.freed and not quiet:
                    words(f"{size(gone.freed)} freed")
    finally:
        if form == "json":
            data_json(removed)
