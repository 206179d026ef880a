"""`ocickpt setup` and its undoing, with a podman that answers where a runtime is."""

from __future__ import annotations

import os
import shutil
import stat
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest

from ocickpt import atomic
from ocickpt.errors import ExistsError, PrerequisiteError, StorageError
from ocickpt.hostsetup import setup
from ocickpt.operations import launcher

# What podman does (newConmonOCIRuntime): the first path of the drop-in that is there, else PATH.
PODMAN = """\
#!{python} -IS
import os, sys, tomllib
assert [sys.argv[1], *sys.argv[3:]] == ["--runtime", "info", "--format", "{{{{.Host.OCIRuntime.Path}}}}"]
name, listed = sys.argv[2], []
try:
    listed = tomllib.load(open({drop_in!r}, "rb"))["engine"]["runtimes"].get(name, [])
except FileNotFoundError:
    pass
for path in listed + [directory + "/" + name for directory in os.environ["PATH"].split(":")]:
    if os.path.isfile(path):
        print(path)
        sys.exit(0)
sys.exit('Error: default OCI runtime "' + name + '" not found: invalid argument')
"""


@dataclass(frozen=True)
class Machine:
    """A machine with a podman and some runtimes."""

    bin: Path
    launchers: Path
    drop_in: Path

    def setup(self) -> list[str]:
        return setup.setup(False, launchers=self.launchers, drop_in=self.drop_in)

    def undo(self) -> list[str]:
        return setup.setup(True, launchers=self.launchers, drop_in=self.drop_in, hooks=self.hooks)

    @property
    def hooks(self) -> Path:
        return self.drop_in.parent / "hooks.d"

    def installed(self, runtime: str) -> bool:
        return launcher.installed(runtime, launchers=self.launchers, drop_in=self.drop_in)

    def troubles(self) -> dict[str, str]:
        found = launcher.states(launchers=self.launchers, drop_in=self.drop_in)
        return {state.runtime: state.trouble for state in found}

    def program(self, name: str, text: str = "#!/bin/sh\n") -> Path:
        path = self.bin / name
        path.write_text(text)
        path.chmod(0o755)
        return path


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine(tmp_path / "bin", tmp_path / "libexec/ocickpt", tmp_path / "etc/containers.conf.d/50-ocickpt.conf")
    made.bin.mkdir()
    made.program("podman", PODMAN.format(python=sys.executable, drop_in=str(made.drop_in)))
    made.program("crun")
    monkeypatch.setenv("PATH", str(made.bin))
    monkeypatch.setattr(setup, "_USUAL", ())
    monkeypatch.setattr("ocickpt.engine.host.program", lambda name: _which(made.bin, name))
    return made


def _which(directory: Path, name: str) -> str:
    return str(directory / name) if (directory / name).is_file() else ""


def test_it_makes_a_launcher_for_each_runtime_and_shows_podman(machine: Machine) -> None:
    runc = machine.program("runc")
    assert machine.setup() == [
        f"{machine.launchers}/runc: made",
        f"{machine.launchers}/crun: made",
        f"{machine.launchers}/ocickpt-runtime: made",
        f"{machine.drop_in}: made",
    ]
    runtimes = tomllib.loads(machine.drop_in.read_text())["engine"]["runtimes"]
    assert runtimes == {
        "runc": [f"{machine.launchers}/runc", str(runc)],
        "crun": [f"{machine.launchers}/crun", f"{machine.bin}/crun"],
    }
    assert machine.troubles() == {"runc": "", "crun": ""}
    assert machine.installed("runc")
    assert machine.installed("crun")
    assert not machine.installed("kata")


def test_it_leaves_out_a_runtime_that_is_not_there(machine: Machine) -> None:
    machine.setup()
    assert list(tomllib.loads(machine.drop_in.read_text())["engine"]["runtimes"]) == ["crun"]
    assert not (machine.launchers / "runc").exists()
    assert not machine.installed("runc")


