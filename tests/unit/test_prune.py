"""Which checkpoints stay when the old ones go."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocickpt.errors import UsageError
from ocickpt.library.catalog import Listed
from ocickpt.library.prune import Keep, decide

NEWEST = datetime(2026, 3, 4, 12, 30, tzinfo=UTC)


def listed(ago: timedelta, tag: str = "", container: str = "web", digest: str = "") -> Listed:
    when = NEWEST - ago
    tag = tag or when.strftime("%m%d-%H%M")
    return Listed(f"reg:5000/web:{tag}", digest or f"sha256:{tag}-{container}", when.isoformat(), container, "", 1)


def kept(found: list[Listed], keep: Keep) -> list[str]:
    """The tags of those that stay."""
    return [each.name.rpartition(":")[2] for each in decide(found, keep) if each.kept]


HALF_HOURS = [listed(timedelta(minutes=30 * number)) for number in range(48 * 40)]


@pytest.mark.parametrize(
    ("keep", "tags"),
    [
        (Keep(last=3), ["0304-1230", "0304-1200", "0304-1130"]),
        (Keep(hourly=3), ["0304-1230", "0304-1130", "0304-1030"]),
        (Keep(daily=3), ["0304-1230", "0303-2330", "0302-2330"]),
        (Keep(weekly=3), ["0304-1230", "0301-2330", "0222-2330"]),
        (Keep(monthly=3), ["0304-1230", "0228-2330", "0131-2330"]),
        (Keep(within=Keep.span("1h")), ["0304-1230", "0304-1200", "0304-1130"]),
        (Keep(last=1, daily=2), ["0304-1230", "0303-2330"]),
        (Keep(tags=("0303-12*", "0201-0000")), ["0303-1230", "0303-1200", "0201-0000"]),
    ],
)
def test_what_is_kept(keep: Keep, tags: list[str]) -> None:
    assert kept(HALF_HOURS, keep) == tags
    assert kept([*reversed(HALF_HOURS)], keep) == tags


def test_hours_without_checkpoints_do_not_count() -> None:
    found = [listed(timedelta(days=number * 9)) for number in range(5)]
    assert len(kept(found, Keep(hourly=3))) == len(kept(found, Keep(daily=3))) == 3


def test_each_container_for_itself() -> None:
    found = [listed(timedelta(hours=number), f"{name}{number}", name) for number in range(4) for name in ("web", "db")]
    assert sorted(kept(found, Keep(last=1))) == ["db0", "web0"]


def test_one_manifest_has_one_fate() -> None:
    """A registry deletes it with all tags that it has."""
    found = [listed(timedelta(hours=1), "old", digest="sha256:x"), listed(timedelta(), "new")]
    assert kept([*found, replace(found[0], name="reg:5000/web:v1")], Keep(last=1, tags=("v*",))) == ["new", "v1", "old"]


def test_what_is_damaged_stays() -> None:
    """And so does what shares its manifest, and what has no date."""
    bad = replace(listed(timedelta(hours=5), "bad"), state="damaged: 1 of its 3 blobs are gone")
    undated = replace(listed(timedelta(hours=5), "undated"), created="yesterday")
    found = decide([bad, undated, listed(timedelta(), "new"), listed(timedelta(hours=1), "old")], Keep(last=1))
    assert [(each.name.rpartition(":")[2], each.kept) for each in found] == [
        ("new", ("last",)),
        ("old", ()),
        ("bad", ("damaged: 1 of its 3 blobs are gone",)),
        ("undated", ("undated",)),
    ]


@given(
    ages=st.lists(st.integers(0, 10**6), max_size=40),
    last=st.integers(1, 9),
    hourly=st.integers(1, 9),
    daily=st.integers(1, 9),
    within=st.integers(1, 10**5),
)
def test_never_fewer_than_each_rule_says(ages: list[int], last: int, hourly: int, daily: int, within: int) -> None:
    found = [listed(timedelta(minutes=age), f"t{number}") for number, age in enumerate(ages)]
    keep = Keep(last, hourly, daily, within=timedelta(minutes=within))
    stay = set(kept(found, keep))
    alone = [Keep(last=last), Keep(hourly=hourly), Keep(daily=daily)]
    assert stay == {tag for rule in [*alone, Keep(within=keep.within)] for tag in kept(found, rule)}
    assert len(stay) >= min(last, len(found))


@pytest.mark.parametrize("text", ["", "5", "d", "1d2w", "-1h", "1.5h", "1h ", "٣d", "99999999999w", "999999999w"])
def test_spans_that_are_none(text: str) -> None:
    with pytest.raises(UsageError):
        Keep.span(text)


def test_spans() -> None:
    assert Keep.span("1w2d3h4m") == timedelta(weeks=1, days=2, hours=3, minutes=4)


def test_somebody_has_to_say_what_is_kept() -> None:
    with pytest.raises(UsageError, match="nothing says what is to be kept"):
        Keep()
    with pytest.raises(UsageError, match="below zero"):
        Keep(last=-1)
