"""The artifact's config: what was checkpointed, where, and how it was confined (schemas/checkpoint-config.json).

It is public, and an allow-list: no environment, no command line, no labels. What is not a field here is not written.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Self, TypeVar

from ocickpt import names, schema
from ocickpt.errors import IntegrityError, UnsupportedError
from ocickpt.model import Kind, parse_json

VERSION: Final = 1
_SCHEMA: Final = "checkpoint-config"
_WHAT: Final = "checkpoint's config"
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class ContainerInfo:
    """The container: the engine's ID and name for it, and when it was created (RFC 3339; empty if unknown)."""

    id: str
    name: str
    created: str


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """The container's image: its name, its ID (64 hexadecimal digits), its manifest's digest (empty if unknown)."""

    name: str
    id: str
    digest: str


@dataclass(frozen=True, slots=True)
class Engine:
    """What managed the container: ``podman``."""

    name: str
    version: str


@dataclass(frozen=True, slots=True)
class Runtime:
    """The OCI runtime that dumped it: ``runc``, ``crun``."""

    name: str
    version: str


@dataclass(frozen=True, slots=True)
class Criu:
    """The CRIU that wrote the images."""

    version: str


@dataclass(frozen=True, slots=True)
class HostInfo:
    """Where it ran. `arch` in Go's words, `cgroup` ``v1`` or ``v2``, `page_size` in bytes.

    Empty is what is not known, as it is of an archive that any host may have made; so are versions.
    """

    arch: str
    kernel: str
    cgroup: str
    cpu_features: tuple[str, ...]
    page_size: int
    distribution: str


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a checkpoint was made, and by which versions of what; empty is what is not known."""

    host: HostInfo
    podman: str = ""
    runtime: str = ""
    criu: str = ""


@dataclass(frozen=True, slots=True)
class Options:
    """How it was checkpointed, and what is in it."""

    leave_running: bool = False
    tcp_established: bool = False
    file_locks: bool = False
    rootfs: bool = True
    volumes: bool = True


@dataclass(frozen=True, slots=True)
class VolumeInfo:
    """A named volume and where it is mounted in the container."""

    name: str
    destination: str


@dataclass(frozen=True, slots=True)
class Contents:
    """How much there is of one kind: entries, and bytes before compression without zero pages."""

    files: int
    bytes: int


@dataclass(frozen=True, slots=True)
class SELinux:
    """The container's labels; empty where there are none."""

    process: str
    mount: str


@dataclass(frozen=True, slots=True)
class Seccomp:
    """`mode` is ``none`` or ``filter``; `digest` that of the profile's canonical JSON (sorted keys, no spaces)."""

    mode: str
    digest: str


@dataclass(frozen=True, slots=True)
class Capabilities:
    """The capability sets of the OCI specification."""

    bounding: tuple[str, ...] = ()
    effective: tuple[str, ...] = ()
    permitted: tuple[str, ...] = ()
    inheritable: tuple[str, ...] = ()
    ambient: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class IdMap:
    """`size` IDs from `container` on are those from `host` on."""

    container: int
    host: int
    size: int


@dataclass(frozen=True, slots=True)
class UserNamespace:
    """The maps of the container's user namespace; both empty without one."""

    uid: tuple[IdMap, ...] = ()
    gid: tuple[IdMap, ...] = ()


@dataclass(frozen=True, slots=True)
class Security:
    """What confined the container. `images_lsm` is the security module whose labels the CRIU images carry:
    ``none``, ``selinux``, ``apparmor`` or ``unknown``."""

    selinux: SELinux
    apparmor: str
    seccomp: Seccomp
    capabilities: Capabilities
    no_new_privileges: bool
    user_namespace: UserNamespace
    images_lsm: str


