"""Few combinations in which every two values of different factors meet (pairwise testing; Cohen and others, "The AETG
System", 1997)."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from itertools import combinations

Value = tuple[str, str]
"""A factor and one of its values."""
Pair = frozenset[Value]
_TRIES = 30


def pairs(factors: Mapping[str, Sequence[str]], excluded: Collection[Pair] = ()) -> set[Pair]:
    """All that are to meet."""
    every = [[(name, value) for value in values] for name, values in factors.items()]
    found = {frozenset((one, other)) for ours, theirs in combinations(every, 2) for one in ours for other in theirs}
    return found - set(excluded)


def covering(
    factors: Mapping[str, Sequence[str]], excluded: Collection[Pair] = (), seed: int = 0
) -> list[dict[str, str]]:
    """Combinations of a value of every factor, no two of which are `excluded`; the same for the same `seed`.

    The first value of a factor goes with any other.
    """
    chosen, missing, forbidden = random.Random(seed), pairs(factors, excluded), set(excluded)
    found: list[dict[str, str]] = []
    while missing:
        best = max(
            (_candidate(factors, missing, forbidden, chosen) for _ in range(_TRIES)),
            key=lambda row: len(_met(row) & missing),
        )
        missing -= _met(best)
        found.append(best)
    return found


def _met(row: Mapping[str, str]) -> set[Pair]:
    return {frozenset(two) for two in combinations(row.items(), 2)}


def _candidate(
    factors: Mapping[str, Sequence[str]], missing: set[Pair], forbidden: set[Pair], chosen: random.Random
) -> dict[str, str]:
    """A combination around a pair that has not met yet, each further value the one that meets most."""
    row = dict(chosen.choice(sorted(missing, key=sorted)))
    others = [name for name in factors if name not in row]
    chosen.shuffle(others)
    for name in others:
        values = [each for each in factors[name] if not _pairs_with(row, (name, each)) & forbidden]
        chosen.shuffle(values)
        row[name] = max(values, key=lambda each, name=name: len(_pairs_with(row, (name, each)) & missing))  # type: ignore[misc]
    return {name: row[name] for name in factors}


def _pairs_with(row: Mapping[str, str], value: Value) -> set[Pair]:
    return {frozenset((each, value)) for each in row.items()}
