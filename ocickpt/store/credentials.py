"""Finding a registry's credentials where podman, skopeo and docker keep them.

Order (containers-auth.json(5)): the explicit file, or $REGISTRY_AUTH_FILE, alone; else
``$XDG_RUNTIME_DIR/containers/auth.json`` (``/run/containers/UID/auth.json`` where that is not set),
``~/.config/containers/auth.json``, ``$DOCKER_CONFIG/config.json`` or ``~/.docker/config.json``. In each:
``credHelpers`` of the host, the longest prefix in ``auths``, ``credsStore``.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ocickpt import proc
from ocickpt.errors import AuthError, CommandError
from ocickpt.model import json_value
from ocickpt.store.text import clean

_MAX_FILE_BYTES: Final = 4 << 20
_HELPER_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*", re.ASCII)
_HELPER_SECONDS: Final = 60.0
_HUB: Final = ("docker.io", "index.docker.io", "registry-1.docker.io")


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user name with a password, or an OAuth2 identity token. Never shown, not even in a repr."""

    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)

    def basic(self) -> str:
        """The value of a basic Authorization header (RFC 7617)."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


def find(registry: str, repository: str, authfile: Path | None = None) -> Credentials | None:
    """The credentials for `repository` at `registry` (``HOST[:PORT]``), None when there are none.

    Raises AuthError when a file (an explicit one must exist) or a helper cannot be understood, and
    PrerequisiteError when a helper is not installed.
    """
    explicit = authfile or _path(os.environ.get("REGISTRY_AUTH_FILE"))
    if explicit:
        config = _read(explicit)
        if config is None:
            raise AuthError(f"the credentials file {explicit} does not exist")
        return _in_file(config, explicit, registry, repository)
    for path in _files():
        config = _read(path)
        found = _in_file(config, path, registry, repository) if config is not None else None
        if found:
            return found
    return None


def _files() -> Iterator[Path]:
    runtime = _path(os.environ.get("XDG_RUNTIME_DIR")) or Path(f"/run/containers/{os.getuid()}")
    yield runtime / ("containers/auth.json" if os.environ.get("XDG_RUNTIME_DIR") else "auth.json")
    home = Path(os.environ.get("HOME") or "/nonexistent")
    yield (_path(os.environ.get("XDG_CONFIG_HOME")) or home / ".config") / "containers" / "auth.json"
    yield (_path(os.environ.get("DOCKER_CONFIG")) or home / ".docker") / "config.json"


def _path(text: str | None) -> Path | None:
    return Path(text) if text else None


def _read(path: Path) -> dict[str, object] | None:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise AuthError(f"the credentials file {path} cannot be read: {error.strerror}") from error
    try:
        config = json_value(data)
    except ValueError:
        config = None
    if not isinstance(config, dict):
        # Without the cause: its message would quote what stands in the file.
        raise AuthError(f"the credentials file {path} is not a JSON object") from None
    return config


def _in_file(config: dict[str, object], path: Path, registry: str, repository: str) -> Credentials | None:
    helpers = _object(config.get("credHelpers"))
    for host in _names(registry):
        if helpers.get(host):
            return _ask_helper(str(helpers[host]), host)
    auths = {_normal(key): entry for key, entry in _object(config.get("auths")).items()}
    parts = repository.split("/")
    for count in range(len(parts), -1, -1):
        for host in _names(registry):
            entry = _object(auths.get("/".join([host, *parts[:count]])))
            found = _entry(entry, path)
            if found:
                return found
    if config.get("credsStore"):
        server = "https://index.docker.io/v1/" if registry in _HUB else registry
        return _ask_helper(str(config["credsStore"]), server)
    return None


def _object(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}


def _names(registry: str) -> tuple[str, ...]:
    return _HUB if registry in _HUB else (registry,)


def _normal(key: str) -> str:
    """Docker writes keys as URLs (https://index.docker.io/v1/): reduce those to the host."""
    if key.startswith(("http://", "https://")):
        return key.partition("://")[2].partition("/")[0]
    return key


def _entry(entry: dict[str, object], path: Path) -> Credentials | None:
    token = entry.get("identitytoken")
    if isinstance(token, str) and token:
        return Credentials(identity_token=token)
    encoded = entry.get("auth")
    if not isinstance(encoded, str) or not encoded:
        return None
    try:
        username, colon, password = base64.b64decode(encoded, validate=True).decode().rstrip("\0").partition(":")
    except (binascii.Error, ValueError):
        colon = ""
    if not colon:
        raise AuthError(f"an entry of the credentials file {path} is not base64 of USER:PASSWORD") from None
    return Credentials(username, password)


def _ask_helper(name: str, server: str) -> Credentials | None:
    """What ``docker-credential-NAME get`` says (docker-credential-helpers, README, "Development")."""
    if not _HELPER_NAME.fullmatch(name):
        raise AuthError(f"{clean(name, 60)!r} is not the name of a credential helper")
    program = f"docker-credential-{name}"
    with tempfile.TemporaryFile() as question:
        question.write(server.encode())
        question.seek(0)
        try:
            result = proc.run([program, "get"], check=False, timeout=_HELPER_SECONDS, stdin=question)
        except CommandError as error:
            raise AuthError(f"the credential helper {program} failed: {clean(error.message)}") from error
    if result.returncode:
        said = clean(result.stdout + result.stderr)
        if "credentials not found" in said:
            return None
        raise AuthError(f"the credential helper {program} failed for {server}: {clean(result.stderr)}")
    try:
        answer = _object(json_value(result.stdout.encode()))
    except ValueError:
        answer = {}
    username, secret = answer.get("Username"), answer.get("Secret")
    if not isinstance(username, str) or not isinstance(secret, str):
        raise AuthError(f"the credential helper {program} gave no user name and secret for {server}") from None
    return Credentials(identity_token=secret) if username == "<token>" else Credentials(username, secret)
