"""One function a verb: what `import ocickpt` gives, and what the command line calls.

`progress` is told what happens (`ocickpt.Progress`); without it nobody is. `authfile` and `tls_verify` are those of
podman and skopeo. References are written as for the command:
``[docker://]HOST[:PORT]/REPOSITORY[:TAG][@DIGEST]``, ``oci:DIRECTORY[:TAG]``, or ``NAME[:TAG]`` in the local store.

Every function may raise UsageError for a reference that is none. What reaches a registry raises AuthError and
RegistryError, what writes on this host StorageError (`ocickpt.errors`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ocickpt import registration  # noqa: F401 - every verb may come upon what another left
from ocickpt.errors import UsageError
from ocickpt.model import Progress, Published, Silent

if TYPE_CHECKING:
    from ocickpt.hostsetup.doctor import Check
    from ocickpt.lazy.following import Following
    from ocickpt.library.catalog import Inspection, Listed, Removed
    from ocickpt.library.prune import Pruned
    from ocickpt.library.pull import Pulled
    from ocickpt.restoration.options import Restored

LIMIT = 1000
"""So many tags are looked at if nothing else is asked for."""


def checkpoint(
    container: str,
    reference: str,
    *,
    leave_running: bool = False,
    tcp_established: bool = False,
    file_locks: bool = False,
    ignore_rootfs: bool = False,
    ignore_volumes: bool = False,
    authfile: Path | None = None,
    tls_verify: bool | None = None,
    progress: Progress | None = None,
) -> Published:
    """Checkpoint the running `container` (name or id) into the artifact `reference`, a tag, which is written last.

    A container that an earlier call dumped but did not get to publish is published now. When the store
    fails in the middle the dump is kept, for the same call to finish the job; when anything else
    fails the container runs again.

    Raises NotFoundError for no such container, IncompatibleError for one that does not run, UnsupportedError for one
    that cannot be checkpointed, PrerequisiteError (not root, no pycriu), CommandError when podman, runtime or CRIU
    fail, BusyError when somebody else is at work on it.
    """
    from ocickpt.save.checkpoint import CheckpointOptions
    from ocickpt.save.checkpoint import checkpoint as run
    from ocickpt.store import Access

    options = CheckpointOptions(
        leave_running=leave_running,
        tcp_established=tcp_established,
        file_locks=file_locks,
        ignore_rootfs=ignore_rootfs,
        ignore_volumes=ignore_volumes,
    )
    return run(container, reference, options, Access(authfile, tls_verify), progress or Silent())


def restore(
    reference: str,
    *,
    name: str | None = None,
    lazy: bool = False,
    tcp_established: bool = False,
    ignore_static_ip: bool = False,
    ignore_static_mac: bool = False,
    ignore_rootfs: bool = False,
    ignore_volumes: bool = False,
    allow: Sequence[str] = (),
    publish: Sequence[str] = (),
    authfile: Path | None = None,
    tls_verify: bool | None = None,
    progress: Progress | None = None,
    on_running: Callable[[], None] | None = None,
) -> Restored:
    """Restore the checkpoint `reference`; when it fails, nothing of it is left on this host.

    With a `name` it is a copy with a name and an address of its own. With `lazy` its memory follows (`status`).
    `allow` names what it may have that podman gives nobody unasked, as ``cap=sys_admin``, ``mount=/srv/data:ro``; the
    error says what there is.

    `on_running` is called when podman is done with a restore whose memory follows: from then on others need the
    processors. The container is still to be verified, and may be removed; so it is when `on_running` raises.

    Raises NotFoundError (no such artifact, image, secret), ExistsError (name, volume or address is taken),
    IntegrityError for what is not what it says, UnsupportedError, IncompatibleError when this host cannot run it,
    PrerequisiteError (not root, no criu, what `allow` would have to name), CommandError when podman, runtime or CRIU
    fail.
    """
    from ocickpt.restoration.options import RestoreOptions
    from ocickpt.restoration.restore import restore as run
    from ocickpt.store import Access

    options = RestoreOptions(
        name=name,
        tcp_established=tcp_established,
        ignore_static_ip=ignore_static_ip,
        ignore_static_mac=ignore_static_mac,
        ignore_rootfs=ignore_rootfs,
        ignore_volumes=ignore_volumes,
        allow=tuple(allow),
        publish=tuple(publish),
        lazy=lazy,
    )
    return run(reference, options, Access(authfile, tls_verify), progress or Silent(), on_running or (lambda: None))


def push(
    source: str | Path,
    reference: str | None = None,
    *,
    authfile: Path | None = None,
    tls_verify: bool | None = None,
    progress: Progress | None = None,
) -> Published:
    """Publish a checkpoint that exists already under the tag `reference`.

    `source` is a file that `podman container checkpoint --export` wrote, a reference into the local store, or a
    container whose checkpoint waits to be published; only that needs no `reference`.

    Raises NotFoundError, IntegrityError for what is no checkpoint, UnsupportedError, BusyError.
    """
    from ocickpt.store import Access, Reference

    access, watch = Access(authfile, tls_verify), progress or Silent()
    target = Reference.parse(reference) if reference else None
    if target and target.digest:
        raise UsageError(f"{reference} names a digest: a checkpoint is pushed under a tag")
    if target and Path(source).exists():
        from ocickpt.exchange import podman_archive

        return podman_archive.read(Path(source), target, access, watch)
    from ocickpt.library.push import push as run

    return run(str(source), target, access, watch)


def pull(
    reference: str,
    *,
    output: Path | None = None,
    allow: Sequence[str] = (),
    authfile: Path | None = None,
    tls_verify: bool | None = None,
    progress: Progress | None = None,
) -> Pulled:
    """Pull a checkpoint into the local store, or write it to `output` as an archive that podman restores.

    podman believes such an archive, so it is checked as for a restore; what podman gives nobody unasked has to be
    allowed one by one, as ``cap=sys_admin``. Without `output` there is nothing to `allow` (UsageError).

    Raises NotFoundError, ExistsError when `output` is there, IntegrityError, UnsupportedError, PrerequisiteError.
    """
    from ocickpt.library.pull import Pulled
    from ocickpt.library.pull import pull as run
    from ocickpt.store import Access, Reference

    access, watch, parsed = Access(authfile, tls_verify), progress or Silent(), Reference.parse(reference)
    if not output:
        if allow:
            raise UsageError("nothing is allowed to a checkpoint in the local store: --allow goes with -o")
        return run(parsed, access, watch)
    from ocickpt.exchange import podman_archive

    found = podman_archive.write(parsed, output, allow, access, watch)
    return Pulled(str(found.reference), found.descriptor.digest, str(output))


def checkpoints(
    repository: str | None = None,
    *,
    limit: int = LIMIT,
    authfile: Path | None = None,
    tls_verify: bool | None = None,
    progress: Progress | None = None,
) -> list[Listed]:
    """The checkpoints of a repository; without one those of the local store, the unpublished ones among them.

    Of more than `limit` tags the last by name are looked at, and `progress` is told so. What is no checkpoint is left
    out, what is damaged is not. Raises what keeps the store from saying what it has.
    """
    from ocickpt.library.catalog import list_checkpoints
    from ocickpt.store import Access

    return list_checkpoints(repository, Access(authfile, tls_verify), limit, progress)


def inspect(reference: str, *, authfile: Path | None = None, tls_verify: bool | None = None) -> Inspection:
    """Everything public about the checkpoint `reference`; NotFoundError, IntegrityError, UnsupportedError."""
    from ocickpt.library.catalog import inspect as run
    from ocickpt.store import Access

    return run(reference, Access(authfile, tls_verify))


def remove(
    reference: str,
    *,
    authfile: Path | None = None,
    tls_verify: bool | None = None,
    progress: Progress | None = None,
) -> Removed:
    """Remove the checkpoint `reference`, or what an operation that died left of one; what others share with it stays.

    Raises NotFoundError, UnsupportedError when the registry does not delete, BusyError.
    """
    from ocickpt.library.catalog import remove as run
    from ocickpt.store import Access

    return run(reference, Access(authfile, tls_verify), progress or Silent())


def prune(
    repository: str,
    *,
    keep_last: int = 0,
    keep_hourly: int = 0,
    keep_daily: int = 0,
    keep_weekly: int = 0,
    keep_monthly: int = 0,
    keep_within: str | None = None,
    keep_tag: Sequence[str] = (),
    dry_run: bool = False,
    authfile: Path | None = None,
    tls_verify: bool | None = None,
    progress: Progress | None = None,
) -> list[Pruned]:
    """Remove what nothing keeps of each container's checkpoints; all of them, the newest first, and why they stay.

    Kept are the newest ones, the newest of each of so many hours, days, weeks and months in which there are any (UTC),
    those of a span before the newest (``36h``, ``2w3d``), and those whose tag matches a pattern of a shell. What
    remains is whole: a checkpoint lists all the blobs that it needs. With `dry_run` nothing is removed. What is
    damaged, or of a later format, stays. Raises UnsupportedError when the registry does not delete.
    """
    from ocickpt.library.prune import Keep
    from ocickpt.library.prune import prune as run
    from ocickpt.store import Access

    within = Keep.span(keep_within) if keep_within is not None else None
    keep = Keep(keep_last, keep_hourly, keep_daily, keep_weekly, keep_monthly, within, tuple(keep_tag))
    return run(repository, keep, Access(authfile, tls_verify), progress or Silent(), dry_run=dry_run)


def status() -> list[Following]:
    """The lazy restores whose memory is on its way, and those that had to be given up.

    Raises CommandError when podman does not tell which containers it still has, PrerequisiteError without podman.
    """
    from ocickpt.engine import podman
    from ocickpt.lazy.following import following

    return following(lambda container: bool(podman.existing([container])))


def doctor() -> list[Check]:
    """What this host has and lacks; what interrupted operations left is put right. Never raises."""
    from ocickpt.hostsetup.doctor import examine

    return examine()


def setup(*, undo: bool = False) -> list[str]:
    """Put the launcher in front of podman's runtimes, or take away what `setup` and `setup_hooks` made; what was done.

    Raises PrerequisiteError (no podman, no runtime, not root), ExistsError when another's file is in the way.
    """
    from ocickpt.hostsetup.setup import setup as run

    return run(undo)


def setup_hooks() -> list[str]:
    """Have podman run our OCI hooks, for runtimes without a launcher; what was done. Raises what `setup` does."""
    from ocickpt.hostsetup.setup import setup_hooks as run

    return run()
