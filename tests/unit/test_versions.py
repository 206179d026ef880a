"""One reading of versions, whoever asks: what is compared, and what of a version that nobody expected."""

from __future__ import annotations

import contextlib
import dataclasses

import pytest
from msgspec.structs import replace

from ocickpt.description import Criu
from ocickpt.errors import IncompatibleError
from ocickpt.lazy import attach
from ocickpt.memory import page_protocol
from ocickpt.restoration import preflight
from ocickpt.versions import numbers
from tests.unit.test_description import FULL
from tests.unit.test_preflight import HERE, _here

on_this_host = _here
# What is to come counts as what it will be: it has the features, and writes what that will write.
READ = {
    "6.18.5-amd64": (6, 18, 5),
    "4.2.1": (4, 2, 1),
    "4.2": (4, 2),
    "v4.2": (4, 2),
    "4.2-rc1": (4, 2),
    "4.2rc1": (4, 2),
    "4.2~rc1": (4, 2),
    "4.2-dirty": (4, 2),
    "4.2.1+ds": (4, 2, 1),
    "4.2.1-123-gabcdef0": (4, 2, 1),
    "1.28.0-dev": (1, 28, 0),
    "5.4.2+ds1-2+b2": (5, 4, 2),
    "4.2.": (4, 2),
    "4": (4,),
    "": (),
    "x": (),
    "unknown": (),
    ".4.2": (),
    # What only somebody who means harm writes: no number for Python's int, or too long for it.
    "4.\u00b2": (4,),
    "\u0664.2": (),
    "4." + "9" * 5000: (4, 999_999_999),
    "9" * 5000: (999_999_999,),
}


@pytest.mark.parametrize("version", READ)
def test_numbers(version: str) -> None:
    assert numbers(version) == READ[version]


@pytest.mark.parametrize("version", READ)
def test_the_page_server_speaks_as_that_criu_does(version: str) -> None:
    assert page_protocol.is_wide(version) is (READ[version] >= (4, 2))


@pytest.mark.parametrize("version", READ)
def test_no_checkpoint_of_a_newer_criu_is_restored(version: str) -> None:
    description = replace(FULL, criu=Criu(version))
    for here in filter(None, READ):
        older = READ[here][:2] < READ[version][:2]
        with pytest.raises(IncompatibleError) if older else contextlib.nullcontext():
            preflight.check_host(description, dataclasses.replace(HERE, criu=here))


@pytest.mark.parametrize("criu", ["4.2-rc1", "v4.2", "4.2.1+ds"])
@pytest.mark.parametrize("crun", ["1.28", "1.28.0-dev", "v1.28", "1.28-dirty"])
def test_a_lazy_restore_with_them(monkeypatch: pytest.MonkeyPatch, crun: str, criu: str) -> None:
    monkeypatch.setattr("ocickpt.engine.host.runtime_version", lambda _: crun)
    assert attach.unsupported("crun", dataclasses.replace(HERE, criu=criu)) == ""
