"""All targets, by name."""

from __future__ import annotations

from typing import Final

from tests.fuzz import archives, containers, operations, packs, registries
from tests.fuzz.target import Target

TARGETS: Final[dict[str, Target]] = {
    **packs.TARGETS,
    **containers.TARGETS,
    **archives.TARGETS,
    **registries.TARGETS,
    **operations.TARGETS,
}
