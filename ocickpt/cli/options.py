"""Options that several verbs share, spelled as podman and skopeo spell them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

_Function = TypeVar("_Function", bound=Callable[..., Any])


class Verb(click.Command):
    """A command in whose arguments ``--tls-verify`` alone means true, as for podman.

    click would take the next argument for the value: ``pull --tls-verify REF``.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse `args`, ``--tls-verify`` given its value first."""
        end = args.index("--") if "--" in args else len(args)
        options = ["--tls-verify=true" if each == "--tls-verify" else each for each in args[:end]]
        return super().parse_args(ctx, options + args[end:])


class _OptionalValue(click.Option):
    """An option whose value may be left out; its help says ``--tls-verify[=true|false]``."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """As click has it, without the space before the value."""
        found = super().get_help_record(ctx)
        return found and (found[0].replace(" [=", "[="), found[1])


def verb(function: Callable[..., Any]) -> click.Command:
    """Make the outermost function of a verb's module its command."""
    name = function.__name__.strip("_").removesuffix("_")
    return click.command(name, cls=Verb, context_settings={"help_option_names": ["-h", "--help"]})(function)


def access_options(function: _Function) -> _Function:
    """``--authfile`` and ``--tls-verify``: how registries are reached."""
    function = click.option(
        "--tls-verify",
        cls=_OptionalValue,
        type=click.BOOL,
        metavar="[=true|false]",
        help="Require HTTPS and valid certificates. Default: true, unless registries.conf says insecure.",
    )(function)
    return click.option(
        "--authfile",
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="PATH",
        help="Credentials for registries, in the format of `podman login`. Default: the files podman and docker use.",
    )(function)


def quiet_option(function: _Function) -> _Function:
    """``--quiet``: no progress and no notes."""
    return click.option("-q", "--quiet", is_flag=True, help="Show no progress and no notes; errors are shown.")(
        function
    )


def format_option(human: str) -> Callable[[_Function], _Function]:
    """``--format``: `human` ("table" or "text"), or JSON."""
    return click.option(
        "--format",
        "form",
        type=click.Choice([human, "json"]),
        default=human,
        show_default=True,
        help="How the result is printed.",
    )


def allow_option(function: _Function) -> _Function:
    """``--allow``: what podman gives nobody unasked."""
    return click.option(
        "--allow",
        multiple=True,
        metavar="WHAT",
        help="Let it have what podman gives nobody unasked: cap=sys_admin, mount=/srv/data:ro, port=8080, "
        "restart=always, ...; without, the error says what there is, and so does inspect. Repeatable.",
    )(function)
