"""The documentation that the commands write."""

from __future__ import annotations

import re

import pytest

from ocickpt.cli import reference
from ocickpt.cli.main import VERBS
from ocickpt.errors import OcickptError


def test_every_verb_and_option_is_in_it() -> None:
    markdown, manual = reference.markdown(), reference.manual()
    found = list(reference.verbs())
    assert [verb.name for verb in found] == list(VERBS)
    for verb in found:
        assert f"### `ocickpt {verb.name}`" in markdown
        assert f".SS ocickpt {verb.name} " in manual
        assert verb.paragraphs[0].endswith(".")
        for names, text in verb.options:
            words = " ".join(text.split())
            assert f"- `{names}`: {words}" in markdown
            assert words.endswith((".", "]")), f"{verb.name} {names}: a help text is a sentence"


def test_every_exit_code_is_in_the_manual() -> None:
    def codes(kind: type[OcickptError]) -> set[int]:
        return {kind.exit_code}.union(*(codes(each) for each in kind.__subclasses__()))

    told = {int(code) for code in re.findall(r"^\.B (\d+)$", reference.manual(), re.MULTILINE)}
    assert told == codes(OcickptError) | {0, 130}


def test_no_line_of_the_manual_is_a_request_by_accident() -> None:
    requests = {".TH", ".SH", ".SS", ".PP", ".TP", ".B"}
    for line in reference.manual().splitlines():
        if line.startswith((".", "'")) and not line.startswith('.\\"'):
            assert line.split()[0] in requests
    assert reference._roff(".TH \\n --x") == r"\&.TH \en \-\-x"


def test_only_what_is_between_the_marks_is_replaced() -> None:
    readme = f"before\n{reference.BEGIN}\nwhat stood here\n{reference.END}\nafter\n"
    written = next(iter(reference.documents(readme).values()))
    assert written.startswith(f"before\n{reference.BEGIN}\n")
    assert written.endswith(f"{reference.END}\nafter\n")
    assert "what stood here" not in written
    with pytest.raises(SystemExit):
        reference.documents("no marks")
