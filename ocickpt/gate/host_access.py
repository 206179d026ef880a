"""What more than others a container gets of its host: the user's to give, not the checkpoint's to take."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Sequence

from ocickpt import config
from ocickpt.asked import Asked, check, not_allowed
from ocickpt.engine.podman.imported import Imported
from ocickpt.errors import PrerequisiteError
from ocickpt.model import Progress
from ocickpt.store.reference import Reference


def allowed(named: Reference, options: Collection[str]) -> frozenset[str]:
    """The `options` of who restores what they `named`, and what this host always allows what is in that repository.

    Raises UsageError for an option that is none, PrerequisiteError for a configuration that is none.
    """
    check(options)
    return frozenset(options) | config.load().allowed_to(named.home)


def without_refused(imported: Imported, allowed: Collection[str], progress: Progress) -> Imported:
    """The container without what it can do without and nobody has `allowed`; each of that is told."""
    refused = [each for each in not_allowed(imported.asked, allowed) if each.optional]
    for each in refused:
        progress.note(f"the container comes back without {each.meaning}; --allow {shlex.quote(each.option)} gives it")
    return imported.without(refused)


def check_host_access(name: str, asked: Sequence[Asked], allowed: Collection[str], progress: Progress) -> None:
    """Tell what the container `name` will have of what it has `asked` for, and podman gives nobody unasked.

    Raises PrerequisiteError with the options that would allow what is not among `allowed`.
    """
    missing = not_allowed(asked, allowed)
    if missing:
        options = "\n".join(f"  --allow {shlex.quote(each.option):<32} {each.meaning}" for each in missing)
        raise PrerequisiteError(
            f"container {name!r} asks for more than podman gives a container unasked:\n{options}",
            hint="what it is to have is allowed one by one, with these options",
        )
    if asked:
        given = ", ".join(each.meaning for each in asked)
        progress.note(f"the container gets what others do not: {given}")
