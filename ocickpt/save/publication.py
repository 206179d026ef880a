"""A dump whose parts lie in its work directory goes into a store."""

from __future__ import annotations

from pathlib import Path

from ocickpt import rendezvous
from ocickpt.artifact import extras, publishing
from ocickpt.artifact.parts import Parts
from ocickpt.model import Progress, Published
from ocickpt.operations.journal import Dumping
from ocickpt.store import Store
from ocickpt.store.local import LocalStore
from ocickpt.store.reference import Reference


def publish(record: Dumping, store: Store, local: LocalStore, reference: Reference, progress: Progress) -> Published:
    """Make the dump of that journal the artifact `reference` in `store`."""
    work = Path(record.work)
    return publishing.publish(
        Parts(work / rendezvous.EXPORT, work if record.captured else None, record.lowers, work / extras.NAME),
        record.name,
        lambda: record.options,
        image_digest=record.image_digest,
        store=store,
        reference=reference,
        local=local,
        progress=progress,
        made=record.origin,
        goes_on=record.options.leave_running,
    )
