"""What a host has CRIU do for a runtime: ``/etc/criu/runc.conf`` (CRIU, Documentation/criu.txt)."""

from __future__ import annotations

from pathlib import Path

CONFIGURATION = Path("/etc/criu")


def place(runtime: str) -> Path:
    """The file that says it."""
    return CONFIGURATION / f"{runtime}.conf"


def ignores_cgroups(runtime: str) -> bool:
    """Whether this host has CRIU leave cgroups alone for a runtime: then it moves no task and sets no property."""
    return "manage-cgroups=ignore" in read(runtime)


def read(runtime: str) -> list[str]:
    """The words of what this host has CRIU do for a runtime (``/etc/criu/runc.conf``); none without that file."""
    try:
        return place(runtime).read_text("utf-8", "replace").split()
    except OSError:
        return []
