"""Where helpers outlive who called us: beside a container's conmon, in the unified hierarchy (cgroups(7))."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")


def join_conmon(pids: Iterable[int], conmon: int, bundle: Path) -> None:
    """Move processes to where the conmon of the container in `bundle` lives; OSError when that is impossible.

    systemd gives it a scope. With cgroupfs podman 5 makes it a cgroup beside the container's, and leaves it in its
    caller's (containers/common 0.62, pkg/cgroups/cgroups_linux.go: AddPid moves nothing in cgroup v2): it goes along.
    """
    home, made = _of(conmon), _made_for(conmon, bundle)
    if made:
        home, pids = made, (conmon, *pids)
    procs = _ROOT / home.strip("/") / "cgroup.procs"
    if not home or not procs.exists():
        return
    for pid in pids:
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            if _of(pid) != home:  # a move costs milliseconds
                procs.write_text(str(pid), "ascii")


def _made_for(conmon: int, bundle: Path) -> str:
    """The cgroup that podman made for conmon; nothing when there is none, or conmon is part of a systemd service."""
    spec = json.loads((bundle / "config.json").read_bytes())
    path = Path(str((spec.get("linux") or {}).get("cgroupsPath") or ""))
    made = path.parent / "conmon"
    if not path.is_absolute() or ".." in path.parts or "INVOCATION_ID" in os.environ:
        return ""
    is_conmon = Path(f"/proc/{conmon}/comm").read_text("utf-8").strip() == "conmon"
    return str(made) if is_conmon and (_ROOT / made.relative_to("/")).is_dir() else ""


def _of(pid: int) -> str:
    """The cgroup of a process; empty when it has none in this hierarchy."""
    lines = Path(f"/proc/{pid}/cgroup").read_text("ascii").splitlines()
    return next((line.removeprefix("0::") for line in lines if line.startswith("0::")), "")
