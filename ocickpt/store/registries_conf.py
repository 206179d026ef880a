"""What registries.conf says of a repository (containers-registries.conf(5), version 2).

Honoured: `prefix` (with ``*.`` wildcards), `location`, `insecure`, `blocked`, and drop-in files. Not
honoured: mirrors, short names and search lists, for a checkpoint is always named in full.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ocickpt.errors import UsageError

_SYSTEM: Final = Path("/etc/containers")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a repository really is, and how it may be approached."""

    registry: str
    repository: str
    insecure: bool = False
    blocked: bool = False


def look_up(registry: str, repository: str, *, system: Path = _SYSTEM) -> Place:
    """What the longest matching ``[[registry]]`` table says of `registry`/`repository`.

    Raises UsageError when a configuration file cannot be understood.
    """
    name = f"{registry}/{repository}"
    matching = [(len(prefix), table) for prefix, table in _tables(system).items() if _matches(prefix, name)]
    if not matching:
        return Place(registry, repository)
    length, table = max(matching, key=lambda pair: pair[0])
    location = table.get("location")
    prefix = table.get("prefix") or location
    real = name
    if isinstance(location, str) and location and not str(prefix).startswith("*."):
        real = location + name[length:]
    host, _, path = real.partition("/")
    return Place(host, path, table.get("insecure") is True, table.get("blocked") is True)


def _matches(prefix: str, name: str) -> bool:
    if prefix.startswith("*."):
        host = name.partition("/")[0].partition(":")[0]
        return host.endswith(prefix[1:])
    return name == prefix or name.startswith(prefix + "/")


def _tables(system: Path) -> dict[str, dict[str, object]]:
    """Every ``[[registry]]`` table by its prefix; later files replace tables of earlier ones."""
    found: dict[str, dict[str, object]] = {}
    for path in _files(system):
        try:
            with path.open("rb") as file:
                config = tomllib.load(file)
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            continue
        except (OSError, ValueError) as error:
            raise UsageError(f"{path} cannot be understood: {error}") from error
        tables = config.get("registry", [])
        for table in tables if isinstance(tables, list) else []:
            prefix = table.get("prefix") or table.get("location") if isinstance(table, dict) else None
            if not isinstance(prefix, str):
                raise UsageError(f"{path}: a [[registry]] has neither prefix nor location")
            found[prefix.rstrip("/")] = table
    return found


def _files(system: Path) -> Iterator[Path]:
    home = Path(os.environ.get("HOME") or "/nonexistent")
    user = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config") / "containers"
    chosen = os.environ.get("CONTAINERS_REGISTRIES_CONF") or os.environ.get("REGISTRIES_CONFIG_PATH")
    if chosen:
        yield Path(chosen)
    elif os.access(user / "registries.conf", os.R_OK):
        yield user / "registries.conf"
    else:
        yield system / "registries.conf"
    for folder in (system / "registries.conf.d", user / "registries.conf.d"):
        if os.access(folder, os.R_OK | os.X_OK):
            yield from sorted(folder.glob("*.conf"))
