"""All rules, one after the other: cheap and clear ones first."""

from __future__ import annotations

from ocickpt.engine.podman import etc
from ocickpt.errors import IntegrityError
from ocickpt.gate import files, filters, mappings, mounts, tasks
from ocickpt.gate.expected import Expected
from ocickpt.gate.images import Images


def check(images: Images, expected: Expected) -> dict[str, bytes]:
    """Refuse images that would have CRIU do more than make the processes of a container as `expected`; by name those
    that it is to be given instead.

    Raises IntegrityError for what such a container cannot have, UnsupportedError for what this version does not know.
    """
    try:
        images.check_fields(expected)
        tasks.check_processes(images, expected)
        mounts.check_mounts(images.numbered("mountpoints"), expected)
        mappings.check_mappings(images, expected)
        files.check_files(images, expected)
        files.check_nodes(images, expected)
        return filters.confined(images, expected) | files.without_sizes(images, etc.MADE)
    except (AttributeError, TypeError, ValueError, RecursionError, OverflowError) as error:
        raise IntegrityError(f"the checkpoint's images hold what cannot be: {error}") from error
