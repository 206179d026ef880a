"""From a reference to its store, and blobs from one store to another."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path

from ocickpt.model import Descriptor, Progress
from ocickpt.store.access import Access
from ocickpt.store.base import Store
from ocickpt.store.reference import Reference


def open_store(ref: Reference, access: Access | None = None, *, create: bool = False) -> Store:
    """The repository that `ref` is in; `create` where it is to be written to.

    Raises NotFoundError for a layout directory that is not there (with `create` it is made), UsageError
    for a registries.conf that cannot be understood, AuthError for a registry that is blocked there. A
    registry is contacted when it is first used. The local store is always made.
    """
    if ref.transport == "docker":
        # urllib3 costs 40 ms: not for those who stay on this host.
        from ocickpt.store.registry import RegistryStore

        return RegistryStore(ref.registry, ref.repository, access, write=create)
    if ref.transport == "oci":
        from ocickpt.store.layout import LayoutStore

        return LayoutStore(Path(ref.repository), create=create)
    from ocickpt.store.local import LocalStore

    return LocalStore(repository=ref.repository)


def copy_blobs(source: Store, target: Store, blobs: Iterable[Descriptor], progress: Progress, jobs: int = 4) -> None:
    """Put every one of `blobs` (each digest once) into `target`, `jobs` at a time, from `source`.

    Between repositories of one registry they are mounted where it allows that. The first error stops
    what has not begun, and is raised when what has begun is over. `progress` is told about every byte
    once; it was told what to expect by the caller.
    """
    wanted = list({blob.digest: blob for blob in blobs}.values())
    mount_from = _same_registry(source, target)

    def copy(blob: Descriptor) -> None:
        if mount_from and target.mount_blob(blob, mount_from):
            progress.present(blob.size)
            return
        target.put_blob(blob, lambda: source.open_blob(blob).__enter__(), progress)

    with ThreadPoolExecutor(max_workers=max(1, jobs), thread_name_prefix="copy") as pool:
        try:
            futures = [pool.submit(copy, blob) for blob in wanted]
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            for future in done:
                future.result()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _same_registry(source: Store, target: Store) -> str:
    """The repository of `source` when both are at one registry, else ""."""
    here, there = getattr(source, "registry", ""), getattr(target, "registry", "")
    return str(getattr(source, "repository", "")) if here and here == there else ""
