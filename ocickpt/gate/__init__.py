"""What stands between an artifact and a process: the rules over CRIU's images, before CRIU reads them.

CRIU rebuilds processes as root and does what its images say. So every image it would open is on a list (`images`),
and what is in it that acts on the host is held against the container's OCI specification (`expected`), never against
another image. A rule asks what a process of that specification can *reach*, not what it started as: honest processes
drop privileges and add filters. Knows nothing of how files get where they are, nor of podman.
"""

from ocickpt.gate.check import check
from ocickpt.gate.expected import Expected
from ocickpt.gate.files import check_descriptors, check_tree
from ocickpt.gate.images import Images
from ocickpt.gate.profile import compiled
from ocickpt.gate.remaps import check_remaps
from ocickpt.gate.tasks import check_cgroups

__all__ = [
    "Expected",
    "Images",
    "check",
    "check_cgroups",
    "check_descriptors",
    "check_remaps",
    "check_tree",
    "compiled",
]
