"""Getting past a registry's 401: basic and bearer (distribution, docs/spec/auth).

Tokens are kept by scope, fetched by one thread at a time, and renewed before and when they expire. A token server that
may not have the registry's password (`store.token_servers`) is asked for what it gives anybody.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol
from urllib.parse import urlencode

from ocickpt import names
from ocickpt.errors import AuthError
from ocickpt.model import json_value
from ocickpt.store.addresses import host_of
from ocickpt.store.credentials import Credentials
from ocickpt.store.text import clean

CLIENT_ID: Final = "ocickpt"

Scope = tuple[str, ...]
"""What a token must allow: ``repository:NAME:pull,push``, sorted."""

_MIN_SECONDS: Final = 60.0
_PARAMETER: Final = re.compile(r'([a-zA-Z_]++)\s*+=\s*+(?:"((?:[^"\\]|\\.)*+)"|([^\s,"]++))')
_WORD: Final = re.compile(r'[^\s,"]++|"')
_SPACE: Final = re.compile(r"[\s,]*+")
_TOKEN: Final = re.compile(r"[!-~]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Challenge:
    """A WWW-Authenticate header: the scheme in lower case and its parameters."""

    scheme: str
    parameters: Mapping[str, str]


def parse_challenges(values: Iterable[str]) -> list[Challenge]:
    """The basic and bearer challenges in WWW-Authenticate headers (RFC 9110, section 11.6.1).

    Each character is looked at a few times at most, whatever stands there.
    """
    found: list[Challenge] = []
    for value in values:
        parameters: dict[str, str] = {}
        at, begins = 0, True
        while (space := _SPACE.match(value, at)) and space.end() < len(value):
            begins = begins or "," in space[0]
            if parameter := _PARAMETER.match(value, space.end()):
                parameters[parameter[1].lower()] = parameter[3] or re.sub(r"\\(.)", r"\1", parameter[2] or "")
            word = parameter or _WORD.match(value, space.end())
            assert word  # noqa: S101 - neither a space nor the end
            if not parameter and begins:
                # Another scheme; what follows is its own.
                parameters = {}
                if word[0].lower() in ("basic", "bearer"):
                    found.append(Challenge(word[0].lower(), parameters))
            at, begins = word.end(), False
    return found


class Fetch(Protocol):
    """How a token service is asked: no redirects, a bounded answer."""

    def __call__(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> tuple[int, bytes]:
        """Status and body; RegistryError when it cannot be reached."""


@dataclass(frozen=True, slots=True)
class _Token:
    value: str
    good_until: float


class Authenticator:
    """The Authorization header for one registry. Threads may share it."""

    def __init__(
        self,
        registry: str,
        find: Callable[[], Credentials | None],
        fetch: Fetch,
        may_have_password: Callable[[str], bool],
    ) -> None:
        self._registry = registry
        self._find = find
        self._fetch = fetch
        self._may_have_password = may_have_password
        """Whether the token server at a URL may."""
        self._lock = threading.RLock()
        self._challenge: Challenge | None = None
        self._credentials: Credentials | None = None
        self._looked = False
        self._withheld_from = ""
        """The token server that there are credentials for, and that may not have them."""
        self._tokens: dict[Scope, _Token] = {}

    def learn(self, values: Iterable[str]) -> None:
        """Take note of a 401's WWW-Authenticate headers; bearer is preferred."""
        challenges = sorted(parse_challenges(values), key=lambda challenge: challenge.scheme != "bearer")
        if challenges:
            with self._lock:
                self._challenge = challenges[0]

    def header(self, scope: Scope) -> str:
        """What to send, as far as is known; "" for nothing. May ask the token service."""
        with self._lock:
            if self._challenge is None:
                return ""
            if self._challenge.scheme == "basic":
                credentials = self._own()
                return credentials.basic() if credentials and credentials.username else ""
            token = self._tokens.get(scope)
            if token is None or time.monotonic() >= token.good_until:
                token = self._tokens[scope] = self._ask(self._challenge, scope)
            return f"Bearer {token.value}"

    def refused(self, scope: Scope, sent: str, values: Iterable[str]) -> bool:
        """After a 401 to a request with the header `sent`: whether `header` now gives another one."""
        with self._lock:
            self.learn(values)
            token = self._tokens.get(scope)
            if token is not None and sent == f"Bearer {token.value}":
                del self._tokens[scope]
            return self.header(scope) not in ("", sent)

    def refusal(self, doing: str, said: str = "") -> AuthError:
        """The error for a registry that did not let us in; `said` is its explanation."""
        with self._lock:
            known = self._looked and self._credentials is not None
            elsewhere = self._withheld_from
        if elsewhere:
            return AuthError(
                f"{self._registry} wants its password for {doing} sent to another server, {elsewhere}, "
                "which was not done",
                hint=f'if {elsewhere} may have it, token-server = "{elsewhere}" below [registry."{self._registry}"] '
                f"in {names.HOST_CONFIG} says so",
            )
        because = "refuses the credentials it was given" if known else "wants credentials"
        return AuthError(
            f"{self._registry} {because} for {doing}{': ' if said else ''}{said}",
            hint=f"`podman login {self._registry}` stores credentials that may do this",
        )

    def _own(self) -> Credentials | None:
        if not self._looked:
            self._credentials = self._find()
            self._looked = True
        return self._credentials

    def _ask(self, challenge: Challenge, scope: Scope) -> _Token:
        realm = challenge.parameters.get("realm", "")
        if not realm.startswith(("https://", "http://")):
            raise AuthError(f"{self._registry} names no token service")
        credentials = self._own()
        self._withheld_from = ""
        if credentials and not self._may_have_password(realm):
            self._withheld_from, credentials = host_of(realm), None
        service = challenge.parameters.get("service", "")
        query = [("service", service)] if service else []
        if credentials and credentials.identity_token:
            form = [*query, ("grant_type", "refresh_token"), ("client_id", CLIENT_ID), ("scope", " ".join(scope))]
            body = urlencode([*form, ("refresh_token", credentials.identity_token)]).encode()
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            status, answer = self._fetch("POST", realm, headers, body)
        else:
            query += [("scope", one) for one in scope]
            if credentials:
                query.append(("account", credentials.username))
            url = f"{realm}{'&' if '?' in realm else '?'}{urlencode(query)}"
            basic = {"Authorization": credentials.basic()} if credentials else {}
            status, answer = self._fetch("GET", url, basic, None)
        if status != 200:
            raise self.refusal(f"a token ({', '.join(scope) or 'any'})", f"its token service answers {status}")
        return self._token(answer)

    def _token(self, answer: bytes) -> _Token:
        try:
            value: Any = json_value(answer)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            value = {}
        text = value.get("token") or value.get("access_token")
        if not isinstance(text, str) or not _TOKEN.fullmatch(text):
            raise AuthError(f"the token service of {clean(self._registry)} gives no usable token") from None
        seconds = value.get("expires_in")
        lifetime = float(seconds) if type(seconds) is int and seconds > 0 else _MIN_SECONDS
        return _Token(text, time.monotonic() + lifetime * 0.8)