@dataclass(frozen=True)
class Description:
    """The config of a checkpoint, version 1. `created` is RFC 3339, `parent` a manifest's digest."""

    created: str
    container: ContainerInfo
    image: ImageInfo
    engine: Engine
    runtime: Runtime
    criu: Criu
    host: HostInfo
    options: Options
    security: Security
    volumes: tuple[VolumeInfo, ...] = ()
    contents: Mapping[Kind, Contents] = field(default_factory=lambda: MappingProxyType({}), hash=False)
    parent: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The config as a JSON object."""
        return {"version": VERSION, **_plain(self)}

    def to_bytes(self) -> bytes:
        """The config's canonical bytes; IntegrityError for what no reader would accept."""
        document = self.to_json()
        schema.validate(_SCHEMA, document, _WHAT)
        data = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
        if len(data) > names.MAX_CONFIG_BYTES:
            raise IntegrityError(f"the {_WHAT} would be {len(data)} bytes long; at most {names.MAX_CONFIG_BYTES} fit")
        return data

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """The config in `data`. Unknown members are ignored.

        Raises IntegrityError for what does not match the schema, UnsupportedError for a later version.
        """
        found = cls.unchecked(data)
        found.check()
        return found

    @classmethod
    def unchecked(cls, data: bytes) -> Self:
        """As `from_bytes`, but nothing is certain before `check` than that its types are those of the schema."""
        return cls._read(_parse(data))

    def check(self) -> None:
        """IntegrityError for what does not match the schema."""
        schema.validate(_SCHEMA, self.to_json(), _WHAT)

    @classmethod
    def _read(cls, value: dict[str, Any]) -> Self:
        try:
            host, kinds = value["host"], {kind.name.lower(): kind for kind in Kind}
            contents = {kinds[name]: _pick(Contents, each) for name, each in value["contents"].items() if name in kinds}
            return _pick(
                cls,
                value,
                container=_pick(ContainerInfo, value["container"]),
                image=_pick(ImageInfo, value["image"]),
                engine=_pick(Engine, value["engine"]),
                runtime=_pick(Runtime, value["runtime"]),
                criu=_pick(Criu, value["criu"]),
                host=_pick(HostInfo, host, cpu_features=_strings(host["cpuFeatures"])),
                options=_pick(Options, value["options"]),
                security=_security(value["security"]),
                volumes=tuple(_pick(VolumeInfo, volume) for volume in _list(value["volumes"])),
                contents=MappingProxyType(contents),
            )
        except (AttributeError, KeyError, TypeError) as error:
            raise IntegrityError(f"the {_WHAT} is malformed: {error}") from error


def _parse(data: bytes) -> dict[str, Any]:
    if len(data) > names.MAX_CONFIG_BYTES:
        raise IntegrityError(f"the {_WHAT} is {len(data)} bytes long; at most {names.MAX_CONFIG_BYTES} are allowed")
    value = parse_json(data, _WHAT)
    version = value.get("version")
    if isinstance(version, int) and version > VERSION:
        raise UnsupportedError(
            f"the {_WHAT} has version {version}; this ocickpt knows {VERSION}", hint="upgrade ocickpt"
        )
    if version != VERSION or type(version) is not int:
        raise IntegrityError(f"the {_WHAT} has no version")
    return value


def _security(value: dict[str, Any]) -> Security:
    sets = value["capabilities"]
    maps = value["userNamespace"]
    return _pick(
        Security,
        value,
        selinux=_pick(SELinux, value["selinux"]),
        seccomp=_pick(Seccomp, value["seccomp"]),
        capabilities=Capabilities(**{one.name: _strings(sets[one.name]) for one in dataclasses.fields(Capabilities)}),
        user_namespace=UserNamespace(
            *(tuple(_pick(IdMap, one) for one in _list(maps[kind])) for kind in ("uid", "gid")),
        ),
    )


def _pick(kind: type[_T], value: dict[str, Any], **given: Any) -> _T:
    """A dataclass from the object `value`; fields that are not plain are `given`. TypeError for another type."""
    plain = {}
    for one in dataclasses.fields(kind):  # type: ignore[arg-type]  # a dataclass, always
        if one.name not in given:
            plain[one.name] = found = value[_camel(one.name)]
            if type(found).__name__ not in str(one.type).replace("None", "NoneType").split(" | "):
                raise TypeError(f"{_camel(one.name)} is no {one.type}")
    return kind(**plain, **given)


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError("a list is none")
    return value


def _strings(value: Any) -> tuple[str, ...]:
    if not all(isinstance(each, str) for each in _list(value)):
        raise TypeError("a list is none of strings")
    return tuple(value)


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


def _plain(value: Any) -> Any:
    """A dataclass as JSON: fields in camel case, nothing else."""
    if dataclasses.is_dataclass(value):
        return {_camel(one.name): _plain(getattr(value, one.name)) for one in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {Kind(kind).name.lower(): _plain(part) for kind, part in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(part) for part in value]
    return value
