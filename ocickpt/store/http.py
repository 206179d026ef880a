"""HTTP to one registry: connections, TLS, proxies, authorization, redirects, repetition, errors.

Knows nothing of the distribution protocol's paths. Rules kept here, whatever a registry answers:
Authorization goes to the registry's own origin and nowhere else; nothing that began with TLS goes on
without it; no answer is read without a bound; no query string, token or control character gets into a
message.
"""

from __future__ import annotations

import contextlib
import http.client
import random
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final, TypeVar
from urllib.parse import urljoin, urlsplit

import urllib3
from urllib3.exceptions import HTTPError, InsecureRequestWarning, LocationParseError, NewConnectionError, SSLError

from ocickpt import names
from ocickpt.errors import AuthError, NotFoundError, RegistryError
from ocickpt.store import tls, token_servers
from ocickpt.store.access import Access
from ocickpt.store.addresses import host_of, origin
from ocickpt.store.auth import Authenticator
from ocickpt.store.credentials import Credentials
from ocickpt.store.exchange import (
    Reply,
    Request,
    TransientError,
    proxy_for,
    reason_of,
    retry_after,
    said,
    tls_reason,
)
from ocickpt.store.pace import POOLS, Clock, kept_by
from ocickpt.store.verify import Readable

T = TypeVar("T")

_CONNECT_SECONDS: Final = 15.0
_CONNECTIONS: Final = 32
_BLOCK: Final = 256 << 10
_MAX_REDIRECTS: Final = 5
_MAX_TOKEN_BYTES: Final = 1 << 20
_TRANSIENT: Final = (408, 429, 500, 502, 503, 504)
_REDIRECTS: Final = (301, 302, 303, 307, 308)


