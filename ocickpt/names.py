"""Media types, annotation keys and the fixed names of the artifact (schemas/README.md)."""

from __future__ import annotations

TYPE_CHECKING = False  # the shim is waited for whenever a container is made, and `typing` takes a tenth of its time
if TYPE_CHECKING:
    from typing import Final

VERSION: Final = "0.1.0"

FORMAT_VERSION: Final = 1

MANIFEST_TYPE: Final = "application/vnd.oci.image.manifest.v1+json"
IMAGE_INDEX_TYPE: Final = "application/vnd.oci.image.index.v1+json"

ARTIFACT_TYPE: Final = "application/vnd.ocickpt.checkpoint.v1"
CONFIG_TYPE: Final = "application/vnd.ocickpt.checkpoint.config.v1+json"
INDEX_TYPE: Final = "application/vnd.ocickpt.index.v1"
PACK_TYPE_PREFIX: Final = "application/vnd.ocickpt.pack.v1."

ANNOTATION_CREATED: Final = "org.opencontainers.image.created"
ANNOTATION_BASE_NAME: Final = "org.opencontainers.image.base.name"
ANNOTATION_BASE_DIGEST: Final = "org.opencontainers.image.base.digest"
ANNOTATION_REF_NAME: Final = "org.opencontainers.image.ref.name"
ANNOTATION_TITLE: Final = "org.opencontainers.image.title"

# checkpointctl's family, lib/metadata.go.
ANNOTATION_ENGINE: Final = "org.criu.checkpoint.engine.name"
ANNOTATION_ENGINE_VERSION: Final = "org.criu.checkpoint.engine.version"
ANNOTATION_CONTAINER: Final = "org.criu.checkpoint.container.name"
ANNOTATION_IMAGE_NAME: Final = "org.criu.checkpoint.rootfsImageName"
ANNOTATION_IMAGE_ID: Final = "org.criu.checkpoint.rootfsImageID"
ANNOTATION_RUNTIME: Final = "org.criu.checkpoint.runtime.name"

ANNOTATION_PARENT: Final = "io.ocickpt.parent"
ANNOTATION_INDEX_ROOT: Final = "io.ocickpt.index.root"
ANNOTATION_INDEX_HEAD: Final = "io.ocickpt.index.head"

# What a container's own annotations may ask for (runtime-spec, config.md).
ANNOTATION_PUSH: Final = "io.ocickpt.push"
ANNOTATION_RESTORE: Final = "io.ocickpt.restore"
ANNOTATION_RESTORE_LAZY: Final = "io.ocickpt.restore.lazy"

LABEL_RESTORE: Final = "io.ocickpt.restore"
"""On a volume: the key of the restore that made it."""

HOST_CONFIG: Final = "/etc/ocickpt/config.toml"

EAGER: Final = "eager/"
"""Before the name of an address space: the part of it that must be there before the first instruction runs."""

# Limits registries impose: 4 MiB manifests (distribution), 1 MB (quay), 500 layers (ECR).
MAX_MANIFEST_BYTES: Final = 4 << 20
MAX_CONFIG_BYTES: Final = 4 << 20
MAX_LAYERS: Final = 400
