"""A registry in this process, to be made to misbehave: distribution-spec as far as `ocickpt.store` uses it."""

from __future__ import annotations

import base64
import contextlib
import gzip
import hashlib
import itertools
import json
import re
import secrets
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BufferedIOBase
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from ocickpt.model import digest_of

BLOB = re.compile(r"/v2/(.+)/blobs/(sha256:[0-9a-f]{64})")
SESSION = re.compile(r"/v2/(.+)/blobs/uploads/([0-9a-f]*)")
MANIFEST = re.compile(r"/v2/(.+)/manifests/([^/]+)")
TAGS = re.compile(r"/v2/(.+)/tags/list")
REFERRERS = re.compile(r"/v2/(.+)/referrers/(.+)")
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"


@dataclass
class Faults:
    """What goes wrong. Counters go down to 0."""

    answers: list[tuple[int, str]] = field(default_factory=list)
    """Status and Retry-After to answer the next requests (but /v2/) with."""
    login: str = ""
    """USER:PASSWORD to be asked for."""
    identity_token: str = ""
    """The refresh token to be asked for instead of `login`."""
    bearer: bool = True
    """Ask for tokens of /token rather than for `login` itself."""
    realm: str = ""
    """The token server to name instead of its own /token."""
    anonymous: bool = False
    """Give a token to whoever asks."""
    redirect_tokens_to: str = ""
    """Where who asks for a token is sent instead (307)."""
    token_uses: int = 1_000_000
    """Requests a token is good for."""
    drop_upload_after: list[int] = field(default_factory=list)
    """Bytes of the next PATCHes that are kept before the connection is cut."""
    lose_answer: int = 0
    """PUTs of a session that are done, but whose answer is lost."""
    forget_sessions: bool = False
    """What was cut cannot be resumed."""
    drop_download_after: list[int] = field(default_factory=list)
    """Bytes of the next blob GETs that are sent before the connection is cut."""
    no_ranges: bool = False
    other_ranges: bool = False
    """Answer with the range one byte further on."""
    redirect_to: str = ""
    """Where blob GETs are redirected to: a base URL, or with a leading = the whole Location."""
    change: bytes = b""
    """What replaces the beginning of every body of a blob or manifest."""
    endless: bool = False
    """Blobs and manifests go on for ever (chunked)."""
    wrong_digest: bool = False
    """Say that something else was stored."""
    no_delete: bool = False
    page: int = 1_000_000
    """Tags or referrers in one page."""
    endless_pages: bool = False
    no_mount: bool = False
    no_referrers: bool = False
    """No API for referrers, as in distribution-spec v1.0."""
    no_filter: bool = False
    """Referrers of all types, whatever was asked for."""
    headers: dict[str, str] = field(default_factory=dict)
    """Sent with every answer but that of /v2/."""
    encoding: str = ""
    """The Content-Encoding of every answer but that of /v2/, whose body is compressed with gzip."""
    answer: tuple[int, bytes] | None = None
    """What every request but that of /v2/ is answered with."""
    slow: str = ""
    """What comes a byte at a time, in answers but that of /v2/: "head" or "body"."""
    pause: float = 0.05
    """Seconds between two bytes of it."""
    rate: float = 0.0
    """Bytes of a body a second; 0 for no limit."""
    noise: str = ""
    """What is sent without end: "trailers" after a body, "continue" before a head."""


@dataclass(frozen=True)
class Seen:
    """A request that came in."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes = b""
    """The form that asks for a token; other bodies are not kept."""


class Registry:
    """The server, its content and its faults. `log` is what was asked of it."""

    def __init__(self, certificate: Path | None = None) -> None:
        self.faults = Faults()
        self.blobs: dict[tuple[str, str], bytes] = {}
        self.manifests: dict[tuple[str, str], tuple[str, bytes]] = {}
        self.tags: dict[tuple[str, str], str] = {}
        self.sessions: dict[str, bytearray] = {}
        self.tokens: dict[str, tuple[str, int]] = {}
        self.log: list[Seen] = []
        self.lock = threading.Lock()
        self.numbers = itertools.count(1)
        self.server = _Server(("127.0.0.1", 0), _Handler)
        self.server.registry = self
        self.scheme = "http"
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self.server.socket = context.wrap_socket(
                self.server.socket, server_side=True, do_handshake_on_connect=False
            )
            self.scheme = "https"
        self.host = f"127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.host}"

    def asked(self, method: str, pattern: str) -> list[Seen]:
        return [seen for seen in self.log if seen.method == method and re.search(pattern, seen.path)]

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@contextlib.contextmanager
def serve(certificate: Path | None = None) -> Iterator[Registry]:
    registry = Registry(certificate)
    try:
        yield registry
    finally:
        registry.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    registry: Registry

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Cut connections are what this server is for."""


