"""Checkpoints as artifacts: manifest, description and index as one thing, what may be in it, written and read back.

Where blobs are kept is unknown here.
"""

from ocickpt.artifact.opening import Artifact, config, index_of, load_index, manifests, resolve
from ocickpt.artifact.opening import open_artifact as open  # noqa: A004 - `artifact.open`, as of a file

__all__ = ["Artifact", "config", "index_of", "load_index", "manifests", "open", "resolve"]
