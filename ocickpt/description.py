"""The artifact's config: what was checkpointed, where, and how it was confined (schemas/checkpoint-config.json).

It is public, and an allow-list: no environment, no command line, no labels. What is not a field here is not written.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final, Literal, Self, TypeAlias

import msgspec
from msgspec import UNSET, Meta, UnsetType

from ocickpt import names, structs
from ocickpt.errors import IntegrityError, UnsupportedError
from ocickpt.model import Kind, parse_json

VERSION: Final = 1
_WHAT: Final = "checkpoint's config"

Text: TypeAlias = Annotated[str, Meta(max_length=4096, pattern=r"\A[^\u0000-\u001f\u007f-\u009f\ud800-\udfff]*\Z")]
"""Without control characters and lone surrogates: it is shown to people."""
Time: TypeAlias = Annotated[
    str,
    Meta(
        max_length=35,
        pattern=r"\A[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?"
        r"([Zz]|[+-][0-9]{2}:[0-9]{2})\Z",
    ),
]
"""RFC 3339."""
Digest: TypeAlias = Annotated[str, Meta(pattern=r"\Asha256:[0-9a-f]{64}\Z")]
MaybeDigest: TypeAlias = Annotated[str, Meta(pattern=r"\A(sha256:[0-9a-f]{64})?\Z")]
"""Empty is one that is not known."""
Count: TypeAlias = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
UserId: TypeAlias = Annotated[int, Meta(ge=0, le=1 << 32)]
Cgroup: TypeAlias = Literal["v1", "v2", ""]
ImagesLsm: TypeAlias = Literal["none", "selinux", "apparmor", "unknown"]


class _Object(msgspec.Struct, frozen=True, rename="camel"):
    """An object of the config: each of its fields has to be there, and nothing else is read or written.

    `msgspec` holds what is read to the types here, and they say what the schema says.
    """


class ContainerInfo(_Object, frozen=True):
    """The container: the engine's ID and name for it, and when it was created (RFC 3339; empty if unknown)."""

    id: Text
    name: Text
    created: Text


class ImageInfo(_Object, frozen=True):
    """The container's image: its name, its ID (64 hexadecimal digits), its manifest's digest (empty if unknown)."""

    name: Text
    id: Text
    digest: MaybeDigest


class Engine(_Object, frozen=True):
    """What managed the container: ``podman``."""

    name: Text
    version: Text


class Runtime(_Object, frozen=True):
    """The OCI runtime that dumped it: ``runc``, ``crun``."""

    name: Text
    version: Text


class Criu(_Object, frozen=True):
    """The CRIU that wrote the images."""

    version: Text


class HostInfo(_Object, frozen=True):
    """Where it ran. `arch` in Go's words, `cgroup` ``v1`` or ``v2``, `page_size` in bytes.

    Empty is what is not known, as it is of an archive that any host may have made; so are versions.
    """

    arch: Text
    kernel: Text
    cgroup: Cgroup
    cpu_features: Annotated[tuple[Text, ...], Meta(max_length=4096)]
    page_size: Annotated[int, Meta(ge=4096, le=65536)]
    distribution: Text


class Origin(_Object, frozen=True):
    """Where a checkpoint was made, and by which versions of what; empty is what is not known."""

    host: HostInfo
    podman: str = ""
    runtime: str = ""
    criu: str = ""


class Options(_Object, frozen=True, kw_only=True):
    """How it was checkpointed, and what is in it."""

    leave_running: bool
    tcp_established: bool
    file_locks: bool
    rootfs: bool
    volumes: bool

    @property
    def replayed(self) -> tuple[str, ...]:
        """What a restore has to be called with as the dump was, in podman's and the runtimes' words."""
        found = {"--tcp-established": self.tcp_established, "--file-locks": self.file_locks}
        return tuple(flag for flag, given in found.items() if given)


USUAL_OPTIONS: Final = Options(leave_running=False, tcp_established=False, file_locks=False, rootfs=True, volumes=True)


class VolumeInfo(_Object, frozen=True):
    """A named volume and where it is mounted in the container."""

    name: Text
    destination: Text


class Contents(_Object, frozen=True):
    """How much there is of one kind: entries, and bytes before compression without zero pages."""

    files: Count
    bytes: Count


