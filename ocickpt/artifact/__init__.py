"""Checkpoints as artifacts: manifest, description and index as one thing, what may be in it, written and read back.

Where blobs are kept is unknown here.
"""

from ocickpt.artifact.opening import (
    Artifact,
    config,
    index_of,
    load,
    load_index,
    manifests,
    opened,
    resolve,
)

__all__ = ["Artifact", "config", "index_of", "load", "load_index", "manifests", "opened", "resolve"]
