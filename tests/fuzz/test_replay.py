"""Every seed, and every find that was mended, once: without a fuzzer, so that none comes back."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz import target
from tests.fuzz.target import Find, Target, attempt, seed_inputs
from tests.fuzz.targets import TARGETS

# What pycriu's generated code is warned of is not ours to mend.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.lab] if each.needs_lab else []) for name, each in TARGETS.items()]
)
def test_replay(name: str) -> None:
    taken = [attempt(TARGETS[name], data) for data in seed_inputs(name, TARGETS[name])]
    assert any(taken), "no seed leads through the parser: fuzzing begins at its door"


def test_finds_are_of_targets_that_there_are() -> None:
    assert {path.name for path in (Path(target.__file__).parent / "finds").iterdir()} <= set(TARGETS)


def test_what_a_target_may_not_do_is_found() -> None:
    def raises(data: bytes) -> None:
        raise KeyError(data)

    def grows(data: bytes) -> None:
        bytearray(target.most_memory(data) + (8 << 20))[:] = b"\1" * (target.most_memory(data) + (8 << 20))

    with pytest.raises(KeyError):
        attempt(Target(raises, list), b"x")
    with pytest.raises(Find, match="MiB for 1 bytes"):
        attempt(Target(grows, list), b"x")
