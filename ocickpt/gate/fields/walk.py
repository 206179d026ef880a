"""Every field that is set in a message held against the table, by reflection: what has no row is refused.

It reads one message by itself. What fields say together, and to the specification, is the rules' (`Cell.rule`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

from ocickpt.errors import IntegrityError, UnsupportedError
from ocickpt.gate.fields import TABLE, Cell
from ocickpt.gate.fields.cells import MANY

_SHOWN = 64
"""Bytes that are shown as they are."""
May = Callable[[str], bool]
"""Whether a process of the container can come to have a capability."""


class _Field(NamedTuple):
    name: str
    cell: Cell
    good: Callable[[Any], bool] | None
    """Whether one value is among the cell's; None where all are. Looked up here, for there are very many values."""
    repeated: bool
    nested: bool


class _Plan(NamedTuple):
    """What is to be looked at in a message."""

    fields: dict[int, _Field | None]
    """By number; None for what may have any value."""
    needed: tuple[_Field, ...]
    """Repeated fields that must not be empty; an empty one is not listed."""


class _Wrong(NamedTuple):
    path: str
    problem: str
    error: type[IntegrityError | UnsupportedError] = IntegrityError


def check_message(name: str, message: Any, may: May) -> None:
    """Refuse a message of the image `name`. UnsupportedError for a field without a row, IntegrityError for a value."""
    if wrong := _wrong(message, may):
        raise wrong.error(f"the checkpoint's {name}.img has {wrong.path} {wrong.problem}")


def _wrong(message: Any, may: May) -> _Wrong | None:
    fields, needed = _plan(message.DESCRIPTOR)
    for descriptor, value in message.ListFields():
        try:
            field = fields[descriptor.number]
        except KeyError:
            return _Wrong(descriptor.name, "set, which is on no list of fields", UnsupportedError)
        if field is None:
            continue
        if field.repeated or field.nested:
            if wrong := _wrong_in(field, value if field.repeated else (value,), may):
                return wrong
        elif field.good and not field.good(value) and not any(map(may, field.cell.takes)):
            return _Wrong(field.name, _problem(value, field.cell))
    for each in needed:
        if not getattr(message, each.name):
            return _Wrong(each.name, _times(0, each.cell))
    return None


def _wrong_in(field: _Field, values: Sequence[Any], may: May) -> _Wrong | None:
    cell = field.cell
    if field.repeated and not cell.least <= len(values) <= cell.most:
        return _Wrong(field.name, _times(len(values), cell))
    if field.good:
        for each in values:
            if not field.good(each) and not any(map(may, cell.takes)):
                return _Wrong(field.name, _problem(each, cell))
    if field.nested:
        for each in values:
            if wrong := _wrong(each, may):
                return wrong._replace(path=f"{field.name}.{wrong.path}")
    return None


def _times(count: int, cell: Cell) -> str:
    return f"{count} times instead of {cell.least} to {cell.most}"


def _problem(value: Any, cell: Cell) -> str:
    takes = " or ".join(f"CAP_{each}" for each in cell.takes)
    shown = f"of {len(value)} bytes" if isinstance(value, bytes) and len(value) > _SHOWN else f"{value!r:.100}"
    return f"{shown}, which {f'takes {takes}' if takes else 'no container has'}"


@cache
def _plan(descriptor: Any) -> _Plan:
    cells = TABLE[descriptor.name].cells if descriptor.name in TABLE else {}
    found = {field.number: _field(field, cells[field.name]) for field in descriptor.fields if field.name in cells}
    fields = {number: None if _is_free(field, descriptor) else field for number, field in found.items()}
    return _Plan(fields, tuple(field for field in found.values() if field.repeated and field.cell.least))


def _field(descriptor: Any, cell: Cell) -> _Field:
    # `label` is deprecated where there is `is_repeated` (protobuf 6).
    if hasattr(descriptor, "is_repeated"):
        repeated = bool(descriptor.is_repeated)
    else:
        repeated = descriptor.label == descriptor.LABEL_REPEATED
    good = None if cell.values is None else cell.values.__contains__
    return _Field(descriptor.name, cell, good, repeated, descriptor.message_type is not None)


def _is_free(field: _Field, parent: Any) -> bool:
    """Whether there is nothing to look at: registers, for one, are messages of free numbers alone."""
    if field.good or (field.repeated and (field.cell.least or field.cell.most < MANY)):
        return False
    inside = parent.fields_by_name[field.name].message_type
    if inside is None:
        return True
    if inside is parent:  # which may be in itself
        return False
    plan = _plan(inside)
    return len(plan.fields) == len(inside.fields) and not any(plan.fields.values()) and not plan.needed
