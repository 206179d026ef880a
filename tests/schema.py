"""The JSON Schemas in `schemas/`, the public word on our documents: what the types in the package are held to."""

from __future__ import annotations

import functools
import json
from typing import Any

import jsonschema

from ocickpt.errors import IntegrityError


@functools.cache
def _validator(name: str) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(json.loads(text(name)))


def text(name: str) -> str:
    """The schema of that name."""
    from importlib import resources

    return resources.files("ocickpt").joinpath("schemas", f"{name}.json").read_text("utf-8")


def validate(name: str, document: Any, what: str) -> None:
    """Hold `document` against `schemas/NAME.json`; IntegrityError naming `what` and the place."""
    error = jsonschema.exceptions.best_match(_validator(name).iter_errors(document))
    if error is not None:
        place = "/".join(str(part) for part in error.absolute_path) or "its top"
        raise IntegrityError(f"the {what} does not match schema {name}: at {place}: {error.message[:200]}")
