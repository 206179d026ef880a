"""What comes from JSON becomes a typed value, once and at the door: a `msgspec.Struct`.

Go writes ``null`` for what it has none of (encoding/json, of nil slices, maps and pointers), so a member of a Struct
that is ``null`` is one that is absent. Members that a Struct does not have are ignored, and not written again:
its fields are the list of what passes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

import msgspec

from ocickpt.errors import IntegrityError

T = TypeVar("T", bound=msgspec.Struct)


def read(value: object, kind: type[T], what: str, hook: Callable[[type, Any], Any] | None = None) -> T:
    """The JSON `value` as a Struct of that `kind`; `hook` reads what msgspec does not know.

    IntegrityError that names `what` and the place in it, for a value that is not of the right form.
    """
    try:
        return msgspec.convert(_without_null(value, kind), kind, strict=True, dec_hook=hook)
    except msgspec.ValidationError as error:
        raise IntegrityError(f"the {what} is not of the right form: {reason(error)}") from error


def reason(error: msgspec.ValidationError) -> str:
    """What msgspec found wrong, and where: ``at process.cwd: expected `str`, got `int` ``."""
    problem, _, place = str(error).partition(" - at `$")
    place = place.rstrip("`").lstrip(".")
    problem = problem[:1].lower() + problem[1:]
    return f"at {place}: {problem}" if place else problem


def _without_null(value: Any, kind: type[msgspec.Struct]) -> Any:
    """`value` without the members of Structs that are null; in a map, and in what is only passed on, they stay."""
    if not isinstance(value, dict):
        return value
    fields, found = _fields(kind), {}
    for name, member in value.items():
        if member is None or name not in fields:
            continue
        nested = fields[name]
        if nested and isinstance(member, list):
            found[name] = [_without_null(each, nested) for each in member]
        else:
            found[name] = _without_null(member, nested) if nested else member
    return found


@functools.cache
def _fields(kind: type[msgspec.Struct]) -> dict[str, type[msgspec.Struct] | None]:
    """The names of its members in JSON, each with the Struct that it is, or is a list of."""
    return {each.encode_name: _struct_in(each.type) for each in msgspec.structs.fields(kind)}


def _struct_in(kind: Any) -> type[msgspec.Struct] | None:
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return kind
    if get_origin(kind) in (tuple, Union, UnionType):
        return next((found for each in get_args(kind) if (found := _struct_in(each))), None)
    return None