class _Slow:
    """Writes the first thing it is given (the head) or the second (the body) a byte at a time."""

    def __init__(self, file: BufferedIOBase, what: str, pause: float) -> None:
        self._file, self._pause = file, pause
        self._slow = [what == "head", what == "body"]

    def write(self, data: bytes) -> int:
        for byte in data if self._slow.pop(0) else b"":
            self._file.write(bytes([byte]))
            time.sleep(self._pause)
            data = data[1:]
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()


class CutError(Exception):
    """The connection is to be cut now."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Not on the terminal."""

    def do_GET(self) -> None:
        self._dispatch()

    do_HEAD = do_POST = do_PATCH = do_PUT = do_DELETE = do_GET  # noqa: N815 - the base class's names

    def _dispatch(self) -> None:
        registry = self.server.registry
        parts = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        length = int(self.headers.get("Content-Length") or 0)
        form = b""
        if self.command == "POST" and not parts.path.startswith("/v2/"):
            form = self.rfile.read(length)
            del self.headers["Content-Length"]  # it is read
        with registry.lock:
            registry.log.append(Seen(self.command, self.path, dict(self.headers.items()), form))
        try:
            if parts.path == "/token":
                self._token(registry, query | {key: each[0] for key, each in parse_qs(form.decode()).items()})
            elif not self._allowed(registry, parts.path, query):
                self._drain()
            elif parts.path != "/v2/" and registry.faults.answer:
                self._drain()
                self._answer(*registry.faults.answer)
            elif parts.path != "/v2/" and registry.faults.answers:
                self._drain()
                status, after = registry.faults.answers.pop(0)
                body = b'{"errors":[{"code":"TOOMANY","message":"slow\\u001b[31m down"}]}'
                self._answer(status, body, {"Retry-After": after} if after else {})
            else:
                self._route(registry, parts.path, query)
        except CutError:
            self.close_connection = True
            self.connection.close()

    def _drain(self) -> None:
        left = int(self.headers.get("Content-Length") or 0)
        while left and (data := self.rfile.read(min(left, 1 << 16))):
            left -= len(data)

    def _answer(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        headers = dict(headers or {})
        if self.path == "/v2/":
            self._send(status, body, headers)
            return
        faults = self.server.registry.faults
        if faults.encoding:
            body = gzip.compress(body)
            headers |= {"Content-Encoding": faults.encoding, "Content-Length": str(len(body))}
        headers |= faults.headers
        if faults.noise == "continue":
            self._without_end(b"HTTP/1.1 100 Continue\r\n\r\n")
        if faults.noise == "trailers":
            headers |= {"Transfer-Encoding": "chunked"}
            headers.pop("Content-Length", None)
            self._send(status, b"%x\r\n%b\r\n0\r\n" % (len(body), body), headers, chunked=True)
            self._without_end(b"X: y\r\n")
        whole = self.wfile
        self.wfile = _Slow(whole, faults.slow, faults.pause) if faults.slow else whole  # type: ignore[assignment]
        try:
            self._send(status, body, headers)
        finally:
            self.wfile = whole

    def _send(self, status: int, body: bytes, headers: dict[str, str], *, chunked: bool = False) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if "Content-Length" not in headers and not chunked:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        rate = self.server.registry.faults.rate
        piece = int(rate / 50) or len(body) or 1
        for at in range(0, len(body) if self.command != "HEAD" else 0, piece):
            self.wfile.write(body[at : at + piece])
            time.sleep(0.02 if rate else 0)

    def _without_end(self, line: bytes) -> None:
        with contextlib.suppress(OSError):
            for _ in range(1 << 14):
                self.wfile.write(line * 1000)
        raise CutError

    def _error(self, status: int, message: str) -> None:
        self._drain()
        self._answer(status, json.dumps({"errors": [{"code": "E", "message": message}]}).encode())

    # Authorization.

    def _token(self, registry: Registry, query: dict[str, str]) -> None:
        faults = registry.faults
        if faults.redirect_tokens_to:
            self._answer(307, b"", {"Location": faults.redirect_tokens_to})
            return
        basic = "Basic " + base64.b64encode(faults.login.encode()).decode()
        good = self.headers.get("Authorization") == basic
        if faults.identity_token:
            good = query.get("grant_type") == "refresh_token" and query.get("refresh_token") == faults.identity_token
        if not good and not faults.anonymous:
            self._error(401, "who are you")
            return
        token = secrets.token_hex(8)
        registry.tokens[token] = (query.get("scope", ""), faults.token_uses)
        self._answer(200, json.dumps({"token": token, "expires_in": 300}).encode())

    def _allowed(self, registry: Registry, path: str, query: dict[str, str]) -> bool:
        faults = registry.faults
        if not faults.login and not faults.identity_token:
            return True
        sent = self.headers.get("Authorization", "")
        if not faults.bearer:
            if sent == "Basic " + base64.b64encode(faults.login.encode()).decode():
                return True
            self._answer(401, b"", {"WWW-Authenticate": 'Basic realm="here, there"'})
            return False
        with registry.lock:
            scope, uses = registry.tokens.get(sent.removeprefix("Bearer "), ("", 0))
            registry.tokens[sent.removeprefix("Bearer ")] = (scope, uses - 1)
        if uses > 0:
            return True
        challenge = (
            f'Bearer realm="{faults.realm or registry.url + "/token"}",service="test, service",error="invalid_token"'
        )
        self._answer(401, b"", {"WWW-Authenticate": challenge})
        return False

    # The protocol.

    def _route(self, registry: Registry, path: str, query: dict[str, str]) -> None:
        if path == "/v2/":
            self._answer(200, b"{}")
        elif match := SESSION.fullmatch(path):
            self._session(registry, match[1], match[2], query)
        elif match := BLOB.fullmatch(path):
            self._blob(registry, match[1], match[2])
        elif match := MANIFEST.fullmatch(path):
            self._manifest(registry, match[1], match[2])
        elif match := TAGS.fullmatch(path):
            self._tags(registry, match[1], query)
        elif (match := REFERRERS.fullmatch(path)) and not registry.faults.no_referrers:
            self._referrers(registry, match[1], match[2], query)
        else:
            self._error(404, "no such page")

    def _session(self, registry: Registry, repository: str, session: str, query: dict[str, str]) -> None:
        if self.command == "POST":
            self._start(registry, repository, query)
        elif session not in registry.sessions:
            self._error(404, "upload unknown")
        elif self.command == "PATCH":
            self._patch(registry, repository, session)
        elif self.command == "GET":
            size = len(registry.sessions[session])
            self._answer(204, b"", {"Range": f"0-{max(size - 1, 0)}", "Location": self._at(repository, session)})
        elif self.command == "DELETE":
            del registry.sessions[session]
            self._answer(204)
        else:
            self._finish(registry, repository, session, query)

    def _start(self, registry: Registry, repository: str, query: dict[str, str]) -> None:
        source = (query.get("from", ""), query.get("mount", ""))
        if source in registry.blobs and not registry.faults.no_mount:
            registry.blobs[repository, query["mount"]] = registry.blobs[source]
            self._answer(201, b"", {"Location": "/"})
            return
        session = f"{next(registry.numbers):x}"
        registry.sessions[session] = bytearray()
        self._answer(202, b"", {"Location": self._at(repository, session)})

    def _at(self, repository: str, session: str) -> str:
        """Sometimes absolute, always with a query that must be kept."""
        base = self.server.registry.url if int(session, 16) % 2 else ""
        return f"{base}/v2/{repository}/blobs/uploads/{session}?state=a%2Fb"

    def _patch(self, registry: Registry, repository: str, session: str) -> None:
        if urlsplit(self.path).query != "state=a%2Fb":
            self._error(400, "the query was lost")
            return
        kept, faults = registry.sessions[session], registry.faults
        first = int((self.headers.get("Content-Range") or "0-").partition("-")[0])
        if first != len(kept):
            self._error(416, "not where this goes on")
            return
        left = int(self.headers["Content-Length"])
        cut = faults.drop_upload_after.pop(0) if faults.drop_upload_after else None
        while left and cut != 0:
            data = self.rfile.read(min(left, 1 << 16 if cut is None else min(cut, 1 << 16)))
            if not data:
                raise CutError
            kept += data
            left -= len(data)
            cut = None if cut is None else cut - len(data)
        if cut == 0:
            if faults.forget_sessions:
                registry.sessions.clear()
            raise CutError
        self._answer(202, b"", {"Range": f"0-{len(kept) - 1}", "Location": self._at(repository, session)})

    def _finish(self, registry: Registry, repository: str, session: str, query: dict[str, str]) -> None:
        data = bytes(registry.sessions.pop(session)) + self.rfile.read(int(self.headers.get("Content-Length") or 0))
        digest = digest_of(data)
        if digest != query.get("digest"):
            self._error(400, "digest invalid")
            return
        registry.blobs[repository, digest] = data
        if registry.faults.lose_answer:
            registry.faults.lose_answer -= 1
            raise CutError
        self._answer(201, b"", {"Docker-Content-Digest": self._told(digest), "Location": "/"})

    def _told(self, digest: str) -> str:
        return "sha256:" + "0" * 64 if self.server.registry.faults.wrong_digest else digest

    def _blob(self, registry: Registry, repository: str, digest: str) -> None:
        faults, data = registry.faults, registry.blobs.get((repository, digest))
        if data is None:
            self._error(404, "blob unknown")
            return
        if self.command == "GET" and faults.redirect_to:
            location = faults.redirect_to[1:] if faults.redirect_to[0] == "=" else faults.redirect_to + self.path
            self._answer(307, b"", {"Location": location})
            return
        self._content(data, "application/octet-stream", digest)

    def _content(self, data: bytes, media_type: str, digest: str) -> None:
        faults = self.server.registry.faults
        data = faults.change + data[len(faults.change) :]
        headers = {"Content-Type": media_type, "Docker-Content-Digest": digest}
        if faults.endless and self.command == "GET":
            self._endless(data, headers)
            return
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        status = 200
        if asked and not faults.no_ranges:
            shift = 1 if faults.other_ranges else 0
            start, end = int(asked[1]) + shift, int(asked[2]) + 1 + shift
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(data)}"
            data, status = data[start:end], 206
        headers["Content-Length"] = str(len(data))
        if self.command == "GET" and faults.drop_download_after:
            self._answer(status, data[: faults.drop_download_after.pop(0)], headers)
            self.wfile.flush()
            raise CutError
        self._answer(status, data, headers)

    def _endless(self, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(200)
        for name, value in {**headers, "Transfer-Encoding": "chunked"}.items():
            self.send_header(name, value)
        self.end_headers()
        with contextlib.suppress(OSError):
            for piece in [data, *[bytes(1 << 16)] * 4096]:
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        raise CutError

    def _manifest(self, registry: Registry, repository: str, target: str) -> None:
        digest = registry.tags.get((repository, target), target)
        if self.command == "PUT":
            data = self.rfile.read(int(self.headers["Content-Length"]))
            digest = "sha256:" + hashlib.sha256(data).hexdigest()
            registry.manifests[repository, digest] = (self.headers["Content-Type"], data)
            if target != digest:
                registry.tags[repository, target] = digest
            headers = {"Docker-Content-Digest": self._told(digest)}
            subject = json.loads(data).get("subject")
            if subject and not registry.faults.no_referrers:
                headers["OCI-Subject"] = subject["digest"]
            self._answer(201, b"", headers)
        elif (repository, digest) not in registry.manifests:
            self._error(404, "manifest unknown")
        elif self.command == "DELETE":
            if registry.faults.no_delete:
                self._error(405, "unsupported")
                return
            if target == digest:
                del registry.manifests[repository, digest]
            for key in [key for key, value in registry.tags.items() if value == digest and target in (digest, key[1])]:
                del registry.tags[key]
            self._answer(202)
        else:
            media_type, data = registry.manifests[repository, digest]
            self._content(data, media_type, digest)

    def _tags(self, registry: Registry, repository: str, query: dict[str, str]) -> None:
        found = sorted(tag for name, tag in registry.tags if name == repository)
        if not found:
            self._error(404, "name unknown")
            return
        found = [tag for tag in found if tag > query.get("last", "")]
        page = found[: registry.faults.page]
        headers = {}
        if len(found) > len(page) or registry.faults.endless_pages:
            last = "" if registry.faults.endless_pages else page[-1]
            headers["Link"] = f'<https://elsewhere.example/v2/{repository}/tags/list?last={last}&n=2>; rel="next"'
        self._answer(200, json.dumps({"name": repository, "tags": page}).encode(), headers)

    def _referrers(self, registry: Registry, repository: str, digest: str, query: dict[str, str]) -> None:
        faults, wanted = registry.faults, query.get("artifactType", "")
        filtered = bool(wanted) and not faults.no_filter
        found = []
        for (name, own), (media_type, data) in sorted(registry.manifests.items()):
            value = json.loads(data)
            if name != repository or (value.get("subject") or {}).get("digest") != digest:
                continue
            kind = value.get("artifactType") or (value.get("config") or {}).get("mediaType", "")
            if not filtered or kind == wanted:
                entry = {"mediaType": media_type, "digest": own, "size": len(data), "artifactType": kind}
                found.append(entry | {"annotations": value.get("annotations") or {}})
        left = [entry for entry in found if entry["digest"] > query.get("last", "")]
        page = left[: faults.page]
        headers = {"Content-Type": INDEX_TYPE} | ({"OCI-Filters-Applied": "artifactType"} if filtered else {})
        if len(left) > len(page) or faults.endless_pages:
            last = "" if faults.endless_pages else page[-1]["digest"]
            more = f"{digest}?artifactType={wanted}&last={last}"
            headers["Link"] = f'<https://elsewhere.example/v2/{repository}/referrers/{more}>; rel="next"'
        body = {"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": page}
        self._answer(200, json.dumps(body).encode(), headers)
