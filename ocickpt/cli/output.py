"""What goes to stdout and how it looks: text made safe, sizes, JSON, tables."""

from __future__ import annotations

import dataclasses
import enum
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import click

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def printable(text: object, *, lines: bool = False) -> str:
    """`text` with everything escaped that a terminal would act on rather than show.

    Names come out of artifacts that anybody may have made: escape sequences, bidirectional overrides
    and bytes that are no UTF-8 are shown as ``\\x1b``, ``\\u202e``, ``\\udcff``. With `lines`, newlines stay.
    """
    return "".join(
        each if each.isprintable() or (lines and each == "\n") else each.encode("unicode_escape").decode("ascii")
        for each in str(text)
    )


def size(count: int) -> str:
    """A number of bytes as people write it: ``545.2 MB`` (1 MB is a million bytes)."""
    value, unit = float(count), 0
    while value >= 999.95 and unit < len(_UNITS) - 1:
        value /= 1000
        unit += 1
    return f"{count} B" if unit == 0 else f"{value:.1f} {_UNITS[unit]}"


def short(reference: str) -> str:
    """A digest, or a reference that ends with one, with as much of it as tells it from others."""
    rest, algorithm, digest = reference.rpartition("sha256:")
    return f"{rest}{algorithm}{digest[:12]}" if algorithm else reference


def plain(value: Any) -> Any:
    """`value` as what JSON knows; dataclasses become objects with their fields' names."""
    if isinstance(value, enum.Enum):
        return value.name.lower()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(plain(key)): plain(item) for key, item in value.items()}
    if isinstance(value, str | int | float | bool | None):
        return value
    if isinstance(value, Path | datetime):
        return str(value)
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Iterable):
        return [plain(item) for item in value]
    return str(value)


def data(text: str) -> None:
    """One line of data, made safe, to stdout."""
    click.echo(printable(text))


def data_json(value: Any) -> None:
    """`value` as JSON to stdout. ASCII only, so that nothing in it can drive a terminal."""
    click.echo(json.dumps(plain(value), indent=2))


def words(text: str) -> None:
    """Something for the person at the terminal, made safe, to stderr."""
    click.echo(printable(text, lines=True), err=True)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Iterable[int] = ()) -> None:
    """A table to stdout: as wide as its content, so that `awk` and `cut` can read it too.

    `right` are the columns that hold numbers. On a terminal the heading is bold.
    """
    safe = [[printable(cell) for cell in row] for row in rows]
    to_right = set(right)
    if sys.stdout.isatty():
        _rich_table(columns, safe, to_right)
        return
    widths = [max(map(len, column)) for column in zip(columns, *safe, strict=True)]
    for row in (list(columns), *safe):
        cells = [
            cell.rjust(width) if number in to_right else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        click.echo("  ".join(cells).rstrip())


def _rich_table(columns: Sequence[str], rows: Sequence[Sequence[str]], right: set[int]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for number, column in enumerate(columns):
        made.add_column(column, justify="right" if number in right else "left", overflow="fold")
    for row in rows:
        made.add_row(*(Text(cell) for cell in row))
    Console(highlight=False).print(made)
