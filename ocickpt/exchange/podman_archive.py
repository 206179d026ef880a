"""podman's checkpoint archives: one becomes an artifact, and an artifact one that podman imports.

podman believes such an archive, so what is written is checked as for a restore.
"""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Collection, Iterator
from contextlib import closing
from pathlib import Path

from ocickpt import artifact
from ocickpt.artifact import publishing
from ocickpt.artifact.extras import Extras
from ocickpt.artifact.parts import Parts
from ocickpt.artifact.rebuild import Rebuilder
from ocickpt.description import Options
from ocickpt.engine import criu, host, podman
from ocickpt.engine.podman import roots
from ocickpt.engine.podman.imported import Imported
from ocickpt.errors import ExistsError, StorageError
from ocickpt.gate import places, verification
from ocickpt.gate.host_access import allowed, check_host_access, without_refused
from ocickpt.model import Kind, Progress, Published, Stage
from ocickpt.store import Access, open_source, open_store
from ocickpt.store.local import LocalStore
from ocickpt.store.reference import Reference


def read(path: Path, reference: Reference, access: Access, progress: Progress) -> Published:
    """Make the archive at `path` the artifact `reference`."""
    contents = Parts(path)

    def options() -> Options:
        return Options(
            leave_running=False,
            tcp_established=contents.connected,
            file_locks=criu.holds_locks(contents.locks),
            rootfs=contents.files[Kind.ROOTFS] > 0,
            volumes=contents.files[Kind.VOLUME] > 0,
        )

    with closing(open_store(reference, access, create=True)) as store, LocalStore() as local:
        published = publishing.publish(
            contents,
            "",
            options,
            image_digest="",
            store=store,
            reference=reference,
            local=local,
            progress=progress,
            made=None,
        )
    publishing.sweep()
    return published


def write(
    reference: Reference, output: Path, allow: Collection[str], access: Access, progress: Progress
) -> artifact.Artifact:
    """Write the checkpoint `reference` to the new file `output`, and say which it was.

    What podman gives nobody unasked has to be among `allow`, or what this host allows that repository. Raises
    ExistsError, StorageError, and what a restore raises before it makes anything.
    """
    may = allowed(reference, allow)
    if output.exists():
        raise ExistsError(f"{output} is there already")
    with closing(open_source(reference, access)) as source:
        found = artifact.open(source, reference)
        rebuilder = Rebuilder(artifact.load_index(source, found.manifest), source, progress)
        config, spec = verification.saved(rebuilder)
        imported = verification.imported_config(config, spec, rebuilder.extras(), found.description, _roots())
        imported = without_refused(imported, may, progress)
        check_host_access(imported.name, imported.asked, may, progress)
        rebuilder.replace(verification.verify(rebuilder, config, spec, found.description))
        for note in _for_podman(found.description.options, imported, rebuilder, output):
            progress.note(note)
        layers, hint = _layers(imported.image_id), f"`podman pull {imported.image_name}` first"
        places.check_packed(rebuilder, imported, layers, hint)
        members = imported.members(("ocickpt", "pull", str(found.reference)))
        rebuilder.expect(*(kind for kind in Kind if kind is not Kind.BOOT))
        progress.stage(Stage.FETCHING)
        try:
            with tempfile.TemporaryDirectory(prefix=".ocickpt-", dir=output.absolute().parent) as work:
                rebuilder.whole(output, members, Path(work))
        except OSError as error:
            raise StorageError(f"{output} cannot be written: {error.strerror}") from error
    return found


def _for_podman(made: Options, imported: Imported, rebuilder: Rebuilder, output: Path) -> Iterator[str]:
    """What whoever restores the archive has to do, and to do without, that no archive says.

    podman fills every volume of the container, and then none may be there, or none (libpod/container_internal_common.go
    and pkg/checkpoint/checkpoint_restore.go).
    """
    if made.replayed:
        yield f"`podman container restore` needs {' '.join(made.replayed)}, as the checkpoint was made with"
    held = rebuilder.volumes()
    for each in imported.made:
        options = " ".join(shlex.quote(f"--opt={key}={value}") for key, value in each.given.items())
        unless = f", unless `podman volume create {options} {each.name}` did it before" if each.is_of_host else ""
        yield f"podman makes {each.name} a plain volume{unless}"
    if missing := [name for name in imported.volumes if name not in held]:
        yield (
            f"`podman container restore` needs --ignore-volumes, for there is no content of {', '.join(missing)} in it;"
            " then it fills no other either"
        )
        for name in (each for each in imported.volumes if each in held):
            tar = f"tar -xOf {shlex.quote(str(output))} volumes/{name}.tar"
            yield f"`podman volume create {name}` and `{tar} | podman volume import {name} -` before bring back {name}"
    if lost := _lost(rebuilder.extras()):
        yield f"podman gives nothing back of {', '.join(lost)}: `ocickpt restore` does"


def _lost(saved: Extras) -> list[str]:
    """What only a restore of ours gives back."""
    found = ["what is unusual about its threads" if saved.threads else ""]
    found += ["what core dumps of its processes hold" if saved.processes else ""]
    found += [f"its changes to {each.path}" for each in saved.files]
    found += ["the names of its unix sockets" if saved.sockets else ""]
    return [each for each in found if each]


def _roots() -> podman.Roots:
    """Where podman keeps things here, else where it does by default."""
    if host.program(podman.PROGRAM):
        return roots.roots()
    return roots.USUAL


def _layers(image_id: str) -> tuple[Path, ...]:
    image = podman.image(image_id) if host.program(podman.PROGRAM) else None
    return image.layers if image else ()
