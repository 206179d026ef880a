"""Who may have a container restored instead of started: whoever creates it, from what the host allows.

The annotation of the container alone counts, never a label or an annotation of an image, and never a tag alone:
that can be moved under a name somebody trusts.
"""

from __future__ import annotations

from ocickpt import config, names
from ocickpt.config import Config
from ocickpt.errors import PrerequisiteError, UsageError
from ocickpt.store.reference import Reference


def pinned(text: str, host: Config) -> Reference:
    """The checkpoint that the annotation `text` names; UsageError, PrerequisiteError when this `host` refuses it."""
    reference = Reference.parse(text)
    if not reference.digest:
        raise UsageError(
            f"{names.ANNOTATION_RESTORE}={text[:300]} names no digest, and a tag can be moved",
            hint="write REPOSITORY@sha256:…, as `ocickpt checkpoint` prints it",
        )
    repository = str(Reference(reference.transport, reference.registry, reference.repository))
    if not host.allows(repository):
        raise PrerequisiteError(
            f"this host does not allow containers to be restored from {repository} instead of being started",
            hint=f"[restore-on-start] allow in {config.PATH} lists what may be",
        )
    return reference