def test_everybody_may_look_whatever_the_umask(machine: Machine) -> None:
    before = os.umask(0o077)
    try:
        machine.setup()
    finally:
        os.umask(before)
    for path in (machine.launchers, machine.launchers.parent, machine.drop_in.parent, machine.launchers / "crun"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o755
    assert stat.S_IMODE(machine.drop_in.stat().st_mode) == 0o644


def test_again_changes_nothing(machine: Machine) -> None:
    machine.setup()
    before = (machine.launchers / "crun").stat().st_ino
    assert all(line.endswith(": unchanged") for line in machine.setup())
    assert (machine.launchers / "crun").stat().st_ino == before
    assert sorted(path.name for path in machine.launchers.iterdir()) == ["crun", "ocickpt-runtime"]


def test_again_puts_right_what_was_changed(machine: Machine) -> None:
    machine.setup()
    launcher = machine.launchers / "crun"
    whole = launcher.read_text()
    launcher.write_text(whole.replace("exec", "echo"))
    assert "was changed" in machine.troubles()["crun"]
    assert f"{launcher}: replaced" in machine.setup()
    assert launcher.read_text() == whole


def test_a_runtime_that_went_loses_its_launcher(machine: Machine) -> None:
    runc = machine.program("runc")
    machine.setup()
    runc.unlink()
    assert f"leads to {runc}, which is not there" in machine.troubles()["runc"]
    assert f"{machine.launchers}/runc: removed, there is no runc any more" in machine.setup()
    assert not (machine.launchers / "runc").exists()


def test_undo_removes_what_it_made_and_nothing_else(machine: Machine) -> None:
    machine.setup()
    other = machine.drop_in.parent / "60-mine.conf"
    other.write_text("[engine]\n")
    assert machine.undo() == [
        f"{machine.drop_in}: removed",
        f"{machine.launchers}/ocickpt-runtime: removed",
        f"{machine.launchers}/crun: removed",
    ]
    assert not machine.launchers.exists()
    assert [path.name for path in machine.drop_in.parent.iterdir()] == ["60-mine.conf"]
    assert machine.undo() == ["nothing to undo"]


@pytest.mark.parametrize("which", ["launcher", "drop-in"])
def test_a_file_of_somebody_else_is_not_touched(machine: Machine, which: str) -> None:
    path = machine.launchers / "crun" if which == "launcher" else machine.drop_in
    path.parent.mkdir(parents=True)
    path.write_text("#!/bin/sh\nsomebody else's\n")
    with pytest.raises(ExistsError, match="is not ocickpt's"):
        machine.setup()
    assert machine.undo() == [f"{path}: left alone, it is not ocickpt's"]
    assert path.read_text() == "#!/bin/sh\nsomebody else's\n"
    others = {machine.launchers / "crun", machine.drop_in} - {path}
    assert not any(other.exists() for other in others)


def test_what_breaks_a_launcher_is_told(machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert machine.troubles()["crun"] == "there is no launcher"
    machine.setup()
    drop_in = machine.drop_in.read_text()
    machine.drop_in.write_text(drop_in.replace(str(machine.launchers), "/elsewhere"))
    assert "does not name" in machine.troubles()["crun"]
    machine.drop_in.write_text(drop_in)

    # Another installation of this very version does as well; any part of the shim's half may be of an earlier one.
    other = tmp_path / "other" / "ocickpt"
    shutil.copytree(launcher.SHIM.parent, other)
    monkeypatch.setattr(launcher, "SHIM", other / "shim.py")
    assert machine.installed("crun")
    for part in ("shim.py", "rendezvous.py", "save/frozen.py", "restoration/asked.py", "engine/runtime/calling.py"):
        kept = (other / part).read_text()
        (other / part).write_text("# of an earlier version\n")
        assert "the shim of another version" in machine.troubles()["crun"]
        assert not machine.installed("crun")
        (other / part).write_text(kept)


def test_an_interpreter_that_went_is_told(machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    python = tmp_path / "venv-python"
    python.symlink_to(sys.executable)
    monkeypatch.setattr(sys, "executable", str(python))
    machine.setup()
    assert machine.installed("crun")
    python.unlink()
    assert machine.troubles()["crun"].endswith(f"wants {python}, which is not there")


def test_without_podman_or_runtimes_it_says_so(machine: Machine) -> None:
    (machine.bin / "crun").unlink()
    with pytest.raises(PrerequisiteError, match="none of runc and crun"):
        machine.setup()
    (machine.bin / "podman").unlink()
    with pytest.raises(PrerequisiteError, match="podman is not installed"):
        machine.setup()
    assert not machine.launchers.exists()


def test_who_may_not_write_is_told_to_be_root(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, *_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(atomic, "replace", refuse)
    with pytest.raises(PrerequisiteError, match="cannot be changed: Permission denied") as raised:
        machine.setup()
    assert raised.value.hint == "run it as root"


def test_a_write_that_fails_leaves_nothing(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device", "x")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="No space left"):
        machine.setup()
    assert list(machine.launchers.iterdir()) == []


def test_hooks_are_made_when_they_are_asked_for_and_go_with_the_rest(machine: Machine) -> None:
    machine.setup()
    made = setup.setup_hooks(launchers=machine.launchers, hooks=machine.hooks)
    assert [line.rpartition(": ")[2] for line in made] == ["made"] * 3
    assert os.access(machine.launchers / "ocickpt-hook", os.X_OK)
    assert setup.setup_hooks(launchers=machine.launchers, hooks=machine.hooks)[0].endswith(": unchanged")
    (machine.hooks / "ocickpt-other.json").write_text("{}")
    machine.undo()
    assert [path.name for path in machine.hooks.iterdir()] == ["ocickpt-other.json"]
    assert not machine.launchers.exists()
    (machine.hooks / "ocickpt-push.json").write_text("{}")
    with pytest.raises(ExistsError):
        setup.setup_hooks(launchers=machine.launchers, hooks=machine.hooks)


@pytest.mark.parametrize("name", ["gate", "push"])
def test_the_hooks_in_the_repository_are_those_that_are_installed(name: str) -> None:
    path = Path(__file__).parents[2] / "hooks" / f"ocickpt-{name}.json"
    assert path.read_text() == setup.hook_text(name, launcher.LAUNCHERS / "ocickpt-hook")
