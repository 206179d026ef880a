"""Calls that CRIU would have fail, because their container was dumped while they waited."""

from __future__ import annotations

import errno

import pytest

from ocickpt.gate import waits
from ocickpt.gate.images import Images, encoded

# What pycriu's generated code is warned of is not ours to mend.
pytestmark = [pytest.mark.lab, pytest.mark.filterwarnings("ignore")]

INTERRUPTED, NANOSLEEP, READ, IP = (1 << 64) - errno.EINTR, 35, 0, 0x401002
NAME = "core-7.img"


def core(**registers: int) -> bytes:
    message = Images([], lambda _: b"").changeable("core-7")
    message.mtype = 1
    message.thread_info.clear_tid_addr = 0
    found, floating = message.thread_info.gpregs, message.thread_info.fpregs
    for part in (found, floating):
        for field in part.DESCRIPTOR.fields:
            if field.label == field.LABEL_REQUIRED:
                setattr(part, field.name, 1)
    for name, value in registers.items():
        setattr(found, name, value)
    return encoded("core-7", message)


def begun_again(data: bytes, **instead: bytes) -> dict[str, bytes]:
    images = Images([NAME], lambda _: data)
    return waits.begun_again(images, {name.replace("_", "-") + ".img": each for name, each in instead.items()})


def test_a_sleep_begins_anew() -> None:
    found = begun_again(core(ax=INTERRUPTED, orig_ax=NANOSLEEP, ip=IP, di=5))
    assert found == {NAME: core(ax=NANOSLEEP, orig_ax=NANOSLEEP, ip=IP - 2, di=5)}
    assert begun_again(found[NAME]) == {}


def test_what_is_given_instead_is_what_is_changed() -> None:
    found = begun_again(core(ax=0), core_7=core(ax=INTERRUPTED, orig_ax=NANOSLEEP, ip=IP, si=9))
    assert found == {NAME: core(ax=NANOSLEEP, orig_ax=NANOSLEEP, ip=IP - 2, si=9)}


@pytest.mark.parametrize(
    "registers",
    [
        {"ax": INTERRUPTED, "orig_ax": READ},
        {"ax": INTERRUPTED, "orig_ax": (1 << 64) - 1},
        {"ax": 0, "orig_ax": NANOSLEEP},
        {"ax": INTERRUPTED, "orig_ax": NANOSLEEP, "ip": 1},
        {"ax": INTERRUPTED, "orig_ax": NANOSLEEP, "mode": 2},
    ],
)
def test_other_calls_are_left_alone(registers: dict[str, int]) -> None:
    assert begun_again(core(**{"ip": IP} | registers)) == {}
