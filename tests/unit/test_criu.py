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


def _read_as(monkeypatch: pytest.MonkeyPatch, *entries: object) -> None:
    """Have pycriu find `entries` in any image."""
    module = types.ModuleType("pycriu")
    module.images = types.SimpleNamespace(load=lambda _: {"entries": list(entries)})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pycriu", module)


def test_what_can_be_restored_lazily(monkeypatch: pytest.MonkeyPatch) -> None:
    private, shared, of_a_file, locked, huge = 0x22, 0x21, 0x02, 0x2022, 0x40022
    regular, vsyscall, vdso, vvar = 0x201, 0x204, 0x209, 0x1201
    kinds = [
        *((flags, regular) for flags in (private, 0x122, shared, of_a_file, locked, huge)),
        *((private, status) for status in (vsyscall, vdso, vvar)),
    ]
    vmas = [
        {"start": number << 12, "end": number + 1 << 12, "flags": flags, "status": status}
        for number, (flags, status) in enumerate(kinds)
    ]
    _read_as(monkeypatch, {"vmas": vmas[::-1]})
    assert criu.lazy_areas(b"") == [(0, 0x1000), (0x1000, 0x2000)]
    _read_as(monkeypatch, {})
    assert criu.lazy_areas(b"") == []
    damaged: object
    for damaged in ([{}], [None], 1):
        _read_as(monkeypatch, {"vmas": damaged})
        with pytest.raises(IntegrityError, match="mm image"):
            criu.lazy_areas(b"")


def test_an_inventory_without_a_network_lock() -> None:
    message = b"\x08\x02\x58\x00"
    inventory = b"\x25\x83\x67\x31" + len(message).to_bytes(4, "little") + message
    changed = criu.without_network_lock(inventory)
    assert changed[:4] == inventory[:4]
    assert changed[8:] == message + b"\x58\x02"
    assert int.from_bytes(changed[4:8], "little") == len(changed) - 8
    with pytest.raises(IntegrityError):
        criu.without_network_lock(inventory[:-1])


@pytest.mark.parametrize(
    ("error", "sentence", "hint"),
    [
        ("Unknown shit 600 (anon_inode:[io_uring])", "uses io_uring", "forbid io_uring"),
        ("Unknown shit 100600 (anon_inode:[io_uring])", "uses io_uring", "forbid io_uring"),
        ("Unknown shit 600 (anon_inode:[perf_event])", "has anon_inode:[perf_event] in its memory", ""),
        ("send_fds failed (-22)", "nobody else can be given", "io_uring"),
        ("fsnotify: \tCan't dump that handle", "(inotify)", "`irmap-scan-path /DIRECTORY` in /etc/criu/crun.conf"),
        (
            "Can't dump ghost file /a {b} of 3002368 size, increase limit",
            "has /a {b} open, which is deleted, and its 3002368 bytes",
            "`ghost-limit` in /etc/criu/crun.conf",
        ),
        ("Can't create link remap for /a. Use link-remap option.", "has /a open, which is deleted and has", "close it"),
        ("zombie 66 (comm python3) found while seizing", "process 66 cannot be stopped", "TracerPid"),
        ("Unseizable non-zombie 67 found, state T, err -1/10", "process 67 cannot be stopped", "TracerPid"),
        ("inet: Connected TCP socket, consider using --tcp-established option.", "TCP", "--tcp-established"),
        ("locks: Some file locks are hold by dumping tasks!", "file locks", "--file-locks"),
        ("unix: External socket is used. Consider using --ext-unix-sk option.", "unix socket", "closed"),
        ("Can't dump file 5 of that type [20600] (chr 10:200)", "has 10:200 open, which CRIU cannot save", ""),
        ("Can't dump file 5 of that type [600] (anon anon_inode:bpf-link)", "has anon_inode:bpf-link open", ""),
    ],
)
def test_riddles_are_sentences(error: str, sentence: str, hint: str) -> None:
    found = criu.explain(["Dump files (pid: 1) failed with -1", error], "crun")
    assert found
    assert sentence in found.sentence
    assert hint in found.hint
    assert bool(hint) is bool(found.hint)


def test_other_words_of_criu_are_left_as_they_are() -> None:
    assert criu.explain(["Dump files (pid: 1) failed with -1"], "crun") is None
