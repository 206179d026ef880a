"""The public description of a checkpoint, from what the engine wrote down about the container."""

from __future__ import annotations

import datetime
import mmap

from ocickpt import oci
from ocickpt.artifact import parts
from ocickpt.description import (
    Amounts,
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
    SELinux,
    VolumeInfo,
)
from ocickpt.engine import criu, host
from ocickpt.engine.podman import config as libpod
from ocickpt.engine.runtime import table
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
    config, spec = configuration(kept[parts.CONFIG]).config, specification(kept[parts.SPEC])
    return Description(
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        container=ContainerInfo(config.id, config.name, config.created_time),
        image=ImageInfo(config.rootfs_image_name, config.rootfs_image_id, image_digest),
        engine=Engine("podman", made.podman),
        runtime=Runtime(config.runtime, made.runtime),
        criu=Criu(made.criu),
        host=made.host,
        options=options,
        volumes=volumes(config),
        contents=Amounts.of({kind: Contents(files.get(kind, 0), packed.raw.get(kind, 0)) for kind in Kind}),
        parent=parent,
        security=security.summary(spec, criu.images_lsm(kept[parts.INVENTORY]), labels(config)),
    )


def configuration(data: bytes) -> libpod.Record:
    """What a checkpoint's ``config.dump`` says; IntegrityError for one that is not of the right form."""
    what = "container's configuration"
    return libpod.read(parse_json(data, what), what)


def specification(data: bytes) -> oci.Saved:
    """What a checkpoint's ``spec.dump`` says; IntegrityError for one that is not of the right form."""
    what = "container's OCI specification"
    return oci.read(parse_json(data, what), what)


def labels(config: libpod.Config) -> SELinux:
    """The SELinux labels podman keeps in a container's configuration."""
    return SELinux(config.process_label, config.mount_label)


def volumes(config: libpod.Config) -> tuple[VolumeInfo, ...]:
    """The named volumes in a container's configuration."""
    return tuple(VolumeInfo(each.name, each.dest) for each in config.named_volumes)
