"""A dump whose parts lie in its work directory goes into a store."""

from __future__ import annotations

from pathlib import Path

from ocickpt.description import Options
from ocickpt.flows import publish as publishing
from ocickpt.flows.contents import Contents
from ocickpt.flows.describe import Origin
from ocickpt.flows.journal import Record
from ocickpt.flows.publish import Published
from ocickpt.model import Progress
from ocickpt.shim import EXPORT
from ocickpt.store import Store
from ocickpt.store.local import LocalStore
from ocickpt.store.reference import Reference


def publish(record: Record, store: Store, local: LocalStore, reference: Reference, progress: Progress) -> Published:
    """Make the dump of that journal the artifact `reference` in `store`."""
    work = Path(record.work)
    contents = Contents(work / EXPORT, work if record.captured else None, record.lowers)
    options = Options(
        leave_running=record.leave_running,
        tcp_established=record.options.get("tcp_established", False),
        file_locks=record.options.get("file_locks", False),
        rootfs=not record.options.get("ignore_rootfs", False),
        volumes=not record.options.get("ignore_volumes", False),
    )
    return publishing.publish(
        contents,
        record.name,
        lambda: options,
        image_digest=record.image_digest,
        store=store,
        reference=reference,
        local=local,
        progress=progress,
        made=Origin.recorded(record.origin),
    )
