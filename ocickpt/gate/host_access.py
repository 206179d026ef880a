"""What more than others a container gets of its host: the user's to give, not the checkpoint's to take."""

from __future__ import annotations

from ocickpt.engine.podman.imported import Imported
from ocickpt.errors import PrerequisiteError
from ocickpt.model import Progress


def check_host_access(imported: Imported, allowed: bool, progress: Progress) -> None:
    """Tell what the container will have of this host.

    Raises PrerequisiteError that names it, unless it is `allowed`.
    """
    wanted = [*(f"the directory {path}" for path in imported.host_paths), *imported.access]
    if wanted and not allowed:
        raise PrerequisiteError(
            f"the container would get of this host: {', '.join(wanted)}", hint="--host-access gives it that"
        )
    if wanted:
        progress.note(f"the container gets of this host: {', '.join(wanted)}")
