"""Everything that can be known before a restore touches the host: would it work here, and may it?"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from ocickpt.asked import Asked
from ocickpt.description import Description
from ocickpt.engine import host, podman
from ocickpt.engine.podman import storage
from ocickpt.engine.podman.imported import Imported
from ocickpt.engine.runtime import table
from ocickpt.errors import (
    ExistsError,
    IncompatibleError,
    NotFoundError,
    PrerequisiteError,
    UnsupportedError,
    UsageError,
)
from ocickpt.gate.host_access import check_host_access
from ocickpt.model import Progress, Stage
from ocickpt.versions import numbers

# Instruction set extensions a program may have found with CPUID and go on using (proc(5), cpuinfo).
# fmt: off
_ISA = (
    "sse", "ssse", "avx", "amx", "aes", "vaes", "pclmul", "vpclmul", "bmi", "fma",
    "f16c", "popcnt", "movbe", "lzcnt", "abm", "adx", "sha_ni", "gfni", "xsave", "rdrand",
    "rdseed", "rdtscp", "cx16", "erms", "fsrm", "clflushopt", "clwb", "rtm", "hle",
)
# fmt: on


def check_host(description: Description, here: host.Host) -> list[str]:
    """Architecture, page size, CPU, CRIU, runtime and security module of this host against the checkpoint's.

    What cannot be told, in sentences for the user. Raises PrerequisiteError, IncompatibleError and UnsupportedError.
    """
    there = description.host
    if not here.criu:
        raise PrerequisiteError("criu is not installed", hint="install the package criu")
    unknown = []
    if not there.arch:
        unknown.append("on what kind of machine")
    elif there.arch != here.arch:
        raise IncompatibleError(f"the checkpoint is of a {there.arch} machine, this one is {here.arch}")
    if there.page_size != here.page_size:
        raise IncompatibleError(f"the checkpoint has pages of {there.page_size} bytes, this host of {here.page_size}")
    if not there.cpu_features:
        unknown.append("on what CPU")
    missing = sorted(each for each in set(there.cpu_features) - set(here.cpu_features) if each.startswith(_ISA))
    if missing:
        raise IncompatibleError(f"this CPU lacks what the checkpointed program may use: {', '.join(missing[:12])}")
    if not description.criu.version:
        unknown.append("by which CRIU")
    if numbers(description.criu.version)[:2] > numbers(here.criu)[:2]:
        raise IncompatibleError(
            f"the checkpoint was made by CRIU {description.criu.version}, this host has {here.criu}",
            hint="install at least that version of criu here",
        )
    runtime = description.runtime.name
    # Any other name could be the path of a program, which asking for its version would run.
    if runtime not in table.NAMES:
        raise UnsupportedError(f"the checkpoint needs the runtime {runtime[:100]!r}; only {table.LISTED} can restore")
    if not host.program(runtime):
        raise PrerequisiteError(
            f"the checkpoint needs the runtime {runtime}, which is not here", hint=f"install {runtime}"
        )
    lsm = description.security.images_lsm
    if lsm in ("selinux", "apparmor") and here.lsm in ("selinux", "apparmor") and lsm != here.lsm:
        raise IncompatibleError(f"the checkpoint was made under {lsm}, this host runs {here.lsm}")
    return [f"it is not known {each} the checkpoint was made: it may not run here" for each in unknown]


def check_container(
    imported: Imported,
    name: str | None,
    roots: podman.Roots,
    *,
    ignore_volumes: bool,
    allow: Collection[str],
    progress: Progress,
) -> None:
    """Image, name, volumes, secrets and host paths of what would be restored here.

    Raises NotFoundError, ExistsError, UsageError, IncompatibleError.
    """
    if name and imported.volumes and not ignore_volumes:
        first = next(iter(imported.volumes))
        raise UsageError(
            f"the container has the volume {first!r}, which a copy under another name would share",
            hint="--ignore-volumes restores it without the volumes' content",
        )
    for taken in storage.taken((name,) if name else (imported.name, imported.id), roots.graph):
        raise ExistsError(
            f"there is a container {taken!r} on this host already",
            hint="-n NAME restores under another name; `podman rm` removes the other one",
        )
    asked = list(imported.asked)
    if not ignore_volumes:
        _check_no_volume(imported)
    for volume in filter(podman.volume_exists, imported.volumes if ignore_volumes else ()):
        asked.append(Asked("volume", volume, f"the volume {volume} of this host, with what is in it"))
    for secret in imported.secrets:
        if not podman.secret_exists(secret):
            raise NotFoundError(
                f"the container uses the podman secret {secret!r}", hint="`podman secret create` makes it"
            )
    for network in imported.networks:
        if not podman.network_exists(network):
            raise NotFoundError(
                f"the container is in podman's network {network!r}, which is not on this host",
                hint="`podman network create` makes it; its subnet has to hold the container's address",
            )
    for path in imported.host_paths:
        if not Path(path).exists():
            raise IncompatibleError(f"the container mounts {path!r} of its host, which is not here")
    check_host_access(imported.name, asked, allow, progress)
    if not storage.has_image(imported.image_id, roots.images) and not podman.image(imported.image_id):
        _pull_image(imported, progress)
        if not ignore_volumes:  # that may have taken long
            _check_no_volume(imported)


def check_memory(needed: int, limit: int | None) -> None:
    """IncompatibleError where what goes into memory is more than the container may have (`limit`), or than there is."""
    free = host.free_memory()
    most = min(free, limit) if limit and limit > 0 else free
    if needed > most:
        raise IncompatibleError(
            f"the checkpoint's volumes in memory take {needed >> 20} MiB, of which the container may have {most >> 20}"
        )


def _check_no_volume(imported: Imported) -> None:
    for volume in filter(podman.volume_exists, imported.volumes):
        raise ExistsError(
            f"there is a volume {volume!r} on this host already",
            hint="--ignore-volumes uses it as it is; `podman volume rm` removes it",
        )


def _pull_image(imported: Imported, progress: Progress) -> None:
    """podman pulls by name but builds on the ID: the ID must be here, whatever the name says."""
    progress.stage(Stage.PULLING, imported.image_name)
    if not imported.image_name.startswith("localhost/") and podman.pull(imported.image_name):
        if podman.image(imported.image_id):
            return
        raise IncompatibleError(
            f"{imported.image_name} is another image by now: the container was made from {imported.image_id[:12]}",
            hint="pull the image the container was made from by its digest (`ocickpt inspect` shows it)",
        )
    raise NotFoundError(
        f"the container's image {imported.image_name} ({imported.image_id[:12]}) is not on this host",
        hint="bring it here with `podman pull`, or `podman save` there and `podman load` here",
    )
