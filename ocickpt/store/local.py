"""The local store: an OCI layout of this host's own, where checkpoints are made and cached.

Its tags are written ``NAME:TAG``, so skopeo reads them as ``oci:/var/lib/ocickpt:NAME:TAG``.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from ocickpt.errors import StorageError
from ocickpt.model import Descriptor
from ocickpt.store.files import Directory, storage_errors
from ocickpt.store.layout import LayoutStore
from ocickpt.store.layout_files import ref_name_of

ENVIRONMENT = "OCICKPT_STORE"
"""The environment variable that says where the local store is."""


def default_path() -> Path:
    """$OCICKPT_STORE, else /var/lib/ocickpt for root, else $XDG_DATA_HOME/ocickpt (~/.local/share)."""
    if chosen := os.environ.get(ENVIRONMENT):
        return Path(chosen).absolute()
    if os.geteuid() == 0:
        return Path("/var/lib/ocickpt")
    data = os.environ.get("XDG_DATA_HOME", "")
    return (Path(data) if Path(data).is_absolute() else Path.home() / ".local" / "share") / "ocickpt"


class LocalStore(LayoutStore):
    """The local store, or with `repository` only what has that name in it; made when it is not there.

    Without a repository a tag is the whole ``NAME:TAG``. The directory is 0700, for memory can hold
    anything; StorageError when it belongs to another user or others could write to it.
    """

    def __init__(self, path: Path | None = None, repository: str = "") -> None:
        path = path or default_path()
        self.repository = repository
        super().__init__(path, create=True, mode=0o700)
        status = os.fstat(self._root.fd)
        if status.st_uid != os.geteuid():
            self.close()
            raise StorageError(f"the local store {path} belongs to another user (uid {status.st_uid})")
        if stat.S_IMODE(status.st_mode) & 0o077:
            with storage_errors(str(path)):
                os.fchmod(self._root.fd, 0o700)

    def _open_temporary(self) -> Directory:
        return self._root.child("tmp", create=True, mode=0o700)

    @property
    def name(self) -> str:
        """As it is called in messages."""
        return self.repository or "the local store"

    def _ref_name(self, tag: str) -> str:
        return f"{self.repository}:{tag}" if self.repository else tag

    def _tag(self, ref_name: str) -> str | None:
        if not self.repository:
            return ref_name
        name, _, tag = ref_name.rpartition(":")
        return tag if name == self.repository else None

    @contextlib.contextmanager
    def alone(self, blob: Descriptor) -> Iterator[None]:
        """Be the only one on this host who fetches `blob`, until the end of the block."""
        with (
            contextlib.closing(self._root.child("fetching", create=True, mode=0o700)) as directory,
            contextlib.closing(directory.child(blob.digest[-1], create=True, mode=0o700)) as lock,
            lock.locked(),
        ):
            yield

    def references(self) -> list[tuple[str, Descriptor]]:
        """Everything in the store as (``NAME:TAG``, manifest), sorted; pinned manifests without a name are ""."""
        found = []
        for entry in self._entries():
            described = Descriptor.from_json(entry)
            plain = Descriptor(
                described.media_type, described.digest, described.size, artifact_type=described.artifact_type
            )
            found.append((ref_name_of(entry), plain))
        return sorted(found, key=lambda pair: (pair[0], pair[1].digest))
