"""A library that cannot be loaded on this machine is something to install, whoever notices, and never a bug of ours."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from ocickpt import names
from ocickpt.libraries import LIBRARIES, unusable
from tests.integration.shim_bench import ID
from tests.unit.test_podman_archive import _pycriu, checkpoint, sent, written

ROOT = Path(__file__).resolve().parents[2]
ENTRY = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["scripts"]["ocickpt"]
ARGV = "main(sys.argv[1:])"
PREREQUISITE = 10
SENTENCE = "the Python library {} cannot be loaded on this machine: {}"

fake_pycriu = _pycriu
ERRORS = {
    "RuntimeError('your machine does not support X86_V2')": "RuntimeError: your machine does not support X86_V2",
    "ImportError('libopenblas.so.0: cannot open')": "ImportError: libopenblas.so.0: cannot open",
    "ModuleNotFoundError('No module named attr', name='attr')": "ModuleNotFoundError: No module named attr",
    "OSError('libarchive.so.13: cannot open')": "OSError: libarchive.so.13: cannot open",
    "OSError(28, 'No space')": "OSError: [Errno 28] No space",
    "TypeError('expected str, not None')": "TypeError: expected str, not None",
    "AttributeError('archive_errno')": "AttributeError: archive_errno",
    "BrokenPipeError(32, 'Broken pipe')": "BrokenPipeError: [Errno 32] Broken pipe",
    "SyntaxError('invalid syntax')": "SyntaxError: invalid syntax",
}


def broken(place: Path, library: str, error: str = "RuntimeError('not here')") -> Path:
    """A directory with a library of that name, which raises that when it is imported."""
    (place / library).mkdir(parents=True)
    (place / library / "__init__.py").write_text(f"def load():\n    raise {error}\nload()\n")
    return place


def run(module: str, call: str, first: Path, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Call one of the package's entry points where libraries are looked for in `first` before all other places."""
    code = f"import sys; sys.path[:0] = {[str(first), str(ROOT)]}; from {module} import main; sys.exit({call})"
    return subprocess.run(
        [sys.executable, "-I", "-c", code, *arguments],
        check=False, capture_output=True, text=True, timeout=60, input=stdin,
        env=os.environ | {"OCICKPT_STORE": str(first / "store")},
    )  # fmt: skip


def ocickpt(first: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    module, _, function = ENTRY.partition(":")
    return run(module, f"{function}()", first, *arguments)


@pytest.mark.parametrize("error", ERRORS)
def test_whatever_it_raises(tmp_path: Path, error: str) -> None:
    done = ocickpt(broken(tmp_path, "urllib3", error), "list", "localhost:1/x")
    told = done.stderr.splitlines()
    assert told[0] == f"ocickpt: {SENTENCE.format('urllib3', ERRORS[error])}"
    assert told[1].startswith("hint: install the distribution's package, python3-urllib3 (Debian); one that pip")
    assert len(told) == 2
    assert done.returncode == PREREQUISITE


def test_one_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "urllib3.py").write_text("import no_such_library_of_its_own\n")
    done = ocickpt(tmp_path, "list", "localhost:1/x")
    reason = "ModuleNotFoundError: No module named 'no_such_library_of_its_own'"
    assert SENTENCE.format("urllib3", reason) in done.stderr
    assert done.returncode == PREREQUISITE


@pytest.mark.parametrize(
    ("library", "package", "arguments"),
    [
        ("click", "python3-click", ["list"]),
        ("click", "python3-click", ["doctor"]),
        ("msgspec", "python3-msgspec", ["inspect", "REF"]),
        ("libarchive", "python3-libarchive-c", ["push", "ARCHIVE", "REF"]),
        ("numpy", "python3-numpy", ["pull", "-o", "OUTPUT", "REF"]),
        ("numpy", "python3-numpy", ["push", "ARCHIVE", "REF"]),
        ("urllib3", "python3-urllib3", ["inspect", "localhost:1/x"]),
        ("zstandard", "python3-zstandard", ["pull", "-o", "OUTPUT", "REF"]),
        ("zstandard", "python3-zstandard", ["push", "ARCHIVE", "REF"]),
    ],
)
def test_whichever_it_is(tmp_path: Path, library: str, package: str, arguments: list[str]) -> None:
    archive = written(tmp_path / "in.tar", checkpoint())
    words = {"REF": sent(archive, tmp_path), "ARCHIVE": str(archive), "OUTPUT": str(tmp_path / "out.tar")}
    first = broken(tmp_path / "path", library)
    done = ocickpt(first, *(words.get(word, word) for word in arguments))
    told = done.stderr.splitlines()
    assert told[-2] == f"ocickpt: {SENTENCE.format(library, 'RuntimeError: not here')}"
    assert told[-1].startswith("hint: ")
    assert package in told[-1]
    assert "Traceback" not in done.stderr
    assert done.returncode == PREREQUISITE


