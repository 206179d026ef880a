"""The table of the runtimes' options, and what is read by it; in the lab it is held against what the runtimes say."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from ocickpt.engine.runtime import command_line

ID = "job"


@pytest.mark.parametrize(
    ("words", "position"),
    [
        (["create", "job"], 0),
        (["--log", "create", "--root=/r", "--systemd-cgroup", "start", "job"], 4),
        (["-log", "create", "--debug", "delete"], 3),
        (["--log=x", "--", "state", "job"], 2),
        (["--version"], 1),
        (["--log"], 1),
        ([], 0),
    ],
)
def test_where_the_subcommand_stands(words: list[str], position: int) -> None:
    assert command_line.subcommand(words) == position


@pytest.mark.parametrize(
    ("verb", "words"),
    [
        ("delete", ["-f", ID]),
        ("delete", ["--force", ID]),
        ("delete", [ID, "--force"]),
        ("delete", ["-fr", ID]),
        ("delete", ["--", ID]),
        ("create", ["-f", "other.json", ID]),
        ("create", ["-fother.json", ID]),
        ("create", ["--config", "other.json", "-b", "x", ID]),
        ("create", ["--bundle", "/b", "--pid-file", "/p", "--no-pivot", ID]),
        ("create", ["--bundle=/b", "-b", "x", ID, "9"]),
        ("create", ["-no-subreaper", "-pid-file", "x", ID]),
        ("create", ["--preserve-fds", "3", "--", ID]),
        ("restore", ["-db", "/b", ID]),
        ("restore", ["-d", "-b/b", "--lsm-profile", "apparmor:x", ID]),
        ("checkpoint", ["--image-path", "--work-path", "--leave-running", ID]),
        ("start", [ID]),
        ("state", [ID]),
    ],
)
def test_the_container_among_options(verb: str, words: list[str]) -> None:
    assert command_line.container(words, verb) == ID


def test_no_container() -> None:
    assert command_line.container(["--help"], "create") == ""
    assert command_line.container(["--bundle"], "create") == ""
    assert command_line.container([], "delete") == ""


@pytest.mark.parametrize(
    "words",
    [
        ["--bundle", "/b"], ["--bundle=/b"], ["-b", "/b"], ["-b=/b"], ["-b/b"], ["-bundle", "/b"], ["--b", "/b"],
        ["--pid-file", "--bundle=/x", "--bundle", "/b"], [ID, "-b", "/b"],
    ],
)  # fmt: skip
def test_an_options_value_however_it_is_written(words: list[str]) -> None:
    assert command_line.option(words, "--bundle", "create") == "/b"


def test_what_is_a_value_or_comes_after_all_options_is_no_option() -> None:
    assert command_line.option(["--pid-file", "--bundle", "/b"], "--bundle", "create") == ""
    assert command_line.option(["--", "--bundle", "/b"], "--bundle", "create") == ""
    assert not command_line.flag(["--image-path", "--leave-running", ID], "--leave-running", "checkpoint")
    assert command_line.flag(["--leave-running", ID], "--leave-running", "checkpoint")
    assert command_line.flag(["--leave-running=true", ID], "--leave-running", "checkpoint")
    assert not command_line.flag(["--leave-running=false", ID], "--leave-running", "checkpoint")
    assert command_line.flag([ID, "-f"], "-f", "delete")


# What `--help` says: runc's "--bundle value, -b value", crun's "-b, --bundle=DIR".
_RUNC = re.compile(r"^ +((?:--?[\w-]+(?: value)?(?:, )?)+)(?:  |$)", re.MULTILINE)
_CRUN = re.compile(r"^ +((?:--?[\w?-]+(?:=\w+)?(?:, )?)+)(?:  | +\w|$)", re.MULTILINE)


def shown(runtime: str, verb: str) -> tuple[set[tuple[str, ...]], set[tuple[str, ...]]]:
    """The names of the options that a runtime shows: of those with a value, and of those without."""
    program = shutil.which(runtime)
    assert program
    text = subprocess.run([program, *([verb] if verb else []), "--help"], check=True, capture_output=True).stdout
    valued, plain = set[tuple[str, ...]](), set[tuple[str, ...]]()
    for found in (_RUNC if runtime == "runc" else _CRUN).finditer(text.decode()):
        words = found[1].split(", ")
        names = tuple(sorted((re.split("[ =]", each)[0] for each in words), key=len, reverse=True))
        (valued if any(" " in each or "=" in each for each in words) else plain).add(names)
    return valued, plain


@pytest.mark.lab
@pytest.mark.parametrize("verb", command_line.VALUED)
def test_the_runtimes_have_the_options_of_the_table(verb: str) -> None:
    valued, letters = set[tuple[str, ...]](), set[str]()
    for runtime in ("runc", "crun"):
        its, plain = shown(runtime, verb)
        assert any("--help" in names for names in plain) or runtime == "runc"
        table = {name for names in command_line.VALUED[verb] for name in names}
        assert not {name for names in plain for name in names} & table, f"{runtime} {verb} has these without a value"
        valued |= its
        letters |= {name[1] for names in plain for name in names if len(name) == 2}
    assert valued == {each for each in command_line.VALUED[verb] if each[0] not in command_line.HIDDEN}
    assert letters - set("h?vV") == set(command_line.SWITCHES.get(verb, ""))


@pytest.mark.lab
@pytest.mark.parametrize("name", command_line.HIDDEN)
def test_what_is_hidden_is_taken_all_the_same(name: str) -> None:
    program = shutil.which("runc")
    assert program
    assert subprocess.run([program, name, "x", "--version"], check=True, capture_output=True).stdout
