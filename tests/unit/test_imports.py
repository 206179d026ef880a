"""The house's rules of who may import whom, held against the source itself."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import ocickpt

PACKAGE = Path(ocickpt.__file__).parent
MODULES = sorted(path.relative_to(PACKAGE.parent) for path in PACKAGE.rglob("*.py"))
MOST_LINES = 400
MOST_OF_ALL = 0.2

# The rooms, top first. A row may import what stands in the rows below it; what stands in one row does not import
# its neighbours. `ocickpt.__init__`, `api` and `verbs` are one: the public face.
ROWS: tuple[tuple[str, ...], ...] = (
    ("__main__", "shim", "hook", "guard", "pageserver"),
    ("cli",),
    ("api",),
    ("save", "restoration", "hostsetup", "exchange", "insight", "library"),
    ("lazy", "gate"),
    ("artifact", "operations"),
    ("engine", "memory", "pack", "store", "trust"),
)
# At the bottom the smaller know nothing of the greater, which come last.
BOTTOM = (
    "errors", "libraries", "versions", "names", "failpoint", "atomic", "processes", "rendezvous", "model",
    "structs", "oci", "asked", "config", "log", "proc", "description",
)  # fmt: skip
ENTRY_POINTS, FACE = ROWS[0], ("", "api", "registration")
# What the command line may import besides the public face and itself.
OF_CLI = ("errors", "model", "libraries")
# What is counted as a room of its own where rooms are measured.
INNER = ("engine.podman", "engine.runtime", "engine.criu", "engine.files")

SUBPROCESSES = {"proc", "engine.runtime.calling", "save.frozen", "save.unasked", "restoration.asked", "lazy.guarding"}
# What is loaded with each of these, which are in the way of every container or of every lazy restore.
QUICK = {
    "shim": {"shim", "rendezvous", "engine", "engine.runtime", "engine.runtime.command_line"},
    "guard": {"guard", "lazy", "lazy.guarding", "lazy.states", "atomic", "processes", "rendezvous"},
}


def name_of(path: Path) -> str:
    """A module's name without the package's: ``store.layout``, and nothing for the package itself."""
    return ".".join(path.with_suffix("").parts[1:]).removesuffix("__init__").removesuffix(".")


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


def ours(path: Path, nodes: Iterator[ast.AST]) -> Iterator[str]:
    """The modules of ours that are imported there."""
    known = {name_of(each) for each in MODULES}
    for name in imported(path, nodes):
        top, _, rest = name.partition(".")
        if top != "ocickpt":
            continue
        while rest not in known:
            rest = rest.rpartition(".")[0]
        yield rest


def room_of(module: str) -> str:
    """The room, or the small module at the bottom, that a module belongs to."""
    return "api" if module in FACE else module.partition(".")[0]


def below(room: str) -> set[str]:
    """What a room may import besides itself."""
    if room in BOTTOM:
        return set(BOTTOM[: BOTTOM.index(room)])
    (row,) = (number for number, rooms in enumerate(ROWS) if room in rooms)
    return {each for rooms in ROWS[row + 1 :] for each in rooms} | set(BOTTOM)


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
    for name in ours(path, ast.walk(tree_of(path))):
        assert room_of(name) in below(room) | {room}, f"{module} must not import {name}"
        assert room_of(name) not in ENTRY_POINTS or module == name, f"{module} imports an entry point, {name}"


def test_every_module_has_its_place_in_the_table() -> None:
    rooms = {room for row in ROWS for room in row} | set(BOTTOM)
    assert {room_of(name_of(path)) for path in MODULES} <= rooms
    small = {name_of(path) for path in MODULES if path.parent.name == "ocickpt"} - set(FACE)
    assert small == set(BOTTOM) | set(ENTRY_POINTS)


def test_no_file_imports_itself_by_way_of_others() -> None:
    """What is imported in a function counts too, and what only type checkers read."""
    assert circles({name_of(path): {*ours(path, ast.walk(tree_of(path)))} for path in MODULES}) == []


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """The strongly connected components of more than one (Tarjan, 1972)."""
    number: dict[str, int] = {}
    lowest: dict[str, int] = {}
    waiting: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        number[node] = lowest[node] = len(number)
        waiting.append(node)
        for other in sorted(graph[node]):
            if other not in number:
                visit(other)
                lowest[node] = min(lowest[node], lowest[other])
            elif other in waiting:
                lowest[node] = min(lowest[node], number[other])
        if lowest[node] == number[node]:
            component = waiting[waiting.index(node) :]
            del waiting[waiting.index(node) :]
            if len(component) > 1:
                found.append(sorted(component))

    for node in sorted(graph):
        if node not in number:
            visit(node)
    return found


def test_circles_are_found() -> None:
    graph = {"a": {"b"}, "b": {"c", "d"}, "c": {"a"}, "d": {"e"}, "e": {"d", "f"}, "f": set[str]()}
    assert sorted(circles(graph)) == [["a", "b", "c"], ["d", "e"]]
    assert circles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_no_room_is_most_of_the_house() -> None:
    lines = {name_of(path): len((PACKAGE.parent / path).read_text("utf-8").splitlines()) for path in MODULES}
    rooms: dict[str, int] = {}
    for module, count in lines.items():
        inner = next((each for each in INNER if f"{module}.".startswith(f"{each}.")), "")
        rooms[inner or room_of(module)] = rooms.get(inner or room_of(module), 0) + count
    assert set(INNER) <= set(rooms)
    for room, count in rooms.items():
        assert count <= MOST_OF_ALL * sum(lines.values()), f"{room} has {count} of {sum(lines.values())} lines"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_what_differs_between_runtimes_is_where_they_are(path: Path) -> None:
    if name_of(path).startswith("engine.runtime.") or name_of(path) == "config":  # which reads the user's choice
        return
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Constant):
            assert node.value not in ("crun", "runc"), f"{path}:{node.lineno} names a runtime"


def test_json_becomes_a_typed_value_at_the_door() -> None:
    """Where JSON comes in or goes out there are objects of any members; they go no further."""
    found = [
        f"{path}:{number}"
        for path in MODULES
        for number, line in enumerate((PACKAGE.parent / path).read_text("utf-8").splitlines(), 1)
        if "dict[str, Any]" in line
    ]
    assert len(found) <= 20, found


@pytest.mark.parametrize("entry", QUICK)
def test_an_entry_point_loads_only_what_it_needs(entry: str) -> None:
    """Without site-packages, which it needs nothing of."""
    code = f"import sys; sys.path.insert(0, {str(PACKAGE.parent)!r}); import ocickpt.{entry}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True, capture_output=True, text=True)
    loaded = {name.partition(".")[2] for name in done.stdout.split() if name.startswith("ocickpt.")}
    assert loaded == QUICK[entry]


def test_what_runs_below_podman_needs_no_library() -> None:
    """What the shim loads later, but for a restore in the place of a start and a checkpoint that is published."""
    rooms = "save.frozen, ocickpt.save.unasked, ocickpt.restoration.asked, ocickpt.operations.asking"
    code = f"import sys; sys.path.insert(0, {str(PACKAGE.parent)!r}); import ocickpt.{rooms}"
    subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True)


def test_the_command_line_knows_the_public_face_alone() -> None:
    for path in MODULES:
        if room_of(name_of(path)) == "cli":
            for name in ours(path, without_types(tree_of(path))):
                assert name in ("", *OF_CLI) or room_of(name) == "cli", f"{path} imports {name}"
            for name in imported(path, at_module_level(tree_of(path))):
                assert name.partition(".")[0] != "rich", f"{path} loads rich at once"


def test_no_module_stands_where_a_function_does() -> None:
    """`import ocickpt.restore` would put the module in the place of `ocickpt.restore()`."""
    there = {path.stem for path in PACKAGE.glob("*.py")} | {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert there & set(ocickpt.__all__) == set()


def without_types(tree: ast.Module) -> Iterator[ast.AST]:
    """All nodes but those that only type checkers read."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        if not _type_checking(node):
            waiting.extend(ast.iter_child_nodes(node))


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
    if room_of(module) == "cli" or module in ENTRY_POINTS:
        return
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Call):
            assert ast.unparse(node.func) not in {"sys.exit", "exit", "os._exit"}, f"{module}:{node.lineno} exits"
