"""``ocickpt setup``: the launcher goes in front of podman's runtimes."""

from __future__ import annotations

import click

import ocickpt
from ocickpt.cli.options import format_option, verb
from ocickpt.cli.output import data, data_json


@verb
@click.option("--hooks", is_flag=True, help="Install OCI hooks instead, for runtimes that must not be wrapped.")
@click.option("--undo", is_flag=True, help="Remove what setup made, and nothing else.")
@format_option("text")
def command(*, hooks: bool, undo: bool, form: str) -> None:
    """Put the launcher in front of podman's runtimes.

    The launcher is a shell script that hands every call over to the runtime, but those that a
    running `ocickpt checkpoint` or `ocickpt restore` waits for, and those of containers that are to
    be published when podman checkpoints them, or restored instead of started. It is found by
    podman through a file in /etc/containers/containers.conf.d. Without it `restore` shows
    podman a launcher for its one call, and a checkpoint is slower: memory is then copied through an archive.
    """
    if hooks and undo:
        raise click.UsageError("--undo removes the hooks too: leave out --hooks")
    done = ocickpt.setup_hooks() if hooks else ocickpt.setup(undo=undo)
    if form == "json":
        data_json(done)
        return
    for line in done:
        data(line)
