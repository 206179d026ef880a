"""A checkpoint of the local store, or a dump that nobody could publish yet, goes into a store."""

from __future__ import annotations

from ocickpt.artifact import copying
from ocickpt.errors import NotFoundError
from ocickpt.model import Progress, Published
from ocickpt.operations import pending, recovery
from ocickpt.store import Access
from ocickpt.store.reference import Reference


def push(source: str, reference: Reference | None, access: Access, progress: Progress) -> Published:
    """Push `source` to `reference`, a tag.

    `source` is a reference into the local store, or the name of a container whose checkpoint waits to be published;
    only that needs no `reference`.
    """
    recovery.recover(progress)
    if waiting := pending.find(source):
        return pending.push(waiting, str(reference) if reference else None, access, progress)
    if not reference:
        raise NotFoundError(
            f"no checkpoint of {source!r} waits to be published",
            hint="`ocickpt list` shows those that do; for any other say where it is to go",
        )
    if "/" in source and not source.startswith("oci:"):
        raise NotFoundError(f"there is no file {source!r}")
    return copying.copy(Reference.parse(source), reference, access, progress)
