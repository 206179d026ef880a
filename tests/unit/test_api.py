"""What `import ocickpt` gives: one function a verb, typed, and as the command has it; loaded when it is called."""

from __future__ import annotations

import dataclasses
import inspect
import re
import subprocess
import sys
import types
import typing
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import click
import pytest

import ocickpt
from ocickpt import errors
from ocickpt.cli.main import VERBS

ROOT = Path(ocickpt.__file__).parents[1]
# The API has names that are no others in Python.
CALLED = {"list": "checkpoints", "rm": "remove"}
FUNCTIONS = [name for name in ocickpt.__all__ if inspect.isfunction(getattr(ocickpt, name))]
# How results are printed is the command's.
OF_THE_COMMAND = {"quiet", "form"}
# What is no option of its verb: how it is told what happens, and `setup --hooks`, which is a function of its own.
OF_PYTHON = {"progress", "on_running"}
ELSEWHERE = {"setup": {"hooks"}}
PROTOCOLS = {"Progress"}
ENUMS = {"Stage"}


def function(name: str) -> Callable[..., Any]:
    found: Callable[..., Any] = getattr(ocickpt, name)
    return found


def command_of(verb: str) -> click.Command:
    found: click.Command = import_module(f"ocickpt.cli.{verb}").command
    return found


def arguments_of(verb: str) -> list[click.Argument]:
    return [each for each in command_of(verb).params if isinstance(each, click.Argument)]


def test_nothing_is_loaded_before_it_is_used() -> None:
    """No library, no room: without site-packages there is none to be loaded."""
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); before = set(sys.modules); import ocickpt; "
    code += "print(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["ocickpt"]


def test_whatever_is_promised_is_there() -> None:
    assert [name for name in ocickpt.__all__ if not hasattr(ocickpt, name)] == []
    assert len(set(ocickpt.__all__)) == len(ocickpt.__all__)
    assert set(ocickpt.__all__) <= set(dir(ocickpt))
    with pytest.raises(AttributeError, match="has no attribute 'migrate_to_mars'"):
        ocickpt.migrate_to_mars  # noqa: B018


def test_what_type_checkers_see_is_what_is_there() -> None:
    """They read the imports, Python the table below them."""
    text = Path(ocickpt.__file__).read_text("utf-8")
    seen = {name: home for home, name in re.findall(r"^    from (\S+) import (\w+) as \2$", text, re.MULTILINE)}
    assert {name: home for name, home in seen.items() if ocickpt._HOME.get(name) != home} == {}
    assert set(seen) == set(ocickpt._HOME) == set(ocickpt.__all__) - {"__version__"}


def test_each_verb_is_a_function() -> None:
    assert {CALLED.get(verb, verb) for verb in VERBS} | {"setup_hooks"} == set(FUNCTIONS)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_each_says_what_it_raises(name: str) -> None:
    text = inspect.getdoc(function(name)) or ""
    known = {each for each, value in vars(errors).items() if inspect.isclass(value)}
    named = set(re.findall(r"\b\w+Error\b", text))
    assert named <= known, f"{name} names an error that there is not"
    assert named or "Never raises" in text or "Raises what" in text, f"{name} does not say what it raises"


@pytest.mark.parametrize("verb", VERBS)
def test_options_are_keywords(verb: str) -> None:
    """Each option of the command is a keyword of the same name, with the same default, and the other way round."""
    told = inspect.signature(function(CALLED.get(verb, verb))).parameters
    options = {str(each.name) for each in command_of(verb).params if isinstance(each, click.Option)}
    options -= OF_THE_COMMAND | ELSEWHERE.get(verb, set())
    keywords = {name for name, each in told.items() if each.kind is inspect.Parameter.KEYWORD_ONLY}
    assert options == keywords - OF_PYTHON
    given = command_of(verb).make_context(verb, ["x" for each in arguments_of(verb) if each.required]).params
    assert {name: given[name] for name in options} == {name: told[name].default for name in options}


@pytest.mark.parametrize("verb", VERBS)
def test_arguments_are_arguments(verb: str) -> None:
    """As many as the command has; `rm` takes several, and removes one after the other."""
    told = inspect.signature(function(CALLED.get(verb, verb))).parameters.values()
    positional = [each for each in told if each.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
    required = [each.required for each in arguments_of(verb)]
    assert [each.default is inspect.Parameter.empty for each in positional] == required


@pytest.mark.parametrize("name", [name for name in ocickpt.__all__ if inspect.isclass(getattr(ocickpt, name))])
def test_results_are_frozen(name: str) -> None:
    kind: Any = getattr(ocickpt, name)
    if name in PROTOCOLS | ENUMS:
        assert not dataclasses.is_dataclass(kind)
    else:
        assert kind.__dataclass_params__.frozen


@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_comes_back_is_public(name: str) -> None:
    """Nobody has to look for the type of a result in a room."""
    scope = {each: getattr(ocickpt, each) for each in ocickpt.__all__}
    annotation = inspect.signature(function(name)).return_annotation
    back = eval(annotation, vars(import_module("ocickpt.api")) | scope)
    kinds = typing.get_args(back) if isinstance(back, types.GenericAlias) else (back,)
    assert all(kind is str or kind in scope.values() for kind in kinds), annotation
