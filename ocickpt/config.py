"""What the administrator of a host decides: ``/etc/ocickpt/config.toml``.

    runtime = "runc"                      # behind `ocickpt-runtime`
    push = "before-return"                # or "background": when podman's own checkpoints go into the registry
    repository = "registry/ck"            # where those go whose container does not say it
    patience = 600                        # seconds a lazily restored container waits for a silent registry

    [restore-on-start]
    allow = ["registry/ck"]               # what `podman run --annotation io.ocickpt.restore=…` may name

    [registry."registry.example.com"]
    token-server = "auth.example.com"     # which may have that registry's password

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

from ocickpt import names, structs
from ocickpt.errors import PrerequisiteError

PATH = Path(names.HOST_CONFIG)
_MOST = 1 << 20

_Repository: TypeAlias = Annotated[str, Meta(min_length=1, max_length=1000)]
_SERVER: Final = r"^([a-z0-9_.-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?\Z"
"""``HOST[:PORT]``, in lower case."""
_BACKGROUND: Final = "background"


class _OnStart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    allow: Annotated[tuple[_Repository, ...], Meta(max_length=1000)] = ()


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

    token_servers: Mapping[str, str] = field(default_factory=dict)
    """By registry, both ``HOST[:PORT]`` in lower case: who may have its password besides itself."""

    def allows(self, repository: str) -> bool:
        """Whether `repository` (``HOST/PATH`` or ``oci:PATH``) is one of `allow`, or lies below one."""
        return any(repository == each or repository.startswith(f"{each.rstrip('/')}/") for each in self.allow)


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
    allowed = tuple(each.removeprefix("docker://") for each in file.on_start.allow)
    servers = {name.lower(): each.token_server for name, each in file.registry.items() if each.token_server}
    return Config(file.runtime, file.push == _BACKGROUND, file.repository or "", file.patience, allowed, servers)