class Amounts(_Object, frozen=True):
    """How much there is of each kind; none of what is not there."""

    boot: Contents | UnsetType = UNSET
    state: Contents | UnsetType = UNSET
    memory: Contents | UnsetType = UNSET
    rootfs: Contents | UnsetType = UNSET
    volume: Contents | UnsetType = UNSET

    @classmethod
    def of(cls, found: Mapping[Kind, Contents]) -> Self:
        """That much of these kinds."""
        return cls(**{kind.name.lower(): each for kind, each in found.items()})

    def items(self) -> Iterator[tuple[Kind, Contents]]:
        """Each kind that there is, with how much of it."""
        for kind in Kind:
            found: Contents | UnsetType = getattr(self, kind.name.lower())
            if found is not UNSET:
                yield kind, found


class SELinux(_Object, frozen=True):
    """The container's labels; empty where there are none."""

    process: Text
    mount: Text


class Seccomp(_Object, frozen=True):
    """`mode` is ``none`` or ``filter``; `digest` that of the profile's canonical JSON (sorted keys, no spaces)."""

    mode: Literal["none", "filter"]
    digest: MaybeDigest


CapabilitySet: TypeAlias = Annotated[tuple[Text, ...], Meta(max_length=256)]


class Capabilities(_Object, frozen=True, kw_only=True):
    """The capability sets of the OCI specification."""

    bounding: CapabilitySet
    effective: CapabilitySet
    permitted: CapabilitySet
    inheritable: CapabilitySet
    ambient: CapabilitySet


class IdMap(_Object, frozen=True):
    """`size` IDs from `container` on are those from `host` on."""

    container: UserId
    host: UserId
    size: UserId


class UserNamespace(_Object, frozen=True):
    """The maps of the container's user namespace; both empty without one."""

    uid: Annotated[tuple[IdMap, ...], Meta(max_length=4096)]
    gid: Annotated[tuple[IdMap, ...], Meta(max_length=4096)]


class Security(_Object, frozen=True):
    """What confined the container. `images_lsm` is the security module whose labels the CRIU images carry:
    ``none``, ``selinux``, ``apparmor`` or ``unknown``."""

    selinux: SELinux
    apparmor: Text
    seccomp: Seccomp
    capabilities: Capabilities
    no_new_privileges: bool
    user_namespace: UserNamespace
    images_lsm: ImagesLsm


class Description(_Object, frozen=True, kw_only=True):
    """The config of a checkpoint, version 1. `created` is RFC 3339, `parent` a manifest's digest."""

    created: Time
    container: ContainerInfo
    image: ImageInfo
    engine: Engine
    runtime: Runtime
    criu: Criu
    host: HostInfo
    options: Options
    security: Security
    volumes: Annotated[tuple[VolumeInfo, ...], Meta(max_length=4096)]
    contents: Amounts
    parent: Digest | None

    def to_json(self) -> Any:
        """The config as a JSON object; errors as of `to_bytes`."""
        return json.loads(self.to_bytes())

    def to_bytes(self) -> bytes:
        """The config's canonical bytes; IntegrityError for what no reader would accept."""
        document = {"version": VERSION, **msgspec.to_builtins(self)}
        _convert(document)
        data = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
        if len(data) > names.MAX_CONFIG_BYTES:
            raise IntegrityError(f"the {_WHAT} would be {len(data)} bytes long; at most {names.MAX_CONFIG_BYTES} fit")
        return data

    @classmethod
    def from_bytes(cls, data: bytes) -> Description:
        """The config in `data`. Unknown members are ignored.

        Raises IntegrityError for what does not match the schema, UnsupportedError for a later version.
        """
        return _convert(_parse(data))


def _parse(data: bytes) -> Any:
    if len(data) > names.MAX_CONFIG_BYTES:
        raise IntegrityError(f"the {_WHAT} is {len(data)} bytes long; at most {names.MAX_CONFIG_BYTES} are allowed")
    try:
        value = _whole_numbers(parse_json(data, _WHAT))
    except RecursionError as error:
        raise IntegrityError(f"the {_WHAT} is too deep") from error
    version = value.get("version")
    if type(version) is int and version > VERSION:
        raise UnsupportedError(
            f"the {_WHAT} has version {version}; this ocickpt knows {VERSION}", hint="upgrade ocickpt"
        )
    if type(version) is not int or version != VERSION:
        raise IntegrityError(f"the {_WHAT} has no version")
    return value


def _whole_numbers(value: Any) -> Any:
    """`value` with its integers as such: to JSON Schema 1.0 is one (validation, 6.1.1)."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [_whole_numbers(each) for each in value]
    if isinstance(value, dict):
        return {name: _whole_numbers(each) for name, each in value.items()}
    return value


def _convert(document: Any) -> Description:
    try:
        return msgspec.convert(document, Description, strict=True)
    except msgspec.ValidationError as error:
        raise IntegrityError(f"the {_WHAT} does not match its schema: {structs.reason(error)}") from error
