"""What crun forgets when it restores: the seccomp filter of what `exec` starts.

`crun create` compiles the container's profile into a file in its state directory. `crun exec` loads that
file, and where there is none, no filter at all; `crun restore` (up to 1.28) makes none, and `podman exec`
would start unconfined processes in a confined container. Here crun itself makes the file, for a container
that never starts, from the profile of the restored one.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ocickpt import proc
from ocickpt.engine import host
from ocickpt.errors import NotFoundError, StorageError

FILTER = "seccomp.bpf"
_STATES = "/run/crun", "/run/user/0/crun"
"""Where crun keeps its state for root: below XDG_RUNTIME_DIR, as which podman passes /run."""
_BUNDLE, _STATE, _NAME = "crun", "state", "profile"


def keep_filter(container: str, spec: dict[str, Any], compiled: Callable[[], bytes]) -> None:
    """Let `crun exec` confine what it starts in `container` with the seccomp profile of its `spec`, if it has one.

    `compiled` gives what `compile_filter` makes of that profile.

    Raises NotFoundError when crun does not know the container, CommandError when crun cannot compile the profile.
    """
    if not profile_of(spec):
        return
    states = [Path(each, container) for each in _STATES]
    state = next((each for each in states if (each / "status").exists()), None)
    if state is None:
        raise NotFoundError(f"crun keeps no state of container {container[:12]} below {_STATES[0]} (any more)")
    if (state / FILTER).exists():
        return
    try:
        temporary = state / f"{FILTER}.new"
        temporary.write_bytes(compiled())
        temporary.chmod(0o700)  # as crun's own
        temporary.rename(state / FILTER)
    except OSError as error:
        raise StorageError(f"crun's seccomp filter cannot be written: {error}") from error


def clean(work: Path) -> None:
    """End what a `keep_filter` that was killed in `work` may have left."""
    if (work / _BUNDLE).exists():
        proc.run([*_crun(work / _BUNDLE), "delete", "--force", _NAME], check=False)
        shutil.rmtree(work / _BUNDLE)


def profile_of(spec: dict[str, Any]) -> dict[str, Any]:
    """The seccomp profile in an OCI specification; empty without one."""
    found: dict[str, Any] = (spec.get("linux") or {}).get("seccomp") or {}
    return found


def compile_filter(profile: dict[str, Any], work: Path) -> bytes:
    """The filter that crun compiles of a profile; it may make a few files in `work` that nobody needs afterwards.

    Raises CommandError when it cannot.
    """
    clean(work)
    bundle = work / _BUNDLE
    root = bundle / "root"
    (root / "dev").mkdir(parents=True)
    (root / _NAME).touch(0o755)  # crun wants the program to be there, but does not start it
    spec = {
        "ociVersion": "1.0.0",
        "root": {"path": str(root)},
        "process": {"args": [f"/{_NAME}"], "cwd": "/", "user": {"uid": 0, "gid": 0}},
        "mounts": [],
        "linux": {"namespaces": [{"type": "mount"}, {"type": "pid"}], "seccomp": profile},
    }
    (bundle / "config.json").write_text(json.dumps(spec), "utf-8")
    try:
        # What it makes keeps its output open, so that must not be pipes.
        creating = proc.Background([*_crun(bundle), "create", "--bundle", str(bundle), _NAME])
        creating.go()
        created = creating.wait()
        if created.returncode:
            raise created.failure()
        return (bundle / _STATE / _NAME / FILTER).read_bytes()
    finally:
        clean(work)


def _crun(bundle: Path) -> list[str]:
    program = host.program("crun") or host.runtime_path("crun")
    return [program, "--root", str(bundle / _STATE), "--cgroup-manager", "disabled"]
