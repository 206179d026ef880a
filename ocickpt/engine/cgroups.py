"""Cgroups of the unified hierarchy (cgroups(7)): whose is which, and where helpers outlive who called us.

Standard library only: the shim loads this.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

HIERARCHY = Path("/sys/fs/cgroup")


def of(pid: int) -> Path:
    """The cgroup of a process; the root where it has none in this hierarchy. OSError when it has ended."""
    lines = Path(f"/proc/{pid}/cgroup").read_text("utf-8", "surrogateescape").split("\n")
    return HIERARCHY / next((line.removeprefix("0::/") for line in lines if line.startswith("0::/")), "")


def place_of(cgroups_path: str) -> Path | None:
    """The cgroup that an OCI specification's `cgroupsPath` names on this host; None where there is none to freeze.

    That is a path, or ``SLICE:PREFIX:NAME`` of systemd (runc, docs/systemd.md; crun does the same).
    """
    if not (HIERARCHY / "cgroup.controllers").exists() or not cgroups_path:
        return None
    parts = cgroups_path.split(":")
    path = _scope(*parts) if len(parts) == 3 else cgroups_path
    if ".." in path.split("/"):
        return None
    return HIERARCHY / path.lstrip("/")


def _scope(slices: str, prefix: str, name: str) -> str:
    """``a-b.slice`` lies in ``a.slice`` (systemd.slice(5)); without one, scopes lie in ``system.slice``."""
    words = (slices or "system.slice").removesuffix(".slice").split("-")
    above = ["-".join(words[: end + 1]) + ".slice" for end in range(len(words)) if words != [""]]
    return "/".join([*above, f"{prefix}-{name}.scope" if prefix else f"{name}.scope"])


def join_conmon(pids: Iterable[int], conmon: int, bundle: Path) -> None:
    """Move processes to where the conmon of the container in `bundle` lives; OSError when that is impossible.

    systemd gives it a scope. With cgroupfs podman 5 makes it a cgroup beside the container's, and leaves it in its
    caller's (containers/common 0.62, pkg/cgroups/cgroups_linux.go: AddPid moves nothing in cgroup v2): it goes along.
    """
    home = of(conmon)
    if made := _made_for(conmon, bundle):
        home, pids = made, (conmon, *pids)
    if not (home / "cgroup.procs").exists():
        return
    for pid in pids:
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            if of(pid) != home:  # a move costs milliseconds
                (home / "cgroup.procs").write_text(str(pid), "ascii")


def _made_for(conmon: int, bundle: Path) -> Path | None:
    """The cgroup that podman made for conmon; None when there is none, or conmon is part of a systemd service."""
    spec = json.loads((bundle / "config.json").read_bytes())
    path = str((spec.get("linux") or {}).get("cgroupsPath") or "")
    place = place_of(path) if path.startswith("/") and "INVOCATION_ID" not in os.environ else None
    is_conmon = Path(f"/proc/{conmon}/comm").read_text("utf-8").strip() == "conmon"
    return place.parent / "conmon" if place and is_conmon and (place.parent / "conmon").is_dir() else None
