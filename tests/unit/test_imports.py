"""The house's rules of who may import whom, held against the source itself."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import ocickpt

PACKAGE = Path(ocickpt.__file__).parent
MODULES = sorted(path.relative_to(PACKAGE.parent) for path in PACKAGE.rglob("*.py"))
MOST_LINES = 500

BOTTOM = {"ocickpt", "ocickpt.errors", "ocickpt.names", "ocickpt.model", "ocickpt.proc", "ocickpt.schema"}
BOTTOM |= {"ocickpt.description", "ocickpt.config", "ocickpt.libraries", "ocickpt.versions", "ocickpt.processes"}
BOTTOM |= {"ocickpt.engine.runtime.command_line", "ocickpt.engine.runtime.calling"}
ROOMS = ("engine", "memory", "pack", "store", "trust")

# What each room may import besides itself and BOTTOM. Longest name first found wins.
MAY_IMPORT = {
    "ocickpt": set[str](),
    **{f"ocickpt.{room}": set[str]() for room in ROOMS},
    "ocickpt.gate": {"ocickpt.engine", "ocickpt.trust"},
    "ocickpt.flows": {*(f"ocickpt.{room}" for room in (*ROOMS, "gate")), "ocickpt.shim", "ocickpt.guard"},
    # The command line knows flows, and the two types of the store that users write down.
    "ocickpt.cli": {"ocickpt.flows", "ocickpt.store.Access", "ocickpt.store.Reference"},
    "ocickpt.__main__": {"ocickpt.cli"},
    "ocickpt.shim": {"ocickpt.engine", "ocickpt.flows", "ocickpt.guard"},
    "ocickpt.hook": {"ocickpt.flows"},
    "ocickpt.guard": set[str](),
    "ocickpt.pageserver": {"ocickpt.flows", "ocickpt.guard", "ocickpt.memory", "ocickpt.store"},
}
# At the bottom, the smaller know nothing of the greater.
ORDER = (
    "ocickpt.errors", "ocickpt.libraries", "ocickpt.versions", "ocickpt.names", "ocickpt.engine.runtime.command_line", "ocickpt.processes",
    "ocickpt.engine.runtime.calling", "ocickpt.model", "ocickpt.schema",
    "ocickpt.config", "ocickpt.proc", "ocickpt.description",
)  # fmt: skip
SUBPROCESSES = {"ocickpt.proc", "ocickpt.engine.runtime.calling", "ocickpt.shim", "ocickpt.guard"}


def name_of(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse((PACKAGE.parent / path).read_text("utf-8"), str(path))


def imported(path: Path, nodes: Iterator[ast.AST]) -> Iterator[str]:
    """Every name that is imported, in full: ``ocickpt.store.Access``."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def within(name: str, room: str) -> bool:
    return name == room or name.startswith(f"{room}.")


def room_of(module: str) -> str:
    return max((room for room in MAY_IMPORT if within(module, room)), key=len)


def at_module_level(tree: ast.Module) -> Iterator[ast.AST]:
    """The nodes that run on import: all but the bodies of functions, and what only type checkers read."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and not _type_checking(node):
            waiting.extend(ast.iter_child_nodes(node))


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_go_down_the_table(path: Path) -> None:
    module = name_of(path)
    room = room_of(module)
    for name in imported(path, ast.walk(tree_of(path))):
        if not within(name, "ocickpt") or (room != "ocickpt" and within(name, room)):
            continue
        allowed = MAY_IMPORT[room] | BOTTOM - {"ocickpt"}
        fine = name in BOTTOM or name == "ocickpt.__version__" or any(within(name, each) for each in allowed)
        assert fine, f"{module} must not import {name}"


@pytest.mark.parametrize("module", ORDER)
def test_the_bottom_has_an_order(module: str) -> None:
    path = Path(*module.split(".")).with_suffix(".py")
    for name in imported(path, ast.walk(tree_of(path))):
        for greater in ORDER[ORDER.index(module) :]:
            assert not within(name, greater), f"{module} must not import {name}"


def test_the_shim_loads_only_what_it_needs() -> None:
    import sys

    path = Path("ocickpt/shim.py")
    for name in imported(path, at_module_level(tree_of(path))):
        top = name.partition(".")[0]
        ours = any(
            within(name, each)
            for each in ("ocickpt.errors", "ocickpt.model", "ocickpt.names", "ocickpt.engine.runtime.command_line")
        )
        assert ours or top in sys.stdlib_module_names, f"the shim loads {name} before it is needed"


def test_verbs_load_their_flow_when_they_are_called() -> None:
    for path in MODULES:
        if within(name_of(path), "ocickpt.cli"):
            for name in imported(path, at_module_level(tree_of(path))):
                assert not within(name, "ocickpt.flows"), f"{path} loads {name} at once"
                assert not within(name, "rich"), f"{path} loads rich at once"


def _type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_module_is_long(path: Path) -> None:
    assert len((PACKAGE.parent / path).read_text("utf-8").splitlines()) <= MOST_LINES


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_what_is_banned(path: Path) -> None:
    module, tree = name_of(path), tree_of(path)
    tops = {name.partition(".")[0] for name in imported(path, ast.walk(tree))}
    assert "tarfile" not in tops, f"{module}: tar archives go through libarchive"
    assert module in SUBPROCESSES or "subprocess" not in tops, f"{module}: subprocesses go through proc.py"
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in {"os.system", "os.popen"}, f"{module}:{node.lineno}: {called}"
            for keyword in node.keywords:
                assert keyword.arg != "shell", f"{module}:{node.lineno}: shell="


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_every_module_says_what_it_is_for(path: Path) -> None:
    assert ast.get_docstring(tree_of(path)), f"{path} has no docstring"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_only_entry_points_exit(path: Path) -> None:
    module = name_of(path)
    if within(module, "ocickpt.cli") or module in {
        "ocickpt.shim",
        "ocickpt.hook",
        "ocickpt.pageserver",
        "ocickpt.__main__",
    }:
        return
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Call):
            assert ast.unparse(node.func) not in {"sys.exit", "exit", "os._exit"}, f"{module}:{node.lineno} exits"
