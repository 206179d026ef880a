"""What more than others a container gets of its host: the user's to give, not the checkpoint's to take."""

from __future__ import annotations

import shlex
from collections.abc import Collection

from ocickpt.engine.podman.asked import not_allowed
from ocickpt.engine.podman.imported import Imported
from ocickpt.errors import PrerequisiteError
from ocickpt.model import Progress


def check_host_access(imported: Imported, allowed: Collection[str], progress: Progress) -> None:
    """Tell what the container will have that podman gives nobody unasked.

    Raises PrerequisiteError with the options that would allow what is not among `allowed`.
    """
    missing = not_allowed(imported.asked, allowed)
    if missing:
        options = "\n".join(f"  --allow {shlex.quote(each.option):<32} {each.meaning}" for each in missing)
        raise PrerequisiteError(
            f"container {imported.name!r} asks for more than podman gives a container unasked:\n{options}",
            hint="what it is to have is allowed one by one, with these options",
        )
    if imported.asked:
        given = ", ".join(each.meaning for each in imported.asked)
        progress.note(f"the container gets what others do not: {given}")
