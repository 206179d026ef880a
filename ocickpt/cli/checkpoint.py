"""``ocickpt checkpoint``: a running container becomes an artifact."""

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
@click.argument("container")
@click.argument("ref")
@click.option("-R", "--leave-running", is_flag=True, help="Let the container run on after the checkpoint.")
@click.option("--tcp-established", is_flag=True, help="Checkpoint a container with established TCP connections.")
@click.option("--file-locks", is_flag=True, help="Checkpoint a container with file locks.")
@click.option("--ignore-rootfs", is_flag=True, help="Leave out what the container changed in its root file system.")
@click.option("--ignore-volumes", is_flag=True, help="Leave out the content of its named volumes.")
@access_options
@format_option("text")
@quiet_option
def command(
    *,
    container: str,
    ref: str,
    leave_running: bool,
    tcp_established: bool,
    file_locks: bool,
    ignore_rootfs: bool,
    ignore_volumes: bool,
    authfile: Path | None,
    tls_verify: bool | None,
    form: str,
    quiet: bool,
) -> None:
    """Checkpoint a running container into a registry.

    CONTAINER is published as REF. Memory, the changes in its file system and its volumes are of the
    same instant. The tag is written last: REF is either the whole checkpoint, or what it was
    before. The container is stopped when it is dumped, unless it is to be left running.

    Prints REF with the digest of what was published. Memory is not encrypted: whoever can read the
    repository can read every secret the container held.
    """
    begun = time.monotonic()
    with progress(quiet) as watch:
        published = ocickpt.checkpoint(
            container,
            ref,
            leave_running=leave_running,
            tcp_established=tcp_established,
            file_locks=file_locks,
            ignore_rootfs=ignore_rootfs,
            ignore_volumes=ignore_volumes,
            authfile=authfile,
            tls_verify=tls_verify,
            progress=watch,
        )
    if form == "json":
        data_json(as_json(published, time.monotonic() - begun))
    else:
        data(pinned(published.reference, published.digest))
