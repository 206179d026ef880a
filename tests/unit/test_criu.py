"""CRIU's words: its log, and pycriu, which is not on every machine."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest

from ocickpt.engine import criu
from ocickpt.errors import IntegrityError, PrerequisiteError

LOG = """\
(00.000001) Version: 4.2.1 (gitid 0)
(00.010000) Error (criu/sk-inet.c:191): inet: Connected TCP socket, consider using --tcp-established option.
(00.010001) Warn  (criu/image.c:120): Failed to open parent directory
(00.020000) Error (criu/cr-dump.c:2128): Dumping FAILED.
"""


def test_errors_are_found_in_a_log(tmp_path: Path) -> None:
    log = tmp_path / "dump.log"
    assert criu.log_errors(log) == []
    log.write_bytes(b"\xff" + b"x" * (1 << 20) + b"\n" + LOG.encode())
    # The last one only says that there was another.
    assert criu.log_errors(log) == ["inet: Connected TCP socket, consider using --tcp-established option."]


def test_without_pycriu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycriu", None)
    monkeypatch.setattr(sys, "prefix", sys.base_prefix)
    with pytest.raises(PrerequisiteError, match="pycriu is not installed") as raised:
        criu.images_lsm(b"")
    assert raised.value.hint == "it comes with the distribution: python3-pycriu (Debian), python3-criu (Fedora)"
    monkeypatch.setattr(sys, "prefix", "/a/venv")
    with pytest.raises(PrerequisiteError) as raised:
        criu.pycriu_images()
    assert raised.value.hint.endswith("--system-site-packages")


def test_a_pycriu_that_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(types.ModuleType):
        def __getattr__(self, name: str) -> object:
            raise TypeError("Descriptors cannot be created directly.")

    monkeypatch.setitem(sys.modules, "pycriu", Broken("pycriu"))
    with pytest.raises(PrerequisiteError, match="pycriu cannot be imported"):
        criu.images_lsm(b"")


def test_an_inventory_without_a_network_lock() -> None:
    message = b"\x08\x02\x58\x00"
    inventory = b"\x25\x83\x67\x31" + len(message).to_bytes(4, "little") + message
    changed = criu.without_network_lock(inventory)
    assert changed[:4] == inventory[:4]
    assert changed[8:] == message + b"\x58\x02"
    assert int.from_bytes(changed[4:8], "little") == len(changed) - 8
    with pytest.raises(IntegrityError):
        criu.without_network_lock(inventory[:-1])
