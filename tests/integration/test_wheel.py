"""What a Python user gets from the installed package: it is typed, and importing it costs nothing."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = """
import ocickpt
from ocickpt.errors import NotFoundError, OcickptError


def move(name: str, reference: str) -> str:
    published = ocickpt.checkpoint(name, reference, tcp_established=True)
    size: int = published.sent + published.present
    restored = ocickpt.restore(published.reference, lazy=True, publish=["8080:80"])
    print(size, restored.container_id)
    return restored.digest


def names(repository: str | None) -> list[str]:
    try:
        return [each.name for each in ocickpt.checkpoints(repository, limit=10)]
    except NotFoundError:
        return []
    except OcickptError as error:
        raise SystemExit(f"{error.message} {error.hint}") from error


class Notes:
    def stage(self, stage: ocickpt.Stage, of: str = "") -> None: ...
    def expect(self, size: int) -> None: ...
    def advance(self, size: int) -> None: ...
    def present(self, size: int) -> None: ...
    def note(self, text: str) -> None: ...


progress: ocickpt.Progress = Notes()
pulled = ocickpt.pull("web", progress=progress)
print(pulled.path or pulled.reference, ocickpt.inspect("web").description.created, ocickpt.status(), ocickpt.doctor())
"""
WRONG = "import ocickpt\n\nocickpt.restore('web', lasy=True)\nnumber: int = ocickpt.pull('web').digest\n"


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment in which the wheel is installed, without what it depends on."""
    place = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    source = place / "source"
    source.mkdir()
    for each in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / each, source)
    for each in ("ocickpt", "schemas"):
        shutil.copytree(ROOT / each, source / each, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(place)]
    subprocess.run([*build, str(source)], check=True)
    venv.create(place / "env", with_pip=False)
    found = place / "env" / "bin" / "python"
    (wheel,) = place.glob("*.whl")
    subprocess.run([*pip, "--python", str(found), "install", "--no-deps", str(wheel)], check=True)
    return found


def checked(python: Path, program: str, place: Path) -> str:
    """What `mypy --strict` has to say of a user's program."""
    (place / "program.py").write_text(program, "utf-8")
    options = ["--strict", "--python-executable", str(python), "--cache-dir", str(place / "cache")]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *options, "program.py"], cwd=place, capture_output=True, text=True, check=False
    )
    return "" if done.returncode == 0 else done.stdout + done.stderr


if os.environ.get("OCICKPT_LANE") != "lab":  # there is no mypy there

    def test_a_users_program_is_checked_against_it(python: Path, tmp_path: Path) -> None:
        assert checked(python, PROGRAM, tmp_path) == ""
        told = checked(python, WRONG, tmp_path)
        assert 'Unexpected keyword argument "lasy"' in told
        assert "Incompatible types in assignment" in told


def test_importing_it_costs_less_than_15_ms(python: Path) -> None:
    """By the interpreter's own accounting, so that a busy machine counts for little."""
    taken = []
    for _ in range(5):
        done = subprocess.run(
            [python, "-I", "-X", "importtime", "-c", "import ocickpt"], capture_output=True, text=True, check=True
        )
        lines = [line.split("|") for line in done.stderr.splitlines() if line.rstrip().endswith(" ocickpt")]
        taken.append(int(lines[-1][1]))
    assert statistics.median(taken) < 15_000
