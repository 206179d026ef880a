"""The combinations of options that the end-to-end tests play (tests/e2e/test_combinations.py)."""

from __future__ import annotations

from itertools import combinations

from tests.e2e.covering import covering, pairs
from tests.e2e.test_combinations import EXCLUDED, FACTORS, ROWS

OPTIONS, CONTAINERS = 80, 60


def test_they_are_many_options_in_few_containers() -> None:
    assert sum(bool(value) for values in FACTORS.values() for value in values) >= OPTIONS
    assert len(ROWS) <= CONTAINERS


def test_every_two_of_them_meet() -> None:
    met = {frozenset(two) for row in ROWS for two in combinations(row.items(), 2)}
    assert pairs(FACTORS, EXCLUDED) <= met
    assert not met & EXCLUDED


def test_the_same_seed_gives_the_same() -> None:
    factors = {"a": ("", "1", "2"), "b": ("", "1"), "c": ("", "1", "2")}
    assert covering(factors, seed=3) == covering(factors, seed=3)
    assert len(covering(factors, seed=3)) < 3 * 2 * 3
