"""What every store can do: hold blobs by digest and manifests by tag, in some medium.

A `Store` is one repository: of a registry, of a layout directory, or a name in the local store. Stores
do not know what blobs mean, and nothing they give out as a whole is unverified: only `read_at` is, and
its callers hold a digest of what they ask for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import BinaryIO, Final, Protocol

from ocickpt import names
from ocickpt.errors import ForeignError, IntegrityError
from ocickpt.model import BlobSource, Descriptor, Progress, digest_of, parse_json

NO_ANNOTATIONS: Final[Mapping[str, str]] = MappingProxyType({})

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)
_DOCKER_MANIFESTS = "application/vnd.docker.distribution.manifest."
_INDEX_TYPES = (names.IMAGE_INDEX_TYPE, "application/vnd.docker.distribution.manifest.list.v2+json")


class Store(BlobSource, Protocol):
    """One repository in some medium. Every method may be called from several threads at once.

    Besides the errors named below, any method raises RegistryError (AuthError) when a registry cannot
    be reached or refuses, and StorageError when a local file cannot be read or written.
    """

    @property
    def name(self) -> str:
        """The repository as users write it, for messages."""

    def resolve(self, target: str) -> tuple[Descriptor, bytes]:
        """The manifest with that tag or digest: its descriptor and verified bytes (at most 4 MiB).

        Raises NotFoundError; ForeignError for an image index or a docker manifest; IntegrityError
        when the bytes are not those of the digest, not a manifest at all, or gone from a layout.
        """

    def has_blob(self, blob: Descriptor) -> bool:
        """Whether the blob is there with that size. Says nothing about the future: see `put_blob`."""

    def put_blob(self, blob: Descriptor, source: Callable[[], BinaryIO], progress: Progress) -> None:
        """Put the bytes that `source()` streams, unless the blob is there already.

        `source` is called again when an upload must start over; the stream is closed. The bytes are
        reported to `progress` once, as present or as they go. IntegrityError when they do not match.
        """

    def put_blob_bytes(
        self, media_type: str, data: bytes, annotations: Mapping[str, str] = NO_ANNOTATIONS
    ) -> Descriptor:
        """Put `data` and describe it."""

    def put_manifest(self, data: bytes, tag: str) -> Descriptor:
        """Put a manifest whose blobs are all there, under `tag`; with an empty tag by digest only.

        This is what makes an artifact visible: it is the last step of every push. One with a `subject` is
        from then on among that one's `referrers`; where a registry does not see to that, its list is
        changed here, which two writers at once can make a mess of (distribution-spec, "Referrers Tag
        Schema"). The manifest is there even when that fails: IntegrityError, UnsupportedError.
        """

    def referrers(self, digest: str, artifact_type: str = "") -> list[Descriptor]:
        """The manifests and indexes here whose `subject` is `digest`, of one type or of all, each once.

        Each with its annotations and its type, which is that of its config where it has none of its own
        (distribution-spec v1.1, "Listing Referrers"). A layout directory has read them; of a registry
        they are its word, also on what they are about, until `resolve` has brought the manifest itself.
        Empty when there are none, and when `digest` is not there. At most 10,000: IntegrityError for
        more, and for what is no such list.
        """

    def tags(self) -> list[str]:
        """Every tag, sorted; none for a repository that does not exist."""

    def untag(self, tag: str) -> None:
        """Take one name off; NotFoundError. UnsupportedError where a registry cannot do that."""

    def delete(self, target: str) -> Descriptor:
        """Remove what the tag or digest names, and say what that was; NotFoundError.

        A registry loses the manifest with *all* its tags (distribution-spec, "Deleting manifests"), or
        forbids it: UnsupportedError. A layout loses that tag (for a digest: all of them), and then
        every blob that nothing refers to any more, unless somebody is writing to it.
        """

    def mount_blob(self, blob: Descriptor, from_repository: str) -> bool:
        """Have the registry take the blob over from another of its repositories; False if it won't."""

    def close(self) -> None:
        """Let go of connections, files and locks. Harmless when repeated."""


def is_digest(target: str) -> bool:
    """Whether a target is a digest, and not a tag: the local store's whole tags have a colon too."""
    return _DIGEST.fullmatch(target) is not None


def describe_manifest(data: bytes, where: str, *, media_type: str = "", digest: str = "") -> Descriptor:
    """The descriptor of the OCI image manifest in `data`, after checking that it is one.

    `where` names it in messages ("web:1 in oci:/backup"); `media_type` is what the medium says it is,
    `digest` what its bytes must hash to. Raises IntegrityError and ForeignError like `Store.resolve`.
    """
    if len(data) > names.MAX_MANIFEST_BYTES:
        raise IntegrityError(f"the manifest of {where} is larger than {names.MAX_MANIFEST_BYTES >> 20} MiB")
    found = digest_of(data)
    if digest and found != digest:
        raise IntegrityError(f"the manifest of {where} is not the one with digest {digest}: it has {found}")
    value = parse_json(data, f"manifest of {where}")
    told = value.get("mediaType") or media_type
    if not isinstance(told, str):
        raise IntegrityError(f"the manifest of {where} has a media type that is not a string")
    if told in _INDEX_TYPES or ("manifests" in value and "layers" not in value):
        raise ForeignError(f"{where} is an image index (several manifests under one name), not one artifact")
    if told.startswith(_DOCKER_MANIFESTS):
        raise ForeignError(f"{where} is a docker image manifest, not an OCI artifact")
    if value.get("schemaVersion") != 2 or told not in ("", names.MANIFEST_TYPE):
        raise ForeignError(f"{where} is not an OCI image manifest (media type {told[:100]!r})")
    artifact_type = value.get("artifactType", "")
    return Descriptor(
        names.MANIFEST_TYPE,
        found,
        len(data),
        artifact_type=artifact_type if isinstance(artifact_type, str) else "",
    )
