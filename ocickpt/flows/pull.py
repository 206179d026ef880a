"""A checkpoint comes from a registry into the local store, or out of any store as a podman archive."""

from __future__ import annotations

import tempfile
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from ocickpt.engine import host, podman, roots
from ocickpt.errors import ExistsError, StorageError
from ocickpt.flows import artifact, images, preflight, remaps
from ocickpt.flows.rebuild import Rebuilder
from ocickpt.model import Kind, Progress, Stage
from ocickpt.store import Access, copy_blobs, open_source, open_store
from ocickpt.store.local import LocalStore
from ocickpt.store.reference import Reference

_USUAL_ROOT = Path("/var/lib/containers/storage")


@dataclass(frozen=True)
class Pulled:
    """Where a checkpoint is now: a reference into the local store, or the path of an archive."""

    reference: str
    digest: str
    path: str | None


def pull(ref: str, output: Path | None, host_access: bool, access: Access, progress: Progress) -> Pulled:
    """Pull `ref` into the local store, or write it to `output` as an archive `podman container restore` imports.

    podman believes such an archive, so it is checked as for a restore; what the container would get of a host has to be
    allowed with `host_access`.
    """
    reference = Reference.parse(ref)
    if output:
        return _to_archive(reference, output, host_access, access, progress)
    with closing(open_store(reference, access)) as origin, _local(reference) as local:
        found = artifact.load(origin, reference)
        progress.stage(Stage.FETCHING)
        progress.expect(found.size)
        with local.writing():
            copy_blobs(origin, local, (found.manifest.config, *found.manifest.layers), progress)
            tag = reference.tag or reference.digest.removeprefix("sha256:")[:12]
            local.put_manifest(origin.resolve(found.descriptor.digest)[1], tag)
        return Pulled(f"{local.repository}:{tag}", found.descriptor.digest, None)


def _to_archive(reference: Reference, output: Path, host_access: bool, access: Access, progress: Progress) -> Pulled:
    if output.exists():
        raise ExistsError(f"{output} is there already")
    with closing(open_source(reference, access)) as source:
        found = artifact.load(source, reference)
        rebuilder = Rebuilder(artifact.load_index(source, found.manifest), source, progress)
        config, spec = images.saved(rebuilder)
        imported = images.imported(config, spec, found.description, _roots())
        preflight.check_access(imported, host_access, progress)
        images.verify(rebuilder, config, spec, found.description)
        layers, hint = _layers(imported.image_id), f"`podman pull {imported.image_name}` first"
        rebuilder.check_deletions(layers, hint)
        remaps.check_packed(rebuilder, imported, layers, hint)
        members = imported.members(("ocickpt", "pull", str(found.reference)))
        rebuilder.expect(*(kind for kind in Kind if kind is not Kind.BOOT))
        progress.stage(Stage.FETCHING)
        try:
            with tempfile.TemporaryDirectory(prefix=".ocickpt-", dir=output.absolute().parent) as work:
                rebuilder.whole(output, members, Path(work))
        except OSError as error:
            raise StorageError(f"{output} cannot be written: {error.strerror}") from error
    return Pulled(str(found.reference), found.descriptor.digest, str(output))


def _roots() -> podman.Roots:
    """Where podman keeps things here, else where it does by default."""
    if host.program(podman.PROGRAM):
        return roots.roots()
    return podman.Roots(_USUAL_ROOT, _USUAL_ROOT / "volumes", (_USUAL_ROOT,))


def _layers(image_id: str) -> tuple[Path, ...]:
    image = podman.image(image_id) if host.program(podman.PROGRAM) else None
    return image.layers if image else ()


def _local(reference: Reference) -> LocalStore:
    """The local store under the last part of the repository's name."""
    return LocalStore(repository=reference.repository.rstrip("/").rpartition("/")[2])
