"""Every field that is set in a message held against the table, by reflection: what has no row is refused.

It reads one message by itself. What fields say together, and to the specification, is the rules' (`Cell.rule`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

from ocickpt.errors import IntegrityError, UnsupportedError
from ocickpt.gate.fields import TABLE, Cell

May = Callable[[str], bool]
"""Whether a process of the container can come to have a capability."""


class _Field(NamedTuple):
    name: str
    cell: Cell
    repeated: bool
    nested: bool


class _Wrong(NamedTuple):
    path: str
    problem: str
    error: type[IntegrityError | UnsupportedError] = IntegrityError


def check_message(name: str, message: Any, may: May) -> None:
    """Refuse a message of the image `name`. UnsupportedError for a field without a row, IntegrityError for a value."""
    if wrong := _wrong(message, may):
        raise wrong.error(f"the checkpoint's {name}.img has {wrong.path} {wrong.problem}")


def _wrong(message: Any, may: May) -> _Wrong | None:
    known = _fields(message.DESCRIPTOR)
    for descriptor, value in message.ListFields():
        field = known.get(descriptor.number)
        if field is None:
            return _Wrong(descriptor.name, "set, which is on no list of fields", UnsupportedError)
        if wrong := _wrong_in(field, value if field.repeated else (value,), may):
            return wrong
    for field in _needed(message.DESCRIPTOR):  # for an empty field is not listed
        if not getattr(message, field.name):
            return _Wrong(field.name, _times(0, field.cell))
    return None


def _wrong_in(field: _Field, values: Sequence[Any], may: May) -> _Wrong | None:
    cell = field.cell
    if field.repeated and not cell.least <= len(values) <= cell.most:
        return _Wrong(field.name, _times(len(values), cell))
    if cell.values is not None:
        for each in values:
            if each not in cell.values and not any(map(may, cell.takes)):
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
    return f"{value!r:.100}, which {f'takes {takes}' if takes else 'no container has'}"


@cache
def _fields(descriptor: Any) -> dict[int, _Field]:
    """The fields of a message that the table has, by their number."""
    cells = TABLE[descriptor.name].cells if descriptor.name in TABLE else {}
    return {
        field.number: _Field(field.name, cells[field.name], _is_repeated(field), field.message_type is not None)
        for field in descriptor.fields
        if field.name in cells
    }


@cache
def _needed(descriptor: Any) -> tuple[_Field, ...]:
    return tuple(field for field in _fields(descriptor).values() if field.repeated and field.cell.least)


def _is_repeated(field: Any) -> bool:
    # `label` is deprecated where there is `is_repeated` (protobuf 6).
    return bool(field.is_repeated if hasattr(field, "is_repeated") else field.label == field.LABEL_REPEATED)
