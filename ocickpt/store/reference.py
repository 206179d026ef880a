"""What a user writes to name an artifact: in a registry, in a layout directory, or in the local store.

    [docker://]HOST[:PORT]/REPOSITORY[:TAG][@DIGEST]     a registry
    oci:PATH[:TAG][@DIGEST]                              an OCI image layout directory
    NAME[:TAG][@DIGEST]                                  the local store

The grammar is that of distribution/reference (reference/regexp.go): a first path component is a
registry host only when it has a dot or a port, or is ``localhost``. Names in the local store may also
be written like container names (upper case, trailing dashes), since they are mostly made from them.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from typing import Final, Literal, Self

from ocickpt.errors import UsageError

Transport = Literal["docker", "oci", "local"]

DEFAULT_TAG: Final = "latest"

_MAX_REPOSITORY = 255
_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_HOST = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]{{1,5}})?", re.ASCII)
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*", re.ASCII)
_LOCAL_COMPONENT = r"[a-zA-Z0-9][a-zA-Z0-9_.-]*"
_LOCAL_NAME = re.compile(rf"{_LOCAL_COMPONENT}(?:/{_LOCAL_COMPONENT})*", re.ASCII)
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,127}", re.ASCII)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)
_LAYOUT = "oci:"
_FOREIGN = ("containers-storage:", "docker-archive:", "docker-daemon:", "oci-archive:", "dir:")


@dataclass(frozen=True, slots=True)
class Reference:
    """One artifact, or with neither tag nor digest looked at, one repository.

    `repository` is the path of the directory for "oci" and the name for "local"; `registry` is
    ``HOST[:PORT]`` for "docker" and empty otherwise. `tag` and `digest` are empty when not given, but
    one of them is always there.
    """

    transport: Transport
    registry: str
    repository: str
    tag: str = ""
    digest: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """The reference in `text`; UsageError, saying what is wrong with it, otherwise."""
        if not text or not text.isprintable() or text != text.strip():
            raise UsageError(f"{text[:100]!r} is not a reference", hint=_FORMS)
        if text.startswith(("http://", "https://")):
            raise UsageError(f"{text[:300]!r} is a URL: write HOST[:PORT]/REPOSITORY[:TAG] instead")
        if text.startswith(_FOREIGN):
            raise UsageError(f"{text[:300]!r}: this transport is not supported", hint=_FORMS)
        if text.startswith(_LAYOUT):
            return cls._layout(text)
        explicit = text.startswith("docker://")
        rest = text.removeprefix("docker://")
        name, tag, digest = _split(rest, text)
        host, slash, repository = name.partition("/")
        if slash and _is_host(host):
            return cls._registry(host, repository, tag, digest, text)
        if explicit:
            raise UsageError(f"{text[:300]!r} does not name a registry", hint=_FORMS)
        if len(name) > _MAX_REPOSITORY or not _LOCAL_NAME.fullmatch(name):
            raise UsageError(f"{text[:300]!r}: {name[:100]!r} is not a name for the local store", hint=_FORMS)
        if f"{name}:" in (_LAYOUT, *_FOREIGN):
            raise UsageError(f"{text!r} names a transport and nothing in it", hint=_FORMS)
        return cls("local", "", name, tag, digest)

    @classmethod
    def _registry(cls, host: str, repository: str, tag: str, digest: str, text: str) -> Self:
        if not _HOST.fullmatch(host):
            raise UsageError(f"{text[:300]!r}: {host[:100]!r} is not a registry's HOST[:PORT]")
        if len(repository) > _MAX_REPOSITORY:
            raise UsageError(f"the repository in {text[:100]!r}… is longer than {_MAX_REPOSITORY} characters")
        if not _REPOSITORY.fullmatch(repository):
            hint = "repository names are lower case" if repository.lower() != repository else ""
            raise UsageError(f"{text[:300]!r}: {repository[:100]!r} is not a repository name", hint=hint)
        return cls("docker", host, repository, tag, digest)

    @classmethod
    def _layout(cls, text: str) -> Self:
        # Like skopeo, the path ends at the first colon; unlike skopeo, a digest may follow.
        rest, digest = text.removeprefix(_LAYOUT), ""
        before, at, after = rest.rpartition("@")
        if at and after.startswith("sha256:"):
            rest, digest = before, _checked_digest(after, text)
        path, colon, tag = rest.partition(":")
        if not path:
            raise UsageError(f"{text[:300]!r} names no directory", hint=_FORMS)
        if colon:
            tag = _checked_tag(tag, text)
        return cls("oci", "", path, tag or ("" if digest else DEFAULT_TAG), digest)

    @property
    def home(self) -> str:
        """The repository as a host's configuration names it: ``HOST/PATH`` or ``oci:PATH``.

        Nothing for the local store: what lies there under a name may have come from anywhere.
        """
        before = {"docker": f"{self.registry}/", "oci": "oci:", "local": ""}[self.transport]
        return f"{before}{self.repository}" if before else ""

    @property
    def target(self) -> str:
        """What a store resolves: the digest if there is one, else the tag."""
        return self.digest or self.tag

    def with_digest(self, digest: str) -> Self:
        """The same artifact pinned to `digest` (the tag is kept, as a name)."""
        return dataclasses.replace(self, digest=_checked_digest(digest, digest))

    def with_tag(self, tag: str) -> Self:
        """Another artifact of the same repository, by tag."""
        return dataclasses.replace(self, tag=_checked_tag(tag, tag), digest="")

    def __str__(self) -> str:
        before = {"docker": f"{self.registry}/", "oci": _LAYOUT, "local": ""}[self.transport]
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{before}{self.repository}{tag}{digest}"


_FORMS = "write HOST[:PORT]/REPOSITORY[:TAG], oci:DIRECTORY[:TAG], or a NAME[:TAG] of the local store"


def _is_host(text: str) -> bool:
    return "." in text or ":" in text or text == "localhost"


def _split(rest: str, text: str) -> tuple[str, str, str]:
    """Name, tag and digest of `rest`; the default tag where neither is given."""
    rest, at, digest = rest.partition("@")
    if at:
        digest = _checked_digest(digest, text)
    head, slash, last = rest.rpartition("/")
    last, colon, tag = last.partition(":")
    if colon:
        tag = _checked_tag(tag, text)
    return head + slash + last, tag or ("" if digest else DEFAULT_TAG), digest


def _checked_tag(tag: str, text: str) -> str:
    if not _TAG.fullmatch(tag):
        raise UsageError(f"{text[:300]!r}: {tag[:140]!r} is not a tag (letters, digits, _ . -; at most 128)")
    return tag


def _checked_digest(digest: str, text: str) -> str:
    if not _DIGEST.fullmatch(digest):
        raise UsageError(f"{text[:300]!r}: {digest[:100]!r} is not a digest (sha256: and 64 hexadecimal digits)")
    return digest
