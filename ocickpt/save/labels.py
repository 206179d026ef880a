"""Whether CRIU here can dump a container's SELinux label: asked before the container stands still.

Standard library only: the shim loads this. It must not know how a dump is made.
"""

from __future__ import annotations

import json
from pathlib import Path

from ocickpt.engine import host
from ocickpt.errors import PrerequisiteError


def check_kept(name: str, bundle: Path) -> None:
    """PrerequisiteError where the container of `bundle` has a label that a dump here would lose.

    CRIU built without libselinux takes an SELinux host for one without labels (criu/lsm.c, CONFIG_HAS_SELINUX): it
    dumps none, says nothing, and what it restores runs under its own. So no restore of such a dump could ever be good.
    """
    if host.lsm() != "selinux" or not _label(bundle) or (knows := host.criu_knows_selinux()):
        return
    criu = host.program("criu") or "criu"
    built = "is built without libselinux" if knows is False else "is no program that says whether it knows SELinux"
    raise PrerequisiteError(
        f"container {name!r} has an SELinux label, which a checkpoint would lose: {criu} {built}",
        hint="install a criu that is built with libselinux, as Fedora's is; the container runs on",
    )


def _label(bundle: Path) -> str:
    """The label that the container's specification gives its processes; "unknown" where that cannot be read."""
    try:
        return str(json.loads((bundle / "config.json").read_bytes())["process"].get("selinuxLabel", ""))
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return "unknown"
