"""What registries answer, and what says how they are to be asked."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator, Mapping
from typing import Any, Final, cast

import urllib3

from ocickpt import config, names
from ocickpt.errors import OcickptError
from ocickpt.model import Descriptor, digest_of
from ocickpt.store import Access, Retry, credentials, registries_conf
from ocickpt.store.addresses import origin
from ocickpt.store.auth import Authenticator, parse_challenges
from ocickpt.store.credentials import Credentials
from ocickpt.store.registry import RegistryStore
from tests.fuzz.packs import manifest_seeds
from tests.fuzz.target import SCRATCH, Choices, Find, Target

_HOST: Final = "reg.example"
_SECRET: Final = "s3cret-pa55"
_ACCESS: Final = Access(tls_verify=True, retry=Retry(attempts=2, base=0.0, ceiling=0.0, total=1.0))
_STATUS: Final = (200, 200, 206, 201, 202, 204, 307, 301, 400, 401, 403, 404, 405, 416, 429, 500, 503, 100, 0, 999)
_HEADERS: Final = (
    "Location", "Link", "WWW-Authenticate", "Content-Range", "Content-Type", "Content-Length", "Content-Encoding",
    "Range", "Docker-Content-Digest", "Retry-After", "OCI-Subject", "Transfer-Encoding",
)  # fmt: skip
_VALUES: Final = (
    f"https://{_HOST}/v2/x?a=b", "/v2/x", "x?state=1", "https://evil.example/x", "http://reg.example/x",
    "//evil.example/x",
    "https://evil.example\\@reg.example/", "https://reg.example@evil.example/", "https://[::1",
    "https://reg.example:99999/x",
    "</v2/a/tags/list?last=b>; rel=\"next\"", "<https://evil.example/x>; rel=next", "<" * 100,
    'Bearer realm="https://reg.example/token",service="s"', 'Bearer realm="https://evil.example/token"',
    'Bearer realm="https://evil.example\\\\@reg.example/token"', 'Basic realm="x"', 'Bearer realm="https://[/"',
    "bytes 0-9/10", "bytes 0-9/*", "bytes 5-3/10", "0-99999999999999999999", "0-4", "10", "-1", "1e3", "gzip",
    "chunked",
    names.MANIFEST_TYPE, names.IMAGE_INDEX_TYPE, "sha256:" + "0" * 64, "sha512:" + "0" * 128,
    "Wed, 21 Oct 2015 07:28:00 GMT",
    "Wed, 21 Oct 99999 07:28:00 +9999", "\x1b[2J", "é",
)  # fmt: skip
_BLOB: Final = b"0123456789"
_MANIFEST: Final = next(manifest_seeds())
_BODIES: Final = (
    b"", b"{}", b"[]", b'{"tags": ["1", "2", null, 7]}', b'{"tags": {}}', b'{"token": "abc", "expires_in": 10}',
    b'{"token": "a\\r\\nb"}', b'{"errors": [{"code": "X", "message": "\\u001b[2Jno"}]}', b'{"errors": [7]}', _BLOB,
    _MANIFEST,
    json.dumps({"schemaVersion": 2, "mediaType": names.IMAGE_INDEX_TYPE, "manifests": [{}, None]}).encode(),
    b"[" * 3000,
)  # fmt: skip
_MOST: Final = 60
"""Answers; after them the registry says that it has nothing."""


class _Registry:
    """A registry, and whoever it leads to, that answers as it is told; takes the place of urllib3's connections."""

    def __init__(self, choices: Choices) -> None:
        self._choices = choices
        self._answers = 0

    def request(
        self, method: str, url: str, *, headers: Mapping[str, str], body: Any, **others: Any
    ) -> urllib3.HTTPResponse:
        where = urllib3.util.parse_url(url)
        if where.auth or (
            (where.scheme, where.host, where.port) != ("https", _HOST, None) and "Authorization" in headers
        ):
            raise Find(f"what is the registry's is sent to {url}")
        if _SECRET in url or (
            body and where.host != _HOST and _SECRET.encode() in (body if isinstance(body, bytes) else b"")
        ):
            raise Find(f"the password is sent to {url}")
        while body is not None and not isinstance(body, bytes) and body.read(4096):
            continue
        self._answers += 1
        if self._answers > _MOST or not self._choices:
            return _answer(method, 404, {}, b"")
        choices = self._choices
        status = choices.pick(_STATUS)
        told: dict[str, str] = {}
        for _ in range(choices.below(4)):
            name = choices.pick(_HEADERS)
            told[name] = choices.pick(_VALUES) if choices.below(4) else choices.some().decode("latin-1")
        data = choices.pick(_BODIES) if choices.below(4) else choices.some()
        return _answer(method, status, told, data)

    def clear(self) -> None:
        """As urllib3's."""


def _answer(method: str, status: int, headers: Mapping[str, str], data: bytes) -> urllib3.HTTPResponse:
    return urllib3.HTTPResponse(
        io.BytesIO(data), headers, status=status, preload_content=False, decode_content=False, request_method=method
    )


