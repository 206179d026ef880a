"""CRIU: its images, its log, its configuration, the files in which it leaves memory."""

from ocickpt.engine.criu.configuration import ignores_cgroups
from ocickpt.engine.criu.configuration import write as configure
from ocickpt.engine.criu.images import (
    architecture,
    holds_locks,
    images_lsm,
    lazy_areas,
    mount_flags,
    processes,
    pycriu_images,
    without_network_lock,
)
from ocickpt.engine.criu.logs import log_errors
from ocickpt.engine.criu.reasons import explain

__all__ = [
    "architecture",
    "configure",
    "explain",
    "holds_locks",
    "ignores_cgroups",
    "images_lsm",
    "lazy_areas",
    "log_errors",
    "mount_flags",
    "processes",
    "pycriu_images",
    "without_network_lock",
]
