"""The table of fields against CRIU's own description of its images, and what is made of a field that is not in it.

``golden/criu-4.2-fields.txt`` has a line for each message of CRIU v4.2's images/*.proto that a checkpoint can have: its
name, file and line, and the names and types of its fields, a repeated one with an asterisk.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocickpt.errors import IntegrityError, OcickptError, UnsupportedError
from ocickpt.gate import images as gate_images
from ocickpt.gate.fields import TABLE, walk
from ocickpt.gate.fields.cells import PART, Bits, Cell, Length, Row, Text

# These hold a message by its kind, or its fields by the beginning of their names.
OF_WHOLE_MESSAGES = ("files._file", "contents.check_pagemap", "tasks._capabilities", "tasks._check_network")
GOLDEN = Path(__file__).parent / "golden" / "criu-4.2-fields.txt"


def described() -> dict[str, tuple[str, dict[str, str]]]:
    """CRIU's messages: where each is described, and the types of its fields."""
    lines = [line.split() for line in GOLDEN.read_text("utf-8").splitlines()]
    return {name: (source, dict(field.split(":") for field in fields)) for name, source, *fields in lines}


def test_the_table_has_the_fields_that_criu_has_and_no_other() -> None:
    assert {name: (row.source, set(row.cells)) for name, row in TABLE.items()} == {
        name: (source, set(fields)) for name, (source, fields) in described().items()
    }


def cells() -> Iterator[tuple[str, str, Cell]]:
    for name, (_, fields) in described().items():
        for field, kind in fields.items():
            yield f"{name}.{field}", kind, TABLE[name].cells[field]


def test_what_can_be_long_has_a_bound() -> None:
    for name, kind, cell in cells():
        assert kind.endswith("*") == (cell.most != 1 or name.endswith("sk_packet_entry.scm")), name
        if kind.rstrip("*") in ("string", "bytes"):
            assert isinstance(cell.values, Text | Length) or cell.values == (), name


def test_a_message_is_walked_into() -> None:
    for name, kind, cell in cells():
        if kind.rstrip("*") in TABLE:
            assert cell.why in (PART.why, Cell("nothing that a container of podman's has").why), name
        else:
            assert cell.why != PART.why, name


def test_every_rule_is_there() -> None:
    rules = {cell.rule for _, _, cell in cells() if cell.rule}
    assert len(rules) > 20
    for rule in rules:
        module, function = rule.split(".")
        assert callable(getattr(import_module(f"ocickpt.gate.{module}"), function)), rule
    assert all(cell.rule for _, _, cell in cells() if cell.why == "held")


def test_every_rule_speaks_of_its_fields() -> None:
    for name, _, cell in cells():
        if cell.rule and cell.rule not in OF_WHOLE_MESSAGES:
            module = import_module(f"ocickpt.gate.{cell.rule.partition('.')[0]}")
            field = name.partition(".")[2]
            assert re.search(rf'[."]{field}\b', Path(str(module.__file__)).read_text("utf-8")), name


@given(st.integers(min_value=0, max_value=(1 << 64) - 1), st.integers(min_value=0, max_value=(1 << 64) - 1))
def test_bits(mask: int, value: int) -> None:
    assert (value in Bits(mask)) == (value | mask == mask)


@given(st.text())
def test_a_string_ends_where_criu_takes_it_to_end(value: str) -> None:
    for each in (value, raw := value.encode()):
        assert (each in Text(5)) == (len(raw) <= 5 and b"\0" not in raw)


def messages() -> Any:
    from pycriu import images

    return images


def nobody(_capability: str) -> bool:
    return False


