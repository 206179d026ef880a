"""Which blobs of a layout directory something still refers to, and removing the others."""

from __future__ import annotations

from collections.abc import Iterable

from ocickpt import names
from ocickpt.errors import UnsupportedError
from ocickpt.model import json_value
from ocickpt.store.files import TEMPORARY, Directory


def children(data: bytes) -> set[str]:
    """The digests that a manifest or image index refers to; UnsupportedError when it is neither.

    A `subject` is not one of them: a referrer does not keep what it is about (distribution-spec,
    "Listing referrers").
    """
    try:
        value = json_value(data)
    except ValueError as error:
        raise UnsupportedError("a manifest in the layout is not JSON: its blobs cannot be told") from error
    if not isinstance(value, dict) or not any(isinstance(value.get(key), list) for key in ("layers", "manifests")):
        raise UnsupportedError("a manifest in the layout is of an unknown kind: its blobs cannot be told")
    found = [value.get("config"), *(value.get("layers") or []), *(value.get("manifests") or [])]
    return {str(item["digest"]) for item in found if isinstance(item, dict) and "digest" in item}


def collect(blobs: Directory, temporary: Directory, roots: Iterable[str]) -> int:
    """Remove from `blobs` what no root leads to, and temporary files; the bytes freed.

    Roots and everything that looks like a manifest below them are followed; the caller holds the
    layout's locks exclusively. Everything is looked at before anything is removed.
    """
    reachable: set[str] = set()
    waiting = list(roots)
    tops = set(waiting)
    while waiting:
        digest = waiting.pop()
        if digest in reachable:
            continue
        reachable.add(digest)
        waiting.extend(_below(blobs, digest, must_parse=digest in tops))
    freed = 0
    for name, size in list(blobs.files()):
        if f"sha256:{name}" not in reachable and (len(name) == 64 or name.startswith(TEMPORARY)):
            blobs.remove(name)
            freed += size
    for name, size in list(temporary.files()):
        if name.startswith(TEMPORARY):
            temporary.remove(name)
            freed += size
    return freed


def _below(blobs: Directory, digest: str, *, must_parse: bool) -> set[str]:
    found = blobs.regular(digest.removeprefix("sha256:")) if "/" not in digest else None
    if found is None:
        return set()
    fd, size = found
    with open(fd, "rb") as file:  # noqa: PTH123 - a descriptor
        # A layer is not read: manifests are small and begin like JSON objects.
        if size > names.MAX_MANIFEST_BYTES or file.read(1) != b"{":
            if must_parse and size > names.MAX_MANIFEST_BYTES:
                raise UnsupportedError(f"manifest {digest} is too large to be looked at")
            return set()
        data = b"{" + file.read(names.MAX_MANIFEST_BYTES)
    try:
        return children(data)
    except UnsupportedError:
        if must_parse:
            raise
        return set()
