"""``ocickpt doctor``: what this host lacks."""

from __future__ import annotations

import click

import ocickpt
from ocickpt.cli.options import format_option, verb
from ocickpt.cli.output import data, data_json
from ocickpt.errors import PrerequisiteError

_SIGNS = {"ok": "ok     ", "warning": "warning", "failed": "FAILED "}


@verb
@format_option("text")
@click.pass_context
def command(ctx: click.Context, form: str) -> None:
    """Say what this host lacks.

    Everything ocickpt needs is looked at, and what to do about it is said. What an interrupted
    checkpoint or restore left is put right. Exit code 10 when something that is needed is missing;
    warnings alone are exit code 0.
    """
    checks = ocickpt.doctor()
    if form == "json":
        data_json(checks)
    else:
        width = max((len(each.name) for each in checks), default=0)
        for each in checks:
            data(f"{_SIGNS[each.state]}  {each.name.ljust(width)}  {each.found}".rstrip())
            if each.remedy and each.state != "ok":
                data(f"{'':9}{'':{width}}  -> {each.remedy}")
    if any(each.state == "failed" for each in checks):
        ctx.exit(PrerequisiteError.exit_code)