@pytest.mark.lab
@pytest.mark.filterwarnings("ignore")
class TestWithPycriu:
    """What pycriu has compiled of CRIU's description."""

    def test_its_messages_are_those_of_the_table(self) -> None:
        images = messages()
        waiting = [getattr(images.pb, name).DESCRIPTOR for name in EXTRA]
        for kind in (*gate_images.DECODED.values(), *(kind for kind, _ in gate_images.FOLLOWED.values())):
            if payload := getattr(images.handlers[kind], "payload", None):
                waiting.append(payload.DESCRIPTOR)
        found: dict[str, Any] = {}
        while waiting:
            each = waiting.pop()
            if each.name not in found:
                found[each.name] = each
                waiting.extend(field.message_type for field in each.fields if field.message_type)
        assert {name: {field.name for field in each.fields} for name, each in found.items()} == {
            name: set(row.cells) for name, row in TABLE.items()
        }
        for name, each in found.items():
            assert TABLE[name].source.startswith(f"{each.file.name}:")

    def test_a_field_without_a_row(self, monkeypatch: pytest.MonkeyPatch) -> None:
        entry = messages().pb.pstree_entry(pid=1, ppid=0, pgid=1, sid=1)
        walk.check_message("pstree", entry, nobody)
        row = TABLE["pstree_entry"]
        less = {name: cell for name, cell in row.cells.items() if name != "sid"}
        monkeypatch.setitem(TABLE, "pstree_entry", Row(row.source, less))
        walk._plan.cache_clear()
        with pytest.raises(UnsupportedError, match=r"pstree\.img has sid set, which is on no list of fields"):
            walk.check_message("pstree", entry, nobody)
        monkeypatch.delitem(TABLE, "pstree_entry")
        walk._plan.cache_clear()
        with pytest.raises(UnsupportedError, match="on no list of fields"):
            walk.check_message("pstree", entry, nobody)
        walk._plan.cache_clear()

    def test_a_value_deep_inside_is_named(self) -> None:
        entry = messages().pb.mm_entry()
        vma = entry.vmas.add()
        vma.flags = 1 << 25
        with pytest.raises(IntegrityError, match=r"mm-1\.img has vmas\.flags 33554432, which no container has"):
            walk.check_message("mm-1", entry, nobody)

    def test_what_takes_a_capability(self) -> None:
        entry = messages().pb.sk_opts_entry(so_mark=7)
        with pytest.raises(IntegrityError, match="so_mark 7, which takes CAP_NET_ADMIN or CAP_NET_RAW"):
            walk.check_message("files", entry, nobody)
        walk.check_message("files", entry, lambda capability: capability == "NET_RAW")

    def test_too_many_and_too_few(self) -> None:
        creds = messages().pb.creds_entry(cap_inh=[0, 0], cap_prm=[0, 0], cap_eff=[0, 0], cap_bnd=[0, 0])
        walk.check_message("core-1", creds, nobody)
        creds.cap_bnd.append(0)
        with pytest.raises(IntegrityError, match="cap_bnd 3 times instead of 2 to 2"):
            walk.check_message("core-1", creds, nobody)
        creds.ClearField("cap_bnd")
        with pytest.raises(IntegrityError, match="cap_bnd 0 times instead of 2 to 2"):
            walk.check_message("core-1", creds, nobody)

    def test_every_field_that_is_set_is_looked_at(self) -> None:
        """Each field of each message, with the largest value it can have: it is held, or may have any."""
        for name, row in TABLE.items():
            for field in getattr(messages().pb, name, messages().pb.core_entry).DESCRIPTOR.fields:
                if field.name not in row.cells or field.message_type or field.enum_type:
                    continue
                cell = row.cells[field.name]
                entry = getattr(messages().pb, name)()
                value = LARGEST.get(field.type)
                if value is None:
                    continue
                if field.label == field.LABEL_REPEATED:
                    getattr(entry, field.name).extend([value] * max(cell.least, 1))
                else:
                    setattr(entry, field.name, value)
                needed = {each.name for each in walk._plan(entry.DESCRIPTOR).needed} - {field.name}
                holds = cell.most == 0 or (cell.values is not None and value not in cell.values)
                try:
                    walk.check_message("x", entry, nobody)
                    assert not holds and not needed, f"{name}.{field.name}"
                except OcickptError as error:
                    assert holds or needed, f"{name}.{field.name}: {error.message}"


EXTRA = ("ghost_file_entry", "ghost_chunk_entry", "ipc_msg", "pagemap_head", "pagemap_entry")
LARGEST = {
    3: (1 << 63) - 1,
    4: (1 << 64) - 1,
    5: (1 << 31) - 1,
    13: (1 << 32) - 1,
    9: "x" * (1 << 20),
    12: b"x" * (1 << 20),
}