def ask_registry(data: bytes) -> None:
    choices = Choices(data)
    login = {"auths": {_HOST: {"auth": base64.b64encode(f"me:{_SECRET}".encode()).decode()}}}
    if choices.below(3) == 0:
        login = {"auths": {_HOST: {"identitytoken": _SECRET}}}
    path = SCRATCH.file(json.dumps(login).encode(), "auth.json")
    blob = Descriptor("x", digest_of(_BLOB), len(_BLOB))
    access = Access(authfile=path, tls_verify=True, retry=_ACCESS.retry)
    with RegistryStore(_HOST, "a", access, write=bool(choices.below(2))) as store:
        store._client._managers[""] = cast(urllib3.PoolManager, _Registry(choices))
        found: list[bytes] = []
        for read in (
            store.tags,
            lambda: store.resolve("1"),
            lambda: found.append(store.read_at(blob, 0, len(_BLOB))),
            lambda: found.append(store.open_blob(blob).read()),
            lambda: store.referrers(digest_of(_MANIFEST)),
            lambda: store.put_blob_bytes("x", _BLOB),
            lambda: store.put_manifest(_MANIFEST, "1"),
            lambda: store.mount_blob(blob, "b"),
            lambda: store.delete("1"),
        ):
            try:
                read()
            except OcickptError as error:
                if _SECRET in f"{error.message} {error.hint}":
                    raise Find(f"the password is shown: {error.message}") from error


def registry_seeds() -> Iterator[bytes]:
    for number in range(32):
        yield bytes((number * 29 + at * (number + 3) * 5 + at * at) % 256 for at in range(60))


def read_challenge(data: bytes) -> None:
    """A header, a line feed, and what its token server answers."""
    header, _, answer = data.partition(b"\n")
    text = header.decode("latin-1")
    parse_challenges([text, text])

    def fetch(method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> tuple[int, bytes]:
        if origin(url) != origin(f"https://{_HOST}") and (
            "Authorization" in headers or (body and _SECRET.encode() in body)
        ):
            raise Find(f"the password is sent to {url}")
        return 200, answer

    for found in (None, Credentials("me", _SECRET), Credentials(identity_token=_SECRET)):
        made = Authenticator(_HOST, lambda: found, fetch, lambda realm: origin(realm) == origin(f"https://{_HOST}"))  # noqa: B023
        made.learn([text])
        made.header(("a",))


def challenge_seeds() -> Iterator[bytes]:
    yield b'Bearer realm="https://reg.example/token?x=1,2",service="a",scope="a"\n{"token": "abc", "expires_in": 9}'
    yield b'Basic realm="a \\"b\\"", Bearer realm=https://t/token\n{"access_token": "abc"}'
    yield b'Bearer realm="https://evil.example\\\\@reg.example/token"\n{}'


def read_credentials(data: bytes) -> None:
    path = SCRATCH.file(data)
    for registry, repository in ((_HOST, "a/b"), ("docker.io", "library/x")):
        credentials.find(registry, repository, path)


def credential_seeds() -> Iterator[bytes]:
    entry = {"auth": base64.b64encode(b"me:pass").decode()}
    yield json.dumps({"auths": {_HOST: entry, "https://index.docker.io/v1/": {"identitytoken": "t"}}}).encode()
    yield json.dumps({"auths": {f"{_HOST}/a": {}}, "credHelpers": {_HOST: "no-such-helper/"}}).encode()


def read_host_config(data: bytes) -> None:
    config.load(SCRATCH.file(data))


def host_config_seeds() -> Iterator[bytes]:
    yield b'runtime = "crun"\npush = "background"\nrepository = "r/ck"\npatience = 0.5\n'
    yield b'[restore-on-start]\nallow = ["r/ck"]\n'
    yield b'[registry."reg.example:5000"]\ntoken-server = "auth.example:5001"\n'


def read_registries_conf(data: bytes) -> None:
    folder = SCRATCH.path / "system"
    folder.mkdir(exist_ok=True)
    (folder / "registries.conf").write_bytes(data)
    for registry, repository in ((_HOST, "a/b"), ("x.wild.example:5000", "a")):
        registries_conf.look_up(registry, repository, system=folder)


def registries_conf_seeds() -> Iterator[bytes]:
    yield (
        b'[[registry]]\nprefix = "reg.example/a"\nlocation = "other.example:5000/moved"\ninsecure = true\n'
        b'[[registry]]\nprefix = "*.wild.example"\nblocked = true\n'
    )


TARGETS: Final = {
    "registry": Target(ask_registry, registry_seeds, share=3),
    "challenge": Target(read_challenge, challenge_seeds),
    "credentials": Target(read_credentials, credential_seeds),
    "host-config": Target(read_host_config, host_config_seeds),
    "registries-conf": Target(read_registries_conf, registries_conf_seeds),
}
