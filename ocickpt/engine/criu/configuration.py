"""What a host has CRIU do for a runtime: ``/etc/criu/runc.conf`` (CRIU, Documentation/criu.txt)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

CONFIGURATION = Path("/etc/criu")
ENVIRONMENT = "CRIU_CONFIG_FILE"
"""Names a file that is in force beside the host's, for whoever runs with it: no later dump sees it (criu/config.c)."""


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


def write(path: Path, usual: str, options: Iterable[str]) -> dict[str, str]:
    """A file with `options`, beside those of the file `usual` if that names one; the environment that has CRIU read it.

    OSError when it cannot be written.
    """
    before = Path(usual).read_text("utf-8") if usual and Path(usual).exists() else ""
    path.write_text("\n".join((before, *options, "")), "utf-8")
    return {ENVIRONMENT: str(path)}
