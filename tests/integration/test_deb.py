"""The Debian package that `make deb` builds, looked into with Debian's own tools."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from ocickpt import __version__

ROOT = Path(__file__).resolve().parents[2]
PYTHON = "usr/lib/python3/dist-packages"
SOURCES = ("ocickpt", "schemas", "docs", "contrib/completions", "contrib/deb")
EPOCH = "1700000000"


def build(source: Path, target: Path, **environment: str) -> Path:
    done = subprocess.run(
        [source / "contrib/deb/build", target],
        check=True, capture_output=True, text=True, timeout=60, env=os.environ | environment,
    )  # fmt: skip
    return Path(done.stdout.strip())


def dpkg_deb(*arguments: str | Path) -> str:
    return subprocess.run(["dpkg-deb", *arguments], check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ROOT, tmp_path_factory.mktemp("deb"), SOURCE_DATE_EPOCH=EPOCH)


@pytest.fixture(scope="module")
def installed(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where it is unpacked."""
    place = tmp_path_factory.mktemp("unpacked")
    dpkg_deb("--extract", package, place)
    return place


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Path]:
    """The sources in the hands of another user, at another time, who has used them and has no git."""
    place = tmp_path / "checkout"
    place.mkdir()
    for name in SOURCES:
        shutil.copytree(ROOT / name, place / name, symlinks=True)
    for name in ("pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md"):
        shutil.copy(ROOT / name, place)
    (place / "ocickpt/__pycache__").mkdir(exist_ok=True)
    (place / "ocickpt/__pycache__/left.cpython-311.pyc").write_bytes(b"left")
    for path in place.rglob("*"):
        os.utime(path, (1_600_000_000, 1_600_000_000), follow_symlinks=False)
    before = os.umask(0o077)
    yield place
    os.umask(before)


def test_who_it_is(package: Path) -> None:
    assert package.name == f"ocickpt_{__version__}_all.deb"
    assert dpkg_deb("--field", package, "Package", "Version", "Architecture").split() == [
        "Package:", "ocickpt", "Version:", __version__, "Architecture:", "all",
    ]  # fmt: skip


def test_it_needs_what_the_project_needs(package: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    needed = dict(each.partition(" ")[::2] for each in dpkg_deb("--field", package, "Depends").strip().split(", "))
    assert needed.pop("python3:any") == f"({project['requires-python'].replace('>=', '>= ')})"
    for requirement in project["dependencies"]:
        name, _, version = requirement.partition(">=")
        assert needed.pop(f"python3-{name}").removeprefix("(>= 1:").removeprefix("(>= ") == f"{version})"
    assert set(needed) == {"podman", "criu", "python3-pycriu", "libseccomp2", "crun"}


def test_everything_is_root_s_and_nobody_else_can_write(package: Path) -> None:
    for line in dpkg_deb("--contents", package).splitlines():
        mode, owner, *_, name = line.split()
        assert owner == "root/root", line
        executable = name == "./usr/bin/ocickpt" or name.endswith("/")
        assert mode[1:] == ("rwxr-xr-x" if executable else "rw-r--r--"), line


def test_what_is_in_it(installed: Path) -> None:
    found = {str(path.relative_to(installed)) for path in installed.rglob("*") if not path.is_dir()}
    wanted = {f"{PYTHON}/{path.relative_to(ROOT)}" for path in (ROOT / "ocickpt").rglob("*.py")}
    wanted |= {f"{PYTHON}/ocickpt/py.typed"}
    wanted |= {f"{PYTHON}/ocickpt/schemas/{path.name}" for path in (ROOT / "schemas").glob("*.json")}
    assert {name for name in found if name.startswith(PYTHON)} == wanted
    assert found - wanted == {
        "usr/bin/ocickpt",
        "usr/share/bash-completion/completions/ocickpt",
        "usr/share/zsh/vendor-completions/_ocickpt",
        "usr/share/fish/vendor_completions.d/ocickpt.fish",
        "usr/share/man/man1/ocickpt.1.gz",
        "usr/share/man/man5/ocickpt-config.toml.5.gz",
        "usr/share/doc/ocickpt/README.md.gz",
        "usr/share/doc/ocickpt/changelog.gz",
        "usr/share/doc/ocickpt/copyright",
    }
    assert not [name for name in found if (installed / name).is_symlink()]


def test_it_runs(installed: Path) -> None:
    env = {"PYTHONPATH": f"{installed / PYTHON}:{os.environ.get('PYTHONPATH', '')}"}
    code = (
        "import runpy, sys; sys.argv = ['ocickpt', '--version']; runpy.run_path(sys.orig_argv[-1], run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, installed / "usr/bin/ocickpt"],
        check=True, capture_output=True, text=True, env=os.environ | env,
    )  # fmt: skip
    assert done.stdout == f"ocickpt {__version__}\n"


def test_its_sums_are_right(package: Path, installed: Path, tmp_path: Path) -> None:
    dpkg_deb("--control", package, tmp_path)
    lines = [line.split("  ") for line in (tmp_path / "md5sums").read_text().splitlines()]
    assert {name for _, name in lines} == {
        str(path.relative_to(installed)) for path in installed.rglob("*") if path.is_file()
    }
    for digest, name in lines:
        assert hashlib.md5((installed / name).read_bytes()).hexdigest() == digest


def test_whoever_builds_it_it_is_the_same(package: Path, checkout: Path, tmp_path: Path) -> None:
    again = build(checkout, tmp_path / "target", SOURCE_DATE_EPOCH=EPOCH, TZ="Asia/Tokyo", LC_ALL="C")
    assert again.read_bytes() == package.read_bytes()


def test_it_takes_no_git(checkout: Path, tmp_path: Path) -> None:
    made = build(checkout, tmp_path / "target", SOURCE_DATE_EPOCH="", GIT_CEILING_DIRECTORIES=str(tmp_path), TZ="UTC")
    assert " 2020-09-13 12:26 ./usr/bin/ocickpt" in dpkg_deb("--contents", made)
