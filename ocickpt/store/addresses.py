"""Where a URL leads, read once for all who ask: who is compared and shown is who is connected to."""

from __future__ import annotations

import re
from typing import Final

from ocickpt.errors import RegistryError
from ocickpt.store.text import clean

Origin = tuple[str, str, int]
"""Scheme, host and port (RFC 6454): what Authorization may not leave."""

PORTS: Final = {"https": 443, "http": 80}

_ADDRESS: Final = re.compile(
    r"(https?)://((?:[a-z0-9_.-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?)(?=[/?#]|\Z)", re.ASCII | re.IGNORECASE
)


def origin(url: str) -> Origin:
    """Scheme, host and port of `url`; RegistryError for what is no plain web address.

    Parsers differ over the others: in ``https://evil\\@good/`` the host is ``good`` to urllib.parse and ``evil`` to
    urllib3, which connects. So nothing but a host and a port may stand there.
    """
    scheme, server = _read(url)
    host, colon, port = server.rpartition(":")
    if not colon or server.endswith("]"):
        return scheme, server, PORTS[scheme]
    return scheme, host, int(port)


def host_of(url: str) -> str:
    """``HOST[:PORT]`` of `url`, fit to be shown; RegistryError as for `origin`."""
    return clean(_read(url)[1], 100)


def _read(url: str) -> tuple[str, str]:
    match = _ADDRESS.match(url)
    if not match:
        raise RegistryError(f"{clean(url.partition('?')[0], 100)!r} is not a web address to go to")
    return match[1].lower(), match[2].lower()
