"""The words that the table of fields is written in: why a field may have any value, or which values it may have.

A cell knows nothing of messages, and holds one value at a time; what several fields say together is for the rules in
`tasks`, `files`, `mounts`, `filters` and their like, which a cell names.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

MEMORY: Final = "an address or register in the memory of the process"
CONTENT: Final = "what the process held, given back to it"
OWN: Final = "a setting of an object that is the container's own, which everybody may give it"
NAME: Final = "a number by which CRIU's images name each other's messages"
MATCHED: Final = "compared by CRIU with what it finds, or not read on a restore"
_LONGEST: Final = 4096
"""PATH_MAX."""
MANY: Final = 1 << 20
"""As many as there are in an image: its size is the bound."""


Values: TypeAlias = Container[Any]
"""Which values a field may have."""


@dataclass(frozen=True, slots=True)
class Bits:
    """Numbers that have none but these bits."""

    mask: int

    def __contains__(self, value: object) -> bool:
        return isinstance(value, int) and value | self.mask == self.mask


@dataclass(frozen=True, slots=True)
class Either:
    """What is among one of these."""

    parts: tuple[Values, ...]

    def __contains__(self, value: object) -> bool:
        return any(value in part for part in self.parts)


@dataclass(frozen=True, slots=True)
class Length:
    """Bytes, of a length."""

    most: int
    least: int = 0

    def __contains__(self, value: object) -> bool:
        return isinstance(value, bytes) and self.least <= len(value) <= self.most


@dataclass(frozen=True, slots=True)
class Text:
    """Strings of at most this many bytes, which end where CRIU takes them to end; bytes where they are no UTF-8."""

    most: int

    def __contains__(self, value: object) -> bool:
        raw = value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value
        return isinstance(raw, bytes) and len(raw) <= self.most and b"\0" not in raw


@dataclass(frozen=True, slots=True)
class Cell:
    """One field of one message."""

    why: str
    """Why it does nothing to the host, or what holds it to what it may do."""
    values: Values | None = None
    """The values it may have; None for any that its type has."""
    takes: tuple[str, ...] = ()
    """The capabilities of which one gives a process the other values."""
    most: int = 1
    """How many there may be of it in one message."""
    least: int = 0
    rule: str = ""
    """The rule that holds it together with others: ``MODULE.FUNCTION`` in `gate`."""


def free(why: str) -> Cell:
    """Any value."""
    return Cell(why)


def held(rule: str, values: Values | None = None, *, most: int = 1) -> Cell:
    """What a rule holds, against the specification or other fields."""
    return Cell("held", values, rule=rule, most=most)


def limited(values: Values, *, takes: tuple[str, ...] = (), why: str = OWN) -> Cell:
    """These values; others only where one of the capabilities can be had."""
    return Cell(why, values, takes)


def flag(why: str = OWN) -> Cell:
    """A truth value."""
    return Cell(why, (False, True))


def only(*values: Any, why: str = "another value is nothing that CRIU writes for a container") -> Cell:
    """These and no other."""
    return Cell(why, values)


def text(why: str = OWN, most: int = _LONGEST, rule: str = "") -> Cell:
    """A string of at most so many bytes."""
    return Cell("held" if rule else why, Text(most), rule=rule)


def data(why: str, most: int, least: int = 0) -> Cell:
    """Bytes, of a length."""
    return Cell(why, Length(most, least))


def each(cell: Cell, most: int = MANY, least: int = 0) -> Cell:
    """A repeated field: so many of what `cell` says."""
    return Cell(cell.why, cell.values, cell.takes, most, least, cell.rule)


PART: Final = Cell("a message of its own")
PARTS: Final = each(PART)
ABSENT: Final = Cell("nothing that a container of podman's has", values=())


@dataclass(frozen=True, slots=True)
class Row:
    """One message: where CRIU describes it, and its fields."""

    source: str
    cells: dict[str, Cell]


def row(source: str, cells: dict[str, Cell]) -> Row:
    """A message. `source` is the file and line in images/ of CRIU v4.2, a key names the fields that a cell is for."""
    return Row(source, {name: cell for names, cell in cells.items() for name in names.split()})
