"""Text made safe, sizes, JSON, tables."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocickpt.cli import output
from ocickpt.model import Kind


@given(st.text())
def test_what_is_printed_is_printable(text: str) -> None:
    shown = output.printable(text)
    assert shown.isprintable()
    assert output.printable(shown) == shown
    shown.encode("utf-8")


@given(st.binary())
def test_bytes_that_are_no_text_are_shown(data: bytes) -> None:
    output.printable(data.decode("utf-8", "surrogateescape")).encode("utf-8")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("web", "web"),
        ("größer 服务 👍", "größer 服务 👍"),
        ("a\x1b[31mb", "a\\x1b[31mb"),
        ("a\nb\r\x00", "a\\nb\\r\\x00"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("\x9b2J", "\\x9b2J"),
        ("\udcff", "\\udcff"),
    ],
)
def test_printable(text: str, shown: str) -> None:
    assert output.printable(text) == shown


def test_lines_stay_where_they_are_wanted() -> None:
    assert output.printable("a\nb\t\r\n", lines=True) == "a\nb\\t\\r\n"


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1, "1 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (999_949, "999.9 kB"),
        (999_950, "1.0 MB"),
        (545_200_000, "545.2 MB"),
        (1 << 30, "1.1 GB"),
        (10**18, "1000.0 PB"),
    ],
)
def test_size(count: int, text: str) -> None:
    assert output.size(count) == text


@dataclass(frozen=True)
class Thing:
    name: str
    path: Path
    kinds: dict[Kind, tuple[int, ...]]
    data: bytes = b"\x01\xff"
    nothing: None = None


def test_json_is_plain_and_ascii(capsys: pytest.CaptureFixture[str]) -> None:
    output.data_json([Thing("\x1b\u202eé", Path("/x"), {Kind.MEMORY: (1, 2)})])
    printed = capsys.readouterr().out
    assert printed.isascii()
    assert "\x1b" not in printed
    assert json.loads(printed) == [
        {"name": "\x1b\u202eé", "path": "/x", "kinds": {"memory": [1, 2]}, "data": "01ff", "nothing": None}
    ]


def test_a_table_lines_up(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(("A", "SIZE", "B"), [("x", "1 B", "y\n"), ("long", "10 B", "")], right=(1,))
    assert capsys.readouterr().out == "A     SIZE  B\nx      1 B  y\\n\nlong  10 B\n"


def test_a_table_on_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "40")
    output.table(("NAME", "SIZE"), [("[bold]x\x1b[2J", "1 B")], right=(1,))
    shown = capsys.readouterr().out
    assert "[bold]x\\x1b[2J" in shown
    assert "\x1b[2J" not in shown


def test_digests_are_shown_short() -> None:
    digest = "sha256:" + "0123456789abcdef" * 4
    assert output.short(digest) == "sha256:0123456789ab"
    assert output.short(f"registry:5000/ck/db:1@{digest}") == "registry:5000/ck/db:1@sha256:0123456789ab"
    assert output.short("before-upgrade:latest") == "before-upgrade:latest"
