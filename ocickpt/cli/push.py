"""``ocickpt push``: a checkpoint that exists already goes into a store."""

from __future__ import annotations

import time
from pathlib import Path

import click

import ocickpt
from ocickpt.cli.options import access_options, format_option, quiet_option, verb
from ocickpt.cli.output import data, data_json
from ocickpt.cli.progress import progress
from ocickpt.cli.published import as_json, pinned


@verb
@click.argument("source")
@click.argument("ref", required=False)
@access_options
@format_option("text")
@quiet_option
def command(
    *, source: str, ref: str | None, authfile: Path | None, tls_verify: bool | None, form: str, quiet: bool
) -> None:
    """Publish a checkpoint that exists already.

    SOURCE becomes REF. It is a file that `podman container checkpoint --export` wrote, compressed
    or not, a checkpoint in the local store, or a container whose checkpoint `ocickpt list` shows as
    unpublished: that goes where it should have gone when no REF is given, and leaves the local
    store. Only what the repository does not have yet is sent.
    """
    begun = time.monotonic()
    with progress(quiet) as watch:
        published = ocickpt.push(source, ref, authfile=authfile, tls_verify=tls_verify, progress=watch)
    if form == "json":
        data_json(as_json(published, time.monotonic() - begun))
    else:
        data(pinned(published.reference, published.digest))
