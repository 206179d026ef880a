"""Certificates for a registry (containers-certs.d(5))."""

from __future__ import annotations

import contextlib
import os
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ocickpt.errors import UsageError

_SYSTEM: Final = (Path("/etc/containers/certs.d"), Path("/etc/docker/certs.d"))


def context(registry: str, *, verify: bool, system: tuple[Path, ...] = _SYSTEM) -> ssl.SSLContext:
    """A client context for `registry` (``HOST[:PORT]``): its own CAs besides the system's, its client keys.

    With `verify` false any certificate is accepted. UsageError when a file there cannot be used.
    """
    made = ssl.create_default_context()
    if not verify:
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    for folder in _folders(registry, system):
        for path in sorted(folder.glob("*")):
            try:
                if path.suffix == ".crt":
                    made.load_verify_locations(path)
                elif path.suffix == ".cert":
                    made.load_cert_chain(path, path.with_suffix(".key"))
            except (OSError, ssl.SSLError) as error:
                raise UsageError(f"the certificate {path} cannot be used: {error.strerror or error}") from error
        break
    return made


def _folders(registry: str, system: tuple[Path, ...]) -> Iterator[Path]:
    home = Path(os.environ.get("HOME") or "/nonexistent")
    user = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config") / "containers" / "certs.d"
    for folder in (user, *system):
        with contextlib.suppress(PermissionError):  # as if it were not there, as for containers-image
            if (folder / registry).is_dir():
                yield folder / registry
