"""``python -m ocickpt.cli.reference [--check]``: what the documentation says of the commands, from the commands.

Writes the command reference in README.md, the manual page, and the completions; with ``--check``
only says which of them are not as they would be written, with exit code 1.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from ocickpt.cli.main import VERBS, cli

ROOT = Path(__file__).resolve().parents[2]
BEGIN = "<!-- commands: written by `make docs` -->"
END = "<!-- end of commands -->"

# These ask the click that is installed for its script when the shell completes `ocickpt` for the first
# time: the protocol between script and click has changed between versions of click.
_COMPLETIONS = {
    "ocickpt.bash": """\
# bash completion for ocickpt: to /usr/share/bash-completion/completions/ocickpt, or source it.
eval "$(_OCICKPT_COMPLETE=bash_source ocickpt)"
""",
    "_ocickpt": """\
#compdef ocickpt
# zsh completion for ocickpt: to a directory in $fpath, under this name.
eval "$(_OCICKPT_COMPLETE=zsh_source ocickpt)"
_ocickpt_completion "$@"
""",
    "ocickpt.fish": """\
# fish completion for ocickpt: to ~/.config/fish/completions/ocickpt.fish.
_OCICKPT_COMPLETE=fish_source ocickpt | source
""",
}


@dataclass(frozen=True, slots=True)
class Verb:
    """A verb as its documentation needs it."""

    name: str
    usage: str
    paragraphs: tuple[str, ...]
    options: tuple[tuple[str, str], ...]


def verbs() -> Iterator[Verb]:
    """Every verb of the command line."""
    with cli.make_context("ocickpt", [], resilient_parsing=True) as parent:
        for name in VERBS:
            command = cli.get_command(parent, name)
            if command is None:
                raise LookupError(name)
            with command.make_context(name, [], parent, resilient_parsing=True) as context:
                pieces = command.collect_usage_pieces(context)
                options = [each for each in command.params if isinstance(each, click.Option)]
                records = [option.get_help_record(context) for option in options]
                yield Verb(
                    name,
                    " ".join(["ocickpt", name, *pieces]),
                    tuple(
                        " ".join(paragraph.split()) for paragraph in inspect.cleandoc(command.help or "").split("\n\n")
                    ),
                    tuple(record for record in records if record),
                )


def markdown() -> str:
    """The command reference for the README."""
    parts = []
    for verb in verbs():
        parts.append(f"### `ocickpt {verb.name}`\n\n```\n{verb.usage}\n```\n")
        parts.extend(f"{paragraph}\n" for paragraph in verb.paragraphs)
        parts.extend(f"- `{names}`: {' '.join(text.split())}" for names, text in verb.options)
        parts.append("")
    return "\n".join(parts)


def manual() -> str:
    """The manual page, ocickpt(1)."""
    lines = [
        '.\\" Written by `make docs`.',
        ".TH OCICKPT 1",
        ".SH NAME",
        "ocickpt \\- running containers as OCI artifacts, and back",
        ".SH SYNOPSIS",
        ".B ocickpt",
        r"\fICOMMAND\fR [\fIOPTION\fR]... [\fIARGUMENT\fR]...",
        ".SH DESCRIPTION",
        _roff(cli.help or ""),
        ".PP",
        _roff(cli.epilog or ""),
        ".SH COMMANDS",
    ]
    for verb in verbs():
        lines += [f".SS {_roff(verb.usage)}"]
        for paragraph in verb.paragraphs:
            lines += [".PP", _roff(paragraph)]
        for names, text in verb.options:
            lines += [".TP", f".B {_roff(names)}", _roff(text)]
    lines += [".SH EXIT STATUS", *_exit_codes(), ""]
    return "\n".join(lines)


def _exit_codes() -> Iterator[str]:
    from ocickpt import errors

    def below(parent: type[errors.OcickptError]) -> Iterator[type[errors.OcickptError]]:
        yield parent
        for child in parent.__subclasses__():
            yield from below(child)

    yield from (".TP", ".B 0", "Done.")
    for error in sorted(below(errors.OcickptError), key=lambda each: each.exit_code):
        meaning = "Anything else." if error is errors.OcickptError else (error.__doc__ or "").split("\n")[0]
        yield from (".TP", f".B {error.exit_code}", _roff(meaning))
    yield from (".TP", ".B 130", "Interrupted; things were put back.")


def _roff(text: str) -> str:
    """`text` with nothing in it that troff takes for a request or an escape (groff_man(7))."""
    return re.sub(r"^([.'])", r"\\&\1", " ".join(text.split()).replace("\\", r"\e").replace("-", r"\-"))


def documents(readme: str) -> dict[Path, str]:
    """Every generated file and what should be in it; `readme` is the README as it is."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"README.md has no {BEGIN} … {END}")
    found = {
        Path("README.md"): f"{before}{BEGIN}\n\n{markdown()}\n{END}{after}",
        Path("docs/man/ocickpt.1"): manual(),
    }
    return found | {Path("contrib/completions", name): text for name, text in _COMPLETIONS.items()}


def main(arguments: list[str]) -> int:
    """Write the files, or check them."""
    check, stale = "--check" in arguments, 0
    for name, text in documents((ROOT / "README.md").read_text("utf-8")).items():
        path = ROOT / name
        if path.exists() and path.read_text("utf-8") == text:
            continue
        stale += 1
        if check:
            click.echo(f"{name} is not what the commands say: run `make docs`", err=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
            click.echo(f"{name} written")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
