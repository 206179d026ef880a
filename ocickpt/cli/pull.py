"""``ocickpt pull``: a checkpoint comes into the local store, or into a file for podman."""

from __future__ import annotations

from pathlib import Path

import click

import ocickpt
from ocickpt.cli.options import access_options, allow_option, format_option, quiet_option, verb
from ocickpt.cli.output import data, data_json
from ocickpt.cli.progress import progress
from ocickpt.cli.published import pinned


@verb
@click.argument("ref")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.tar",
    help="Write an archive for `podman container restore --import` instead.",
)
@allow_option
@access_options
@format_option("text")
@quiet_option
def command(
    *,
    ref: str,
    output: Path | None,
    allow: tuple[str, ...],
    authfile: Path | None,
    tls_verify: bool | None,
    form: str,
    quiet: bool,
) -> None:
    """Fetch a checkpoint.

    REF is brought into the local store, or with -o into a file that podman can restore. podman believes such a
    file, so with -o all is verified as for a restore, and what the container would get of a host that others do not
    have is refused unless --allow says so.

    Prints REF with the digest of what was pulled, or the name of the file.
    """
    with progress(quiet) as watch:
        pulled = ocickpt.pull(
            ref,
            output=output,
            allow=allow,
            authfile=authfile,
            tls_verify=tls_verify,
            progress=watch,
        )
    if form == "json":
        data_json(pulled)
    elif pulled.path is not None:
        data(str(pulled.path))
    else:
        data(pinned(pulled.reference, pulled.digest))
