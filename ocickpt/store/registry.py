"""One repository of a registry, by the distribution protocol (distribution-spec v1.1)."""

from __future__ import annotations

import contextlib
import io
import re
import threading
from collections.abc import Callable, Mapping
from typing import BinaryIO, Final, Self
from urllib.parse import quote, urlsplit

from ocickpt import names
from ocickpt.errors import AuthError, IntegrityError, NotFoundError, RegistryError, UnsupportedError
from ocickpt.model import Descriptor, Progress, Silent, check_digest, digest_of, json_value
from ocickpt.store import credentials, referrers, registries_conf
from ocickpt.store.access import Access
from ocickpt.store.base import NO_ANNOTATIONS, describe_manifest, is_digest
from ocickpt.store.downloads import Body, Whole, read_range
from ocickpt.store.exchange import Reply, Request
from ocickpt.store.http import Client
from ocickpt.store.text import clean
from ocickpt.store.uploads import Upload
from ocickpt.store.verify import verified

_ACCEPT: Final = ", ".join(
    (
        names.MANIFEST_TYPE,
        names.IMAGE_INDEX_TYPE,
        "application/vnd.docker.distribution.manifest.v2+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
    )
)
_HUB: Final = "docker.io"
_HUB_SERVER: Final = "registry-1.docker.io"
_MAX_PAGE_BYTES: Final = 4 << 20
_MAX_PAGES: Final = 1000
_MAX_TAGS: Final = 1_000_000
_MAX_LIST_BYTES: Final = 64 << 20
"""Of all pages of a list of referrers."""
_LINK: Final = re.compile(r"<([^<>]{1,4096})>([^<>,]*)")


