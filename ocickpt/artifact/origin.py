"""The public description of a checkpoint, from what the engine wrote down about the container."""

from __future__ import annotations

import datetime
import mmap
from typing import Any

from ocickpt.artifact import parts
from ocickpt.description import (
    ContainerInfo,
    Contents,
    Criu,
    Description,
    Engine,
    HostInfo,
    ImageInfo,
    Options,
    Origin,
    Runtime,
    VolumeInfo,
)
from ocickpt.engine import criu, host
from ocickpt.engine.runtime import table
from ocickpt.errors import IntegrityError
from ocickpt.model import Kind, Packed, parse_json
from ocickpt.trust import security


def here(runtime: str) -> Origin:
    """This host, as it is now."""
    facts = host.facts()
    info = HostInfo(
        arch=facts.arch,
        kernel=facts.kernel,
        cgroup=facts.cgroup,
        cpu_features=facts.cpu_features,
        page_size=facts.page_size,
        distribution=facts.distribution,
    )
    # Not asked for by any other name: that could be the path of any program.
    version = host.runtime_version(runtime) if runtime in table.NAMES else ""
    return Origin(info, host.podman_version(), version, facts.criu)


def of_images(core: bytes) -> Origin:
    """What CRIU's images say, of which `core` is a core image, if there is any."""
    # With pages of another size than ours, no pagemap would have fitted its pages (`parts`).
    return Origin(HostInfo(criu.architecture(core) if core else "", "", "", (), mmap.PAGESIZE, ""))


def describe(
    kept: dict[str, bytes],
    packed: Packed,
    files: dict[Kind, int],
    options: Options,
    *,
    image_digest: str,
    parent: str | None,
    made: Origin,
) -> Description:
    """The description of what was packed; `kept` are the members `Contents` kept."""
    config = parse_json(kept[parts.CONFIG], "container's configuration")
    spec = parse_json(kept[parts.SPEC], "container's OCI specification")
    return Description(
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        container=ContainerInfo(text(config, "id"), text(config, "name"), text(config, "createdTime")),
        image=ImageInfo(text(config, "rootfsImageName"), text(config, "rootfsImageID"), image_digest),
        engine=Engine("podman", made.podman),
        runtime=Runtime(text(config, "runtime"), made.runtime),
        criu=Criu(made.criu),
        host=made.host,
        options=options,
        volumes=volumes(config),
        contents={kind: Contents(files.get(kind, 0), packed.raw.get(kind, 0)) for kind in Kind},
        parent=parent,
        security=security.summary(spec, criu.images_lsm(kept[parts.INVENTORY]), labels(config)),
    )


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