class Client:
    """Requests to one registry. Threads may share it.

    `registry` is ``HOST[:PORT]`` as users and credential files write it, `server` where it really is.
    With `verify` false any certificate will do, and plain HTTP where HTTPS is not spoken.
    """

    def __init__(
        self, registry: str, server: str, find: Callable[[], Credentials | None], *, verify: bool, access: Access
    ) -> None:
        self.registry = registry
        self.retry = access.retry
        self._access = access
        self._end = time.monotonic() + access.within
        self._server = server
        self._verify = verify
        self._lock = threading.Lock()
        self._base = ""
        self._managers: dict[str, urllib3.PoolManager] = {}
        self._auth = Authenticator(registry, find, self._fetch_token, self._may_have_password)
        if not verify:
            urllib3.disable_warnings(InsecureRequestWarning)

    # Sending.

    def send(self, request: Request) -> Reply:
        """The answer to `request`, its status one of `request.ok`; repeated as `Retry` says.

        Raises NotFoundError (404), AuthError (401, 403), TransientError, RegistryError.
        """
        self._connected()

        def attempt() -> Reply:
            reply = self._authorized(request)
            if reply.status in request.ok:
                return reply
            with reply:
                raise self._error(request, reply)

        return self.repeated(attempt, request.attempts)

    def repeated(self, action: Callable[[], T], attempts: int = 0) -> T:
        """What `action` gives, called again after each TransientError until `attempts` (0: `Retry`'s) are used up."""
        attempts = attempts or self.retry.attempts
        deadline = time.monotonic() + self.retry.total
        for attempt in range(attempts):
            try:
                return action()
            except TransientError as error:
                if attempt + 1 >= attempts or time.monotonic() >= deadline:
                    raise
                self.pause(attempt, error.after)
        raise AssertionError("unreachable")

    def pause(self, attempt: int, after: float = 0.0) -> None:
        """Wait before the request after number `attempt` (from 0): `after` seconds if told, else longer each time."""
        wished = after or self.retry.base * 2**attempt * random.uniform(0.5, 1.5)  # noqa: S311 - jitter
        time.sleep(max(0.0, min(wished, self.retry.ceiling, self._end - time.monotonic())))

    def _authorized(self, request: Request) -> Reply:
        base = self._connected()
        url = self._join(base, request.url)
        sent = self._auth.header(request.scope) if origin(url) == origin(base) else ""
        reply = self._followed(request, url, sent)
        # Whoever else it was redirected to must not say where the registry's credentials are to be sent.
        if reply.status == 401 and origin(url) == origin(base) == origin(reply.url):
            values = reply.header_values("WWW-Authenticate")
            try:
                again = self._auth.refused(request.scope, sent, values)
            except BaseException:
                reply.close()
                raise
            if again:
                reply.close()
                reply = self._followed(request, url, self._auth.header(request.scope))
        return reply

    def _followed(self, request: Request, url: str, authorization: str) -> Reply:
        """Send and follow redirects; the body is never sent to another address than the first."""
        own = origin(url)
        for _ in range(_MAX_REDIRECTS + 1):
            headers = {"User-Agent": f"ocickpt/{names.VERSION}", "Accept-Encoding": "identity", **request.headers}
            if authorization and origin(url) == own:
                headers["Authorization"] = authorization
            reply = self._once(request.method, url, headers, request.body, request.size)
            location = reply.header("Location")
            if reply.status not in _REDIRECTS or not location or request.body is not None:
                return reply
            reply.close()
            url = self._join(url, location)
        raise RegistryError(f"{self.registry} redirects in circles for {request.doing or urlsplit(url).path}")

    def _once(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: Callable[[], bytes | Readable] | None,
        size: int = 0,
    ) -> Reply:
        where = host_of(url)
        if time.monotonic() >= self._end:
            raise RegistryError(
                f"{where} has not sent what is needed within {self._access.within:.0f} s",
                hint="`ocickpt pull` fetches a checkpoint beforehand, and takes the time it needs",
            )
        clock = Clock(self._access.pace, self._end)
        content: Any = body() if body else None
        try:
            with kept_by(clock):
                raw = self._manager(url).request(
                    method,
                    url,
                    headers=headers,
                    body=content,
                    preload_content=False,
                    decode_content=False,
                    redirect=False,
                    retries=False,
                )
        except LocationParseError as error:
            raise RegistryError(f"{self.registry} leads to something that is not a web address") from error
        except SSLError as error:
            if isinstance(error.args[0] if error.args else None, ssl.SSLEOFError):
                raise TransientError(f"the connection to {where} was lost") from error
            raise RegistryError(
                f"{where}: {tls_reason(error)}",
                hint="--tls-verify=false talks to it all the same; a CA's certificate belongs in "
                f"/etc/containers/certs.d/{self.registry}",
            ) from error
        except NewConnectionError as error:
            raise TransientError(
                f"{where} cannot be reached: {reason_of(error)}", hint="is the name right, and is the registry up?"
            ) from error
        except (HTTPError, http.client.HTTPException, OSError) as error:
            raise TransientError(f"the connection to {where} was lost: {reason_of(error)}") from error
        finally:
            if content is not None and not isinstance(content, bytes):
                content.close()
        clock.body(size)
        return Reply(raw, url, clock)

    def _join(self, before: str, location: str) -> str:
        """Where `location`, found at `before`, leads; RegistryError when that would leave TLS or HTTP."""
        try:
            url = urljoin(before, location)
            scheme = origin(url)[0]
        except (ValueError, RegistryError) as error:
            raise RegistryError(f"{self.registry} leads to something that is not a web address") from error
        if scheme == "http" and origin(before)[0] == "https":
            raise RegistryError(
                f"{self.registry} leads from https to plain http at {host_of(url)}, which is refused",
                hint="behind a reverse proxy, the registry must be told its outer scheme (X-Forwarded-Proto)",
            )
        return url

    # Connecting.

    def _connected(self) -> str:
        """The registry's base URL; the first time, find out its scheme and how it wants authorization."""
        with self._lock:
            if not self._base:
                self._base = self._probe()
            return self._base

    def _probe(self) -> str:
        """GET /v2/ (distribution-spec, "Determining support"), with TLS, or failing that and if allowed, without."""
        try:
            return self.repeated(self._try_schemes, 2)
        except TransientError as error:
            # What refuses a connection twice will mostly do so for long; what answers gets more time.
            if isinstance(error.__cause__, NewConnectionError):
                raise
            return self.repeated(self._try_schemes)

    def _try_schemes(self) -> str:
        try:
            return self._ping("https")
        except RegistryError as secure:
            if self._verify:
                raise
            try:
                return self._ping("http")
            except TransientError as plain:
                if isinstance(plain.__cause__, NewConnectionError):
                    raise secure  # noqa: B904 - what HTTPS said is why; its own cause must stay
                raise

    def _ping(self, scheme: str) -> str:
        base = f"{scheme}://{self._server}"
        request = Request("GET", f"{base}/v2/")
        with self._followed(request, request.url, "") as reply:
            if reply.status in _TRANSIENT:
                raise self._error(replace(request, doing="its version"), reply)
            if reply.status == 401 and origin(reply.url) == origin(base):
                self._auth.learn(reply.header_values("WWW-Authenticate"))
        return base

    def _manager(self, url: str) -> urllib3.PoolManager:
        proxy = proxy_for(url)
        with contextlib.suppress(KeyError):
            return self._managers[proxy]
        options: dict[str, Any] = {
            "num_pools": 8,
            "maxsize": _CONNECTIONS,
            "blocksize": _BLOCK,
            "timeout": urllib3.Timeout(connect=_CONNECT_SECONDS, read=self._access.pace.head),
            # containers-image looks by the name users write, too (docker_client.go, newDockerClient).
            "ssl_context": tls.context(self.registry, verify=self._verify),
        }
        if not proxy:
            return self._managers.setdefault(proxy, _counted(urllib3.PoolManager(**options)))
        try:
            user = urlsplit(proxy)
            login = f"{user.username}:{user.password or ''}" if user.username else None
            headers = urllib3.make_headers(proxy_basic_auth=login) if login else None
            made: urllib3.PoolManager = urllib3.ProxyManager(proxy, proxy_headers=headers, **options)
        except (HTTPError, ValueError) as error:
            raise RegistryError("the proxy in the environment (HTTPS_PROXY, HTTP_PROXY) is not a URL") from error
        return self._managers.setdefault(proxy, _counted(made))

    def _may_have_password(self, realm: str) -> bool:
        return token_servers.may_have_password(self.registry, origin(self._base), origin(self._join(self._base, realm)))

    def _fetch_token(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> tuple[int, bytes]:
        url = self._join(self._base, url)
        agent = {"User-Agent": f"ocickpt/{names.VERSION}", "Accept-Encoding": "identity", **headers}

        def attempt() -> tuple[int, bytes]:
            with self._once(method, url, agent, (lambda: body) if body is not None else None) as reply:
                if reply.status in _TRANSIENT:
                    message = f"the token service at {host_of(url)} answers {reply.status}"
                    raise TransientError(message, after=retry_after(reply))
                answer = reply.read_all(_MAX_TOKEN_BYTES) if reply.status == 200 else b""
            if answer is None:
                raise AuthError(f"the token service at {host_of(url)} answers with too much")
            return reply.status, answer

        return self.repeated(attempt)

    # Errors.

    def _error(self, request: Request, reply: Reply) -> RegistryError | NotFoundError:
        told, doing = said(reply), request.doing or "this"
        why = f": {told}" if told else ""
        if reply.status == 401:
            return self._auth.refusal(doing, told)
        if reply.status == 403:
            return AuthError(
                f"{self.registry} does not permit {doing}{why}",
                hint=f"`podman login {self.registry}` stores other credentials",
            )
        if reply.status == 404:
            return NotFoundError(f"{self.registry} does not have {doing}{why}")
        message = f"{self.registry} answers {reply.status} for {doing}{why}"
        if reply.status in _TRANSIENT:
            return TransientError(message, after=retry_after(reply))
        return RegistryError(message)

    def close(self) -> None:
        """Close every connection."""
        for manager in list(self._managers.values()):
            manager.clear()


def _counted(manager: urllib3.PoolManager) -> urllib3.PoolManager:
    manager.pool_classes_by_scheme = POOLS
    return manager
