"""What is about a manifest: the artifacts (signatures, statements) that name it as their `subject`.

Here is what registries and layout directories have in common: the image index in which referrers are listed
(distribution-spec v1.1, "Listing Referrers"), the tag it is kept under by those who lack an API for it ("Referrers Tag
Schema"), and the bounds that hold whoever made it. Bytes go in, descriptors and bytes come out; nothing is fetched.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, Final

from ocickpt import names
from ocickpt.errors import IntegrityError, UnsupportedError
from ocickpt.model import Descriptor, check_digest, digest_of, json_value, parse_json

MAX_REFERRERS: Final = 10_000
"""So many referrers of one manifest are listed at most."""
MAX_ANNOTATIONS: Final = 16 << 20
"""So many characters their annotations have at most, all together."""
MAX_MANIFESTS: Final = 100_000
"""So many manifests of a layout directory are looked into at most."""

_TYPES: Final = (names.MANIFEST_TYPE, names.IMAGE_INDEX_TYPE)


def fallback_tag(digest: str) -> str:
    """The tag of the list where a registry has no API: ``sha256-`` and 64 hexadecimal digits."""
    return check_digest(digest).replace(":", "-")


class Found:
    """Referrers as they are found: each digest once, and those of `artifact_type` only, unless that is empty.

    `where` names the list in messages. IntegrityError when there are more than MAX_REFERRERS, or MAX_ANNOTATIONS.
    """

    def __init__(self, where: str, artifact_type: str) -> None:
        self._where, self._type = where, artifact_type
        self._seen: set[str] = set()
        self._left = MAX_ANNOTATIONS
        self.all: list[Descriptor] = []

    def add(self, each: Descriptor) -> None:
        """One referrer; what is neither a manifest nor an image index is passed over, as it refers to nothing."""
        if each.media_type not in _TYPES or each.digest in self._seen:
            return
        self._seen.add(each.digest)
        self._left -= sum(len(key) + len(text) for key, text in each.annotations.items())
        if len(self._seen) > MAX_REFERRERS or self._left < 0:
            raise IntegrityError(
                f"the {self._where} is too long: more than {MAX_REFERRERS} referrers, or far too much text"
            )
        if self._type in ("", each.artifact_type):
            self.all.append(each)

    def add_list(self, data: bytes) -> None:
        """Those that an image index lists; IntegrityError when it is none.

        Entries by another hash than SHA-256 are passed over: nothing could be verified against them.
        """
        for entry in _entries(_parse(data, self._where), self._where):
            digest = entry.get("digest") if isinstance(entry, dict) else None
            if not isinstance(digest, str) or digest.startswith("sha256:") or ":" not in digest:
                self.add(Descriptor.from_json(entry))


def subject_of(data: bytes) -> str:
    """The digest of the `subject` of the manifest or index in `data`; "" when it has none, or not one by SHA-256."""
    try:
        value = json_value(data)
    except ValueError:
        return ""
    subject = value.get("subject") if isinstance(value, dict) else None
    try:
        return check_digest(subject.get("digest")) if isinstance(subject, dict) else ""
    except IntegrityError:
        return ""


def described(data: bytes, where: str) -> Descriptor:
    """How the manifest or image index in `data` stands in a list of referrers: with its annotations and type.

    A manifest without `artifactType` has that of its config (distribution-spec, "Listing Referrers"). IntegrityError
    when it is neither.
    """
    value = parse_json(data, where)
    media_type = value.get("mediaType") or (names.IMAGE_INDEX_TYPE if "manifests" in value else names.MANIFEST_TYPE)
    told: dict[str, Any] = {"mediaType": media_type, "digest": digest_of(data), "size": len(data)}
    config = value.get("config")
    artifact_type = value.get("artifactType") or (config.get("mediaType") if isinstance(config, dict) else "")
    return Descriptor.from_json(
        told | {"annotations": value.get("annotations") or {}, "artifactType": artifact_type or ""}
    )


def listed_with(data: bytes | None, referrer: Descriptor, where: str) -> bytes | None:
    """The list `data` (None: there is none yet) and `referrer` in it; None when it is there already.

    Whatever else other tools wrote into the list stays. Raises IntegrityError when `data` is no image index,
    UnsupportedError when the list gets larger than registries and readers take.
    """
    empty = {"schemaVersion": 2, "mediaType": names.IMAGE_INDEX_TYPE, "manifests": []}
    value = empty if data is None else _parse(data, where)
    entries = _entries(value, where)
    if any(isinstance(entry, dict) and entry.get("digest") == referrer.digest for entry in entries):
        return None
    value["manifests"] = [*entries, referrer.to_json()]
    changed = _dump(value)
    if len(entries) >= MAX_REFERRERS or len(changed) > names.MAX_MANIFEST_BYTES:
        size = len(data or b"")
        raise UnsupportedError(f"the {where} is full: it has {len(entries)} entries, and {size} bytes")
    return changed


def listed_without(data: bytes | None, digest: str, where: str) -> bytes | None:
    """The list `data` without that referrer; None when it is not there. IntegrityError as in `listed_with`."""
    if data is None:
        return None
    value = _parse(data, where)
    entries = _entries(value, where)
    value["manifests"] = [e for e in entries if not (isinstance(e, dict) and e.get("digest") == digest)]
    return _dump(value) if len(value["manifests"]) < len(entries) else None


def in_layout(
    digest: str, found: Found, roots: Iterable[Descriptor], read: Callable[[Descriptor], bytes | None]
) -> list[Descriptor]:
    """Those referrers of `digest` that `roots` (index.json) lead to, through image indexes too.

    So a list that another tool keeps under `fallback_tag` is read as well, but what it says is not believed: each
    referrer is read, by `read` (None: it is not there), and described by itself. IntegrityError when there are more
    than MAX_MANIFESTS manifests, and when a referrer's bytes are not those of its digest.
    """
    needle = check_digest(digest).partition(":")[2].encode()
    seen: set[str] = set()
    waiting: deque[Descriptor] = deque()

    def enter(below: Iterable[Descriptor]) -> None:
        for each in below:
            if each.digest not in seen and each.media_type in _TYPES:
                seen.add(each.digest)
                waiting.append(each)
        if len(seen) > MAX_MANIFESTS:
            raise IntegrityError(f"more than {MAX_MANIFESTS} manifests: too many to look for referrers among them")

    enter(roots)
    while waiting:
        each = waiting.popleft()
        data = read(each)
        if data is None:
            continue
        # Most manifests are about nothing, and parsing takes a hundred times as long as looking.
        if needle in data and subject_of(data) == digest:
            if digest_of(data) != each.digest:
                raise IntegrityError(f"manifest {each.digest}, which is about {digest}, has other bytes than that")
            found.add(described(data, f"manifest {each.digest}"))
        if each.media_type == names.IMAGE_INDEX_TYPE:
            enter(_below(data))
    return found.all


def _below(data: bytes) -> list[Descriptor]:
    """What an image index of a layout lists, as far as it can be understood: it may be anybody's."""
    try:
        return descriptors(_entries(_parse(data, "index"), "index"))
    except IntegrityError:
        return []


def descriptors(entries: Iterable[object]) -> list[Descriptor]:
    """The descriptors among the entries of an index; anybody may have written others."""
    found = []
    for entry in entries:
        with suppress(IntegrityError):
            found.append(Descriptor.from_json(entry))
    return found


def _parse(data: bytes, where: str) -> dict[str, Any]:
    value = parse_json(data, where)
    if value.get("mediaType", names.IMAGE_INDEX_TYPE) != names.IMAGE_INDEX_TYPE:
        raise IntegrityError(f"the {where} is not an image index but {str(value['mediaType'])[:100]!r}")
    return value


def _entries(value: dict[str, Any], where: str) -> list[Any]:
    entries = value.get("manifests")
    if not isinstance(entries, list):
        raise IntegrityError(f"the {where} is not an image index: it has no list of manifests")
    return entries


def _dump(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
