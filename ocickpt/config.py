"""What the administrator of a host decides: ``/etc/ocickpt/config.toml``.

    runtime = "runc"                      # behind `ocickpt-runtime`
    push = "before-return"                # or "background": when podman's own checkpoints go into the registry
    repository = "registry/ck"            # where those go whose container does not say it
    patience = 600                        # seconds a lazily restored container waits for a silent registry

    [restore-on-start]
    allow = ["registry/ck"]               # what `podman run --annotation io.ocickpt.restore=…` may name

    [[allow]]                             # as `--allow` does, for every restore from there
    repository = "registry/ck/db"
    asks = ["port=5432", "cap=sys_nice"]

    [registry."registry.example.com"]
    token-server = "auth.example.com"     # which may have that registry's password

A repository stands for itself and for all below it.
Everything may be left out, the file too. Its schema is ``schemas/host-config.json``.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final, Literal, TypeAlias

import msgspec
from msgspec import Meta

from ocickpt import asked, names, structs
from ocickpt.errors import PrerequisiteError, UsageError

PATH = Path(names.HOST_CONFIG)
_MOST = 1 << 20

_Repository: TypeAlias = Annotated[str, Meta(min_length=1, max_length=1000)]
_WHERE: Final = r"^((docker://)?[^/:*@\s]+(:[0-9]+)?(/[^/:*@\s]+)*|oci:[^:*@\s]+)$"
"""A repository: no tag, no digest, no pattern, none of which would ever be found."""
_SERVER: Final = r"^([a-z0-9_.-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?\Z"
"""``HOST[:PORT]``, in lower case."""
_BACKGROUND: Final = "background"


class _OnStart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    allow: Annotated[tuple[_Repository, ...], Meta(max_length=1000)] = ()


class _Allowed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    repository: Annotated[str, Meta(max_length=1000, pattern=_WHERE)]
    asks: Annotated[tuple[Annotated[str, Meta(min_length=1, max_length=10000)], ...], Meta(max_length=1000)]


class _Registry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    token_server: Annotated[str, Meta(pattern=_SERVER, max_length=300)] | None = msgspec.field(
        default=None, name="token-server"
    )


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the schema says, as types (a test holds the two to the same documents)."""

    runtime: Literal["runc", "crun"] = "runc"
    push: Literal["before-return", "background"] = "before-return"
    repository: _Repository | None = None
    patience: Annotated[float, Meta(ge=0, le=86400)] = 600.0
    on_start: _OnStart = msgspec.field(default=_OnStart(), name="restore-on-start")
    allow: Annotated[tuple[_Allowed, ...], Meta(max_length=1000)] = ()
    registry: Annotated[dict[str, _Registry], Meta(max_length=1000)] = {}


@dataclass(frozen=True)
class Config:
    """What stands in the file, or what holds where nothing stands."""

    runtime: str = "runc"
    background: bool = False
    """Whether a push goes on after podman's command has returned."""
    repository: str = ""
    patience: float = 600.0
    allow: tuple[str, ...] = ()
    """Repositories, and prefixes of repositories, that may be restored from instead of a start."""
    always: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Repositories, and prefixes, and what is always allowed a container that is restored from there (`asked`)."""
    token_servers: Mapping[str, str] = field(default_factory=dict)
    """By registry, both ``HOST[:PORT]`` in lower case: who may have its password besides itself."""

    def allows(self, repository: str) -> bool:
        """Whether `repository` (``HOST/PATH`` or ``oci:PATH``) is one of `allow`, or lies below one."""
        return any(_within(repository, each) for each in self.allow)

    def allowed_to(self, repository: str) -> frozenset[str]:
        """What is always allowed a container that is restored from `repository`."""
        return frozenset(each for where, asks in self.always if _within(repository, where) for each in asks)


def _within(repository: str, outer: str) -> bool:
    above = ".." in repository.split("/")
    return not above and (repository == outer or repository.startswith(f"{outer.rstrip('/')}/"))


def load(path: Path | None = None) -> Config:
    """The host's configuration; PrerequisiteError when there is a file that is none."""
    path = path or PATH
    try:
        if path.stat().st_size > _MOST:
            raise PrerequisiteError(f"{path} is larger than a configuration can be")
        file = msgspec.convert(tomllib.loads(path.read_text("utf-8")), _File, strict=True)
    except FileNotFoundError:
        return Config()
    except OSError as error:
        raise PrerequisiteError(f"{path} cannot be read: {error.strerror}") from error
    except msgspec.ValidationError as error:
        raise PrerequisiteError(
            f"{path} is not a configuration of ocickpt: {structs.reason(error)}",
            hint="ocickpt-config.toml(5) describes the file",
        ) from error
    except ValueError as error:
        raise PrerequisiteError(f"{path} is not TOML: {error}") from error
    try:
        asked.check(each for allowed in file.allow for each in allowed.asks)
    except UsageError as error:
        raise PrerequisiteError(f"{path}, [[allow]]: {error.message}", hint=error.hint) from error
    return Config(
        file.runtime,
        file.push == _BACKGROUND,
        file.repository or "",
        file.patience,
        tuple(each.removeprefix("docker://") for each in file.on_start.allow),
        tuple((each.repository.removeprefix("docker://").rstrip("/"), each.asks) for each in file.allow),
        {name.lower(): each.token_server for name, each in file.registry.items() if each.token_server},
    )