def test_on_a_terminal(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    code = f"import sys; sys.path[:0] = {[str(broken(tmp_path, 'rich')), str(ROOT)]}; "
    done = subprocess.run(
        [sys.executable, "-I", "-c", f"{code}from ocickpt.__main__ import main; main()",
         "list", sent(written(tmp_path / "in.tar", checkpoint()), tmp_path)],
        check=False, stdout=theirs, stderr=subprocess.PIPE, text=True, timeout=60,
    )  # fmt: skip
    os.close(theirs)
    os.close(ours)
    assert SENTENCE.format("rich", "RuntimeError: not here") in done.stderr
    assert done.returncode == PREREQUISITE


def test_a_container_that_was_to_be_restored_is_not_created(tmp_path: Path) -> None:
    bundle, log, runtime = tmp_path / "bundle", tmp_path / "log", tmp_path / "runc"
    bundle.mkdir()
    annotations = {names.ANNOTATION_RESTORE: "localhost:1/x@sha256:" + "a" * 64}
    (bundle / "config.json").write_text(json.dumps({"annotations": annotations}))
    runtime.write_text(f"#!/bin/sh\ntouch {tmp_path}/called\n")
    runtime.chmod(0o755)
    first = broken(tmp_path / "path", "numpy")
    done = run("ocickpt.shim", ARGV, first, str(runtime), "--log", str(log), "create", "--bundle", str(bundle), ID)
    sentence = SENTENCE.format("numpy", "RuntimeError: not here")
    assert done.stderr.startswith(f"ocickpt: {sentence} (")
    assert "Traceback" not in done.stderr
    assert done.returncode == 1
    assert f"ocickpt: {sentence} (" in json.loads(log.read_text())["msg"]
    assert not (tmp_path / "called").exists()


@pytest.mark.parametrize(("hook", "code"), [("gate", 1), ("push", 0)])
def test_hooks(tmp_path: Path, hook: str, code: int) -> None:
    state = {"id": ID, "bundle": str(tmp_path), "annotations": {names.ANNOTATION_RESTORE: "x"}}
    done = run("ocickpt.hook", ARGV, broken(tmp_path / "path", "numpy"), hook, stdin=json.dumps(state))
    assert done.stderr.startswith("ocickpt: ")
    assert SENTENCE.format("numpy", "RuntimeError: not here") in done.stderr
    assert "Traceback" not in done.stderr
    assert done.returncode == code


def test_doctor_names_each_and_what_to_do(tmp_path: Path) -> None:
    broken(tmp_path, "numpy")
    broken(tmp_path, "zstandard", "ImportError('no libzstd')")
    code = (
        f"import sys; sys.path[:0] = {[str(tmp_path), str(ROOT)]}; from ocickpt.hostsetup import doctor; import json; "
    )
    code += "print(json.dumps([[e.name, e.state, e.found, e.remedy] for e in doctor.examine()]))"
    done = subprocess.run([sys.executable, "-I", "-c", code], check=True, capture_output=True, text=True, timeout=120)
    found = [each for each in json.loads(done.stdout) if each[1] != "ok"]
    told = [each for each in found if each[0] == "python libraries"]
    assert [each[1:3] for each in told] == [
        ["failed", "numpy: RuntimeError: not here"],
        ["failed", "zstandard: ImportError: no libzstd"],
    ]
    assert all(f"python3-{each[2].partition(':')[0]} (Debian)" in each[3] for each in told)
    assert "bug" not in done.stdout


def test_a_bug_is_none() -> None:
    def failing() -> None:
        json.loads(None)  # type: ignore[arg-type]

    for error, call in ((TypeError, failing), (ImportError, lambda: __import__("ocickpt.no_such_module"))):
        with pytest.raises(error) as raised:
            call()
        assert unusable(raised.value) is None


def test_every_library_that_is_installed_with_it_is_known() -> None:
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["dependencies"]
    assert sorted(LIBRARIES.values()) == sorted(each.partition(">=")[0] for each in wanted)
