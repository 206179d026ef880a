"""``ocickpt restore``: an artifact becomes the running container again."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import click

import ocickpt
from ocickpt.cli.options import access_options, allow_option, format_option, quiet_option, verb
from ocickpt.cli.output import data, data_json
from ocickpt.cli.progress import progress

_URGENT = -10


@verb
@click.argument("ref")
@click.option("-n", "--name", metavar="NAME", help="Name of the container. Default: the name it had.")
@click.option("--lazy", is_flag=True, help="Let it run at once; its memory follows.")
@click.option("--tcp-established", is_flag=True, help="Restore established TCP connections.")
@click.option("--ignore-static-ip", is_flag=True, help="Do not give it the IP address it had.")
@click.option("--ignore-static-mac", is_flag=True, help="Do not give it the MAC address it had.")
@click.option("--ignore-rootfs", is_flag=True, help="Do not apply its changes to the root file system.")
@click.option("--ignore-volumes", is_flag=True, help="Do not fill its named volumes.")
@allow_option
@click.option(
    "-p",
    "--publish",
    metavar="PORT",
    multiple=True,
    help="Publish a port, like `podman run`, in the place of those it had. Repeatable.",
)
@access_options
@format_option("text")
@quiet_option
def command(
    *,
    ref: str,
    name: str | None,
    lazy: bool,
    tcp_established: bool,
    ignore_static_ip: bool,
    ignore_static_mac: bool,
    ignore_rootfs: bool,
    ignore_volumes: bool,
    allow: tuple[str, ...],
    publish: tuple[str, ...],
    authfile: Path | None,
    tls_verify: bool | None,
    form: str,
    quiet: bool,
) -> None:
    """Restore a container from a checkpoint.

    The container runs on where it was when REF was made. This host is found able to run it before
    anything is made, and all that is read is verified before anything of it runs. With --name it is a
    copy with a name and an address of its own; a checkpoint may be restored any number of times.

    Prints the id of the container. Restoring is running what somebody else left in memory: pin the
    digest (REF@sha256:…) that `ocickpt checkpoint` printed.
    """
    with progress(quiet) as watch:
        restored = ocickpt.restore(
            ref,
            name=name,
            lazy=lazy,
            tcp_established=tcp_established,
            ignore_static_ip=ignore_static_ip,
            ignore_static_mac=ignore_static_mac,
            ignore_rootfs=ignore_rootfs,
            ignore_volumes=ignore_volumes,
            allow=allow,
            publish=publish,
            authfile=authfile,
            tls_verify=tls_verify,
            progress=watch,
            on_running=_hurry if lazy else None,
        )
    if form == "json":
        data_json(restored)
    else:
        data(restored.container_id)


def _hurry() -> None:
    """The container runs, and memory comes as fast as the processors can: what is left to do here goes before."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, _URGENT)