class RegistryStore:
    """`base.Store` over HTTP. Threads may share it; uploads run in as many threads as call it.

    Nothing is sent before it is used. With `write`, registries.conf's `location` is not applied, as
    podman and skopeo do not when pushing. Raises UsageError for a registries.conf that cannot be read,
    and AuthError for a registry that it blocks.
    """

    def __init__(self, registry: str, repository: str, access: Access | None = None, *, write: bool = False) -> None:
        access = access or Access()
        if registry == _HUB and "/" not in repository:
            repository = f"library/{repository}"
        place = registries_conf.look_up(registry, repository)
        if place.blocked:
            raise AuthError(f"registries.conf blocks {registry}/{repository}")
        if write:
            place = registries_conf.Place(registry, repository, place.insecure)
        self._name = f"{registry}/{repository}"
        self.registry = place.registry
        self.repository = place.repository
        self._client = Client(
            place.registry,
            _HUB_SERVER if place.registry == _HUB else place.registry,
            lambda: credentials.find(place.registry, place.repository, access.authfile),
            verify=access.tls_verify if access.tls_verify is not None else not place.insecure,
            access=access,
        )
        self._pull = (f"repository:{self.repository}:pull",)
        self._push = (f"repository:{self.repository}:pull,push",)
        self._remove = (f"repository:{self.repository}:delete,pull",)
        self._base = f"/v2/{self.repository}"
        self._may_push = write
        self._whole = Whole()
        self._listing = threading.Lock()

    @property
    def name(self) -> str:
        """``HOST[:PORT]/REPOSITORY`` as it was asked for."""
        return self._name

    @property
    def _read(self) -> tuple[str, ...]:
        # While pushing, one token serves for everything.
        return self._push if self._may_push else self._pull

    def _blob(self, blob: Descriptor) -> str:
        return f"{self._base}/blobs/{blob.digest}"

    def _manifest(self, target: str) -> str:
        return f"{self._base}/manifests/{quote(target, safe=':')}"

    # Blobs.

    def read_at(self, blob: Descriptor, offset: int, length: int) -> bytes:
        """See `model.BlobSource.read_at`: one closed range a request.

        A registry that answers with the whole blob instead is asked for whole blobs from then on:
        they are verified, and the last few kept in temporary files.
        """
        if offset < 0 or length < 0 or offset + length > blob.size:
            raise IntegrityError(f"blob {blob.digest} has {blob.size} bytes, {length} at {offset} were asked for")
        if not length:
            return b""
        if self._whole.wanted:
            return self._whole.read_at(blob, offset, length, self.open_blob)
        request = Request("GET", self._blob(blob), self._read, doing=self._doing(blob), size=blob.size)
        data, ranged = read_range(self._client, request, blob, offset, length)
        if not ranged:
            self._whole.wanted = True
        return data

    def open_blob(self, blob: Descriptor) -> BinaryIO:
        """See `model.BlobSource.open_blob`; a lost connection is taken up again where it broke."""
        request = Request("GET", self._blob(blob), self._read, doing=self._doing(blob), size=blob.size)
        return verified(Body(self._client, request, blob), blob, self.name)

    def _doing(self, blob: Descriptor) -> str:
        return f"blob {blob.digest} of {self.repository}"

    def has_blob(self, blob: Descriptor) -> bool:
        """See `base.Store.has_blob`."""
        request = Request("HEAD", self._blob(blob), self._read, ok=(200, 404), doing=self._doing(blob))
        with self._client.send(request) as reply:
            size = reply.header("Content-Length")
            return reply.status == 200 and (not size or size == str(blob.size))

    def put_blob(self, blob: Descriptor, source: Callable[[], BinaryIO], progress: Progress) -> None:
        """See `base.Store.put_blob`."""
        self._may_push = True
        if self.has_blob(blob):
            progress.present(blob.size)
            return
        Upload(self._client, blob, source, progress, repository=self.repository, scope=self._push).run()

    def put_blob_bytes(
        self, media_type: str, data: bytes, annotations: Mapping[str, str] = NO_ANNOTATIONS
    ) -> Descriptor:
        """See `base.Store.put_blob_bytes`."""
        blob = Descriptor(media_type, digest_of(data), len(data), annotations)
        self.put_blob(blob, lambda: io.BytesIO(data), Silent())
        return blob

    def mount_blob(self, blob: Descriptor, from_repository: str) -> bool:
        """See `base.Store.mount_blob` (distribution-spec, "Mounting a blob from another repository")."""
        self._may_push = True
        if self.has_blob(blob):
            return True
        url = f"{self._base}/blobs/uploads/?mount={quote(blob.digest, safe='')}&from={quote(from_repository, safe='')}"
        scope = tuple(sorted({*self._push, f"repository:{from_repository}:pull"}))
        request = Request("POST", url, scope, {"Content-Length": "0"}, ok=(201, 202), doing=self._doing(blob))
        try:
            with self._client.send(request) as reply:
                session = reply.header("Location") if reply.status == 202 else ""
                if reply.status == 201:
                    return True
        except (AuthError, NotFoundError):
            return False
        if session:
            # Not mounted: the registry has opened an upload session instead, which nobody will use.
            cancel = Request("DELETE", session, self._push, ok=(202, 204), doing="an upload", attempts=1)
            with contextlib.suppress(RegistryError, NotFoundError):
                self._client.send(cancel).close()
        return False

    # Manifests.

    def resolve(self, target: str) -> tuple[Descriptor, bytes]:
        """See `base.Store.resolve`."""
        pinned = is_digest(target)
        where = f"{self.name}{'@' if pinned else ':'}{target}"
        request = Request("GET", self._manifest(target), self._read, {"Accept": _ACCEPT}, ok=(200, 404), doing=where)
        with self._client.send(request) as reply:
            if reply.status == 404:
                raise NotFoundError(
                    f"{self.name} has no {'manifest' if pinned else 'tag'} {target}",
                    hint=f"`ocickpt list {self.name}` shows what it has",
                )
            data = reply.read_all(names.MAX_MANIFEST_BYTES)
            media_type = reply.header("Content-Type").partition(";")[0].strip()
            told = _told_digest(reply)
        if data is None:
            raise IntegrityError(f"the manifest of {where} is larger than {names.MAX_MANIFEST_BYTES >> 20} MiB")
        # Some registries leave the header out, or name another algorithm.
        described = describe_manifest(data, where, media_type=media_type, digest=target if pinned else told)
        return described, data

    def put_manifest(self, data: bytes, tag: str) -> Descriptor:
        """See `base.Store.put_manifest` (distribution-spec v1.1, "Pushing Manifests with Subject")."""
        self._may_push = True
        described = describe_manifest(data, f"{self.name}:{tag}")
        subject = referrers.subject_of(data)
        referrer = referrers.described(data, f"manifest of {self.name}:{tag}") if subject else None
        told = self._put(tag or described.digest, described.media_type, data)
        if referrer and told != subject:
            self._relist(subject, lambda old, where: referrers.listed_with(old, referrer, where))
        return described

    def _put(self, target: str, media_type: str, data: bytes) -> str:
        """Put a manifest or index; what the answer says it was found to be about (OCI-Subject)."""
        headers = {"Content-Type": media_type, "Content-Length": str(len(data))}
        doing = f"the manifest of {self.name}:{target}"
        request = Request(
            "PUT", self._manifest(target), self._push, headers, lambda: data, ok=(200, 201, 202), doing=doing
        )
        with self._client.send(request) as reply:
            told, subject = _told_digest(reply), reply.header("OCI-Subject").strip()
        if told and told != digest_of(data):
            raise IntegrityError(f"{self.registry} stored another manifest than it was sent for {self.name}:{target}")
        return subject

    def _relist(self, subject: str, change: Callable[[bytes | None, str], bytes | None]) -> None:
        """Replace the list of what is about `subject` by what `change` makes of it, given how it is called."""
        tag = referrers.fallback_tag(subject)
        with self._listing:
            changed = change(self._list(tag), self._called(tag))
            if changed is not None:
                self._put(tag, names.IMAGE_INDEX_TYPE, changed)

    def _called(self, tag: str) -> str:
        return f"list of referrers {self.name}:{tag}"

    def _list(self, tag: str) -> bytes | None:
        """The list of referrers that is kept under `tag`; None when there is none."""
        return self._page(self._manifest(tag), self._called(tag), names.MAX_MANIFEST_BYTES)[0]

    def _page(self, url: str, called: str, limit: int) -> tuple[bytes | None, str]:
        """An image index of at most `limit` bytes, and the link to its next page ("": none); None for a 404."""
        request = Request("GET", url, self._read, {"Accept": _ACCEPT}, ok=(200, 404), doing=f"the {called}")
        with self._client.send(request) as reply:
            if reply.status == 404:
                return None, ""
            told = reply.header("Content-Type").partition(";")[0].strip()
            if told != names.IMAGE_INDEX_TYPE:
                raise IntegrityError(f"the {called} is not an image index: {self.registry} sends {clean(told, 100)!r}")
            data = reply.read_all(limit)
            if data is None:
                raise IntegrityError(f"the {called} goes on after {limit} bytes")
            return data, _next(reply.header("Link"))

    def referrers(self, digest: str, artifact_type: str = "") -> list[Descriptor]:
        """See `base.Store.referrers`: by the API, or from the list that writers keep where there is none (404).

        Whatever the registry says of filters it applied (OCI-Filters-Applied), types are compared here.
        """
        called = f"list of referrers of {self.name}@{check_digest(digest)}"
        found = referrers.Found(called, artifact_type)
        base = f"{self._base}/referrers/{digest}"
        url = f"{base}?artifactType={quote(artifact_type, safe='')}" if artifact_type else base
        left = _MAX_LIST_BYTES
        for page in range(_MAX_PAGES):
            data, following = self._page(url, called, min(left, _MAX_PAGE_BYTES))
            if data is None and page == 0:
                data = self._list(referrers.fallback_tag(digest))
                if data is None:
                    return []
            if data is None:
                raise RegistryError(f"the {called} breaks off: {self.registry} does not have its next page")
            left -= len(data)
            found.add_list(data)
            if not following:
                return found.all
            url = self._follow(following, base)
        raise RegistryError(f"the {called} does not end")

    def tags(self) -> list[str]:
        """See `base.Store.tags`. RegistryError after a thousand pages, or a million tags."""
        found: set[str] = set()
        url = f"{self._base}/tags/list?n=1000"
        for _ in range(_MAX_PAGES):
            request = Request("GET", url, self._read, ok=(200, 404), doing=f"the tags of {self.name}")
            with self._client.send(request) as reply:
                if reply.status == 404:
                    return sorted(found)
                found.update(self._tags_in(reply))
                following = _next(reply.header("Link"))
            if not following:
                return sorted(found)
            if len(found) > _MAX_TAGS:
                break
            url = self._follow(following, f"{self._base}/tags/list")
        raise RegistryError(f"the list of tags of {self.name} does not end")

    def _follow(self, link: str, base: str) -> str:
        """Where the next page is that `link`, found at `base`, leads to: at this registry, whatever host it names."""
        try:
            parts = urlsplit(link)
        except ValueError as error:
            raise RegistryError(f"{self.registry} leads to something that is not a web address") from error
        path = parts.path if parts.path.startswith("/") else f"{base.rpartition('/')[0]}/{parts.path}"
        return f"{path}?{parts.query}"

    def _tags_in(self, reply: Reply) -> list[str]:
        data = reply.read_all(_MAX_PAGE_BYTES)
        try:
            value = json_value(data if data is not None else b"")
            found = value["tags"] or []
            return [tag for tag in found if isinstance(tag, str) and tag.isprintable() and len(tag) <= 128]
        except (ValueError, KeyError, TypeError) as error:
            raise RegistryError(f"{self.registry} answers with no list of tags for {self.name}") from error

    def untag(self, tag: str) -> None:
        """See `base.Store.untag` (distribution-spec v1.1, "Deleting tags"; many registries lack it)."""
        self._delete(tag, f"the tag {self.name}:{tag}", refused=(400, 405, 501))

    def delete(self, target: str) -> Descriptor:
        """See `base.Store.delete`: the manifest goes, with every tag it has, and from the list it may be in."""
        described, data = self.resolve(target)
        if subject := referrers.subject_of(data):
            # Before: of one that is gone nobody could say any more in which list it is.
            self._relist(subject, lambda old, where: referrers.listed_without(old, described.digest, where))
        self._delete(described.digest, f"the manifest {self.name}@{described.digest}", refused=(405, 501))
        return described

    def _delete(self, target: str, what: str, refused: tuple[int, ...]) -> None:
        request = Request("DELETE", self._manifest(target), self._remove, ok=(200, 202, 204, *refused), doing=what)
        with self._client.send(request) as reply:
            if reply.status in refused:
                raise UnsupportedError(
                    f"{self.registry} does not allow deleting {what}",
                    hint="registries can be configured to permit it (docker-registry: storage.delete.enabled), "
                    "or have a retention policy of their own",
                )

    def close(self) -> None:
        """See `base.Store.close`."""
        self._whole.close()
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _next(link: str) -> str:
    """The target of ``rel="next"`` in a Link header (RFC 8288, section 3); "" when there is none."""
    for target, parameters in _LINK.findall(link):
        for each in parameters.split(";"):
            name, _, value = each.partition("=")
            if name.strip().lower() == "rel" and "next" in value.strip().strip('"').split():
                return str(target)
    return ""


def _told_digest(reply: Reply) -> str:
    told = reply.header("Docker-Content-Digest")
    return told if is_digest(told) else ""
