"""The security settings of a container, as its OCI runtime specification states them.

Source: runtime-spec, config.md and config-linux.md.
"""

from __future__ import annotations

from msgspec import structs

from ocickpt import oci
from ocickpt.description import Capabilities, IdMap, ImagesLsm, Seccomp, Security, SELinux, UserNamespace

NO_LABELS = SELinux("", "")


def summary(spec: oci.Spec, images_lsm: ImagesLsm = "unknown", labels: SELinux = NO_LABELS) -> Security:
    """What `spec` (a config.json or spec.dump) confines a container with.

    `labels` are the engine's own SELinux labels, which podman keeps beside the specification; `images_lsm` is the
    module whose labels the CRIU images carry.
    """
    process, linux = spec.process, spec.linux
    return Security(
        selinux=SELinux(labels.process or process.selinux_label, labels.mount or linux.mount_label),
        apparmor=process.apparmor_profile,
        seccomp=Seccomp("filter", linux.seccomp.digest()) if linux.seccomp else Seccomp("none", ""),
        capabilities=Capabilities(**structs.asdict(process.capabilities)),
        no_new_privileges=process.no_new_privileges,
        user_namespace=UserNamespace(_maps(linux.uid_mappings), _maps(linux.gid_mappings)),
        images_lsm=images_lsm,
    )


def _maps(given: tuple[oci.IdMapping, ...]) -> tuple[IdMap, ...]:
    return tuple(IdMap(each.container, each.host, each.size) for each in given)
