"""The public description of a checkpoint, from what the engine wrote down about the container."""

from __future__ import annotations

import datetime
import mmap
from dataclasses import dataclass
from typing import Any

from ocickpt.description import (
    ContainerInfo,
    Contents,
    Criu,
    Description,
    Engine,
    HostInfo,
    ImageInfo,
    Options,
    Runtime,
    VolumeInfo,
)
from ocickpt.engine import criu, host
from ocickpt.errors import IntegrityError
from ocickpt.flows import contents as parts
from ocickpt.model import Kind, Packed, parse_json
from ocickpt.trust import security


def describe(
    kept: dict[str, bytes],
    packed: Packed,
    files: dict[Kind, int],
    options: Options,
    *,
    image_digest: str,
    parent: str | None,
    core: bytes | None = None,
) -> Description:
    """The description of what was packed; `kept` are the members `Contents` kept.

    It was made here, or where nobody knows: then the `core` image is given, which says as much as there is to know.
    """
    config = parse_json(kept[parts.CONFIG], "container's configuration")
    spec = parse_json(kept[parts.SPEC], "container's OCI specification")
    runtime = text(config, "runtime")
    made = _here(runtime) if core is None else _elsewhere(core)
    return Description(
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        container=ContainerInfo(text(config, "id"), text(config, "name"), text(config, "createdTime")),
        image=ImageInfo(text(config, "rootfsImageName"), text(config, "rootfsImageID"), image_digest),
        engine=Engine("podman", made.podman),
        runtime=Runtime(runtime, made.runtime),
        criu=Criu(made.criu),
        host=made.host,
        options=options,
        volumes=volumes(config),
        contents={kind: Contents(files.get(kind, 0), packed.raw.get(kind, 0)) for kind in Kind},
        parent=parent,
        security=security.summary(spec, criu.images_lsm(kept[parts.INVENTORY]), labels(config)),
    )


@dataclass(frozen=True, slots=True)
class _Made:
    """Where a checkpoint was made, and by which versions of what; empty is what is not known."""

    host: HostInfo
    podman: str = ""
    runtime: str = ""
    criu: str = ""


def _here(runtime: str) -> _Made:
    facts = host.facts()
    info = HostInfo(
        arch=facts.arch,
        kernel=facts.kernel,
        cgroup=facts.cgroup,
        cpu_features=facts.cpu_features,
        page_size=facts.page_size,
        distribution=facts.distribution,
    )
    # Not asked for by the name that the archive gives: that could be the path of any program.
    version = host.runtime_version(runtime) if runtime in host.RUNTIMES else ""
    return _Made(info, host.podman_version(), version, facts.criu)


def _elsewhere(core: bytes) -> _Made:
    # With pages of another size than ours, no pagemap would have fitted its pages (`Contents`).
    arch = criu.architecture(core) if core else ""
    return _Made(HostInfo(arch, "", "", (), mmap.PAGESIZE, ""))


def labels(config: dict[str, Any]) -> dict[str, str]:
    """The SELinux labels podman keeps in a container's configuration."""
    return {"process": text(config, "ProcessLabel"), "mount": text(config, "MountLabel")}


def volumes(config: dict[str, Any]) -> tuple[VolumeInfo, ...]:
    """The named volumes in a container's configuration."""
    found = config.get("namedVolumes") or []
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise IntegrityError("the container's configuration has volumes that are not a list of objects")
    return tuple(VolumeInfo(text(each, "volumeName"), text(each, "dest")) for each in found)


def text(value: dict[str, Any], name: str) -> str:
    """A string in a container's configuration; empty when it is not there."""
    found = value.get(name) or ""
    if not isinstance(found, str):
        raise IntegrityError(f"the container's configuration has a {name} that is not a string")
    return found
