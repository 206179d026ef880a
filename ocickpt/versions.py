"""How versions are compared: by their leading numbers, and nothing else."""

from __future__ import annotations

import re

_NUMBERS = re.compile(r"v?(\d{1,9}(?:\.\d{1,9})*)", re.ASCII)  # it may come out of an artifact


def numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version: ``v6.18.5-amd64`` is (6, 18, 5); nothing where there are none.

    What is before a version (``4.2-rc1``) counts as that version: it has what that will have.
    """
    found = _NUMBERS.match(version)
    return tuple(map(int, found[1].split("."))) if found else ()
