"""How a user wants registries to be approached."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Retry:
    """How often and how long a request is repeated after a connection loss, 429 or 5xx; times in seconds."""

    attempts: int = 6
    """Requests at most, the first one included."""
    base: float = 0.5
    """The first pause; each further one is twice as long, with jitter."""
    ceiling: float = 15.0
    """The longest pause, also where the registry's Retry-After asks for more."""
    total: float = 600.0
    """No further request is begun after that time."""


@dataclass(frozen=True, slots=True)
class Pace:
    """What is expected of a registry; times in seconds of waiting for it."""

    head: float = 120.0
    """Until status and headers are there: a registry may have to put a large blob together first."""
    small: float = 60.0
    """For the whole body of a manifest, token, list of tags or error."""
    window: float = 30.0
    """In each such time of waiting for a blob, `least` bytes of it must come."""
    least: int = 60 << 10
    """2 KiB/s: an eighth of what each of four connections gets on a line of 512 kbit/s."""


@dataclass(frozen=True, slots=True)
class Access:
    """Credentials file and TLS verification, as the user asked for them."""

    authfile: Path | None = None
    """Read instead of the usual credential files (containers-auth.json(5))."""
    tls_verify: bool | None = None
    """None: what registries.conf says of the registry (`insecure`). False also permits plain HTTP."""
    retry: Retry = Retry()
    pace: Pace = Pace()
    within: float = math.inf
    """Seconds after which nothing more is waited for, however it goes."""
