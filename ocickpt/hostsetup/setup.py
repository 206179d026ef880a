"""The launcher goes in front of podman's runtimes, and out of the way again.

Two kinds of files are made, each with `MARKER` in it, and only files with that line are ever replaced
or removed: a launcher for each runtime, and a drop-in that shows podman the launchers. OCI hooks, which do some of
it without launchers, are made when they are asked for. The drop-in
names the real runtime second: podman takes the first path that is there (newConmonOCIRuntime), so
containers start as before when the launchers are gone, whoever removed them.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from pathlib import Path

from ocickpt import atomic, names, rendezvous
from ocickpt.engine import host
from ocickpt.engine.runtime import table
from ocickpt.errors import ExistsError, PrerequisiteError, StorageError
from ocickpt.operations import launcher
from ocickpt.operations.launcher import CHOOSER, DROP_IN, LAUNCHERS, MARKER, Launcher, chooser, is_ours, read

HOOKS = Path("/usr/share/containers/oci/hooks.d")
"""Where podman looks for hooks as long as no containers.conf says otherwise (`hooks_dir`)."""

# When each hook runs, and the annotation that a container must have.
_STAGES = {"gate": ("createRuntime", names.ANNOTATION_RESTORE), "push": ("poststop", names.ANNOTATION_PUSH)}

# Where podman looks when no configuration says otherwise (containers/common, default.go).
_USUAL = ("/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin", "/sbin", "/bin")


def setup(undo: bool, *, launchers: Path = LAUNCHERS, drop_in: Path = DROP_IN, hooks: Path = HOOKS) -> list[str]:
    """Put launchers in front of the runtimes this host has, or with `undo` remove these and hooks; says what was done.

    Raises PrerequisiteError (no podman, no runtime, not root), ExistsError when a file that is not
    ours stands where one of ours should, and StorageError.
    """
    try:
        return _remove(launchers, drop_in, hooks) if undo else _install(launchers, drop_in)
    except PermissionError as error:
        raise PrerequisiteError(
            f"{error.filename} cannot be changed: {error.strerror}", hint="run it as root"
        ) from error
    except OSError as error:
        raise StorageError(f"{error.filename or 'a file'} cannot be changed: {error.strerror}") from error


def setup_hooks(*, launchers: Path = LAUNCHERS, hooks: Path = HOOKS) -> list[str]:
    """Have podman run our OCI hooks, for runtimes without a launcher; says what was done. Raises what `setup` does."""
    program = launchers / rendezvous.HOOK
    wanted = {program: launcher.hook(sys.executable)} | {
        hooks / f"ocickpt-{name}.json": hook_text(name, program) for name in _STAGES
    }
    try:
        return _replace(wanted)
    except PermissionError as error:
        raise PrerequisiteError(f"{error.filename} cannot be made: {error.strerror}", hint="run it as root") from error
    except OSError as error:
        raise StorageError(f"{error.filename or 'a file'} cannot be made: {error.strerror}") from error


def hook_text(name: str, program: Path) -> str:
    """The configuration of one of our hooks, which runs `program` (oci-hooks(5))."""
    stage, annotation = _STAGES[name]
    value = {
        "version": "1.0.0",
        "hook": {"path": str(program), "args": [program.name, name]},
        "when": {"annotations": {f"^{re.escape(annotation)}$": ".*"}},
        "stages": [stage],
    }
    return json.dumps(value, indent=2) + "\n"


def _install(launchers: Path, drop_in: Path) -> list[str]:
    if not host.program("podman"):
        raise PrerequisiteError("podman is not installed", hint="`ocickpt doctor` lists what is needed")
    targets = {name: target for name in table.NAMES if (target := _find_runtime(name, launchers))}
    if not targets:
        raise PrerequisiteError(f"podman finds none of {table.LISTED}", hint="install one of them")
    wanted = {launchers / name: Launcher.of(name, target, sys.executable).text() for name, target in targets.items()}
    wanted[launchers / CHOOSER] = chooser(launchers, next(iter(targets)))
    wanted[drop_in] = _drop_in_text({launchers / name: target for name, target in targets.items()})
    done = _replace(wanted)
    for name in table.NAMES:
        if name not in targets and is_ours(launchers / name):
            (launchers / name).unlink()
            done.append(f"{launchers / name}: removed, there is no {name} any more")
    return done


def _replace(wanted: dict[Path, str]) -> list[str]:
    """Make these files, unless one is there that is not ours."""
    for path in wanted:
        if path.exists() and not _is_ours(path):
            raise ExistsError(f"{path} is there already and is not ocickpt's", hint="move it away first")
    done = []
    for path, text in wanted.items():
        if path.is_file() and path.read_text("utf-8", "replace") == text:
            done.append(f"{path}: unchanged")
            continue
        existed = path.exists()
        _make_directory(path.parent)
        atomic.replace(path, text.encode(), mode=0o755 if text.startswith("#!") else 0o644, durable=True)
        done.append(f"{path}: {'replaced' if existed else 'made'}")
    return done


def _is_ours(path: Path) -> bool:
    """Whether we made a file; in JSON there is no room for a marker, but nobody else's hook runs our program."""
    return is_ours(path) or (path.suffix == ".json" and f'/{rendezvous.HOOK}"' in read(path))


def _remove(launchers: Path, drop_in: Path, hooks: Path) -> list[str]:
    done = []
    # What names the launchers goes first, so that podman is never shown what is about to go.
    shown = [drop_in, *(hooks / f"ocickpt-{name}.json" for name in _STAGES)]
    for path in (*shown, *(launchers / name for name in (CHOOSER, rendezvous.HOOK, *table.NAMES))):
        if not path.exists() and not path.is_symlink():
            continue
        if _is_ours(path):
            path.unlink()
            done.append(f"{path}: removed")
        else:
            done.append(f"{path}: left alone, it is not ocickpt's")
    with contextlib.suppress(OSError):
        launchers.rmdir()
    return done or ["nothing to undo"]


def _find_runtime(name: str, launchers: Path) -> str:
    """The real program of a runtime: what podman runs, but never a launcher."""
    found = host.runtime_path(name)
    if found and Path(found) != launchers / name and not is_ours(Path(found)):
        return found
    recorded = Launcher.read(name, launchers / name)
    for candidate in (
        recorded.runtime if recorded else "",
        *(f"{directory}/{name}" for directory in _USUAL),
        host.program(name),
    ):
        if candidate and os.access(candidate, os.X_OK) and not is_ours(Path(candidate)):
            return candidate
    return ""


def _drop_in_text(targets: dict[Path, str]) -> str:
    # A JSON string is a TOML basic string.
    lines = [f"{path.name} = {json.dumps([str(path), target])}" for path, target in targets.items()]
    return "\n".join((MARKER, "[engine.runtimes]", *lines, ""))


def _make_directory(path: Path) -> None:
    """Make a directory that everybody can look into: podman fails for whoever cannot see the launcher."""
    if not path.exists():
        _make_directory(path.parent)
        path.mkdir()
        path.chmod(0o755)
