"""Where credentials come from, what a registry may ask for, and what of it is shown."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from urllib3.exceptions import LocationParseError
from urllib3.util import parse_url

from ocickpt import config
from ocickpt.errors import AuthError, PrerequisiteError, RegistryError, UsageError
from ocickpt.store import credentials, registries_conf, token_servers
from ocickpt.store.addresses import PORTS, origin
from ocickpt.store.auth import Authenticator, Challenge, parse_challenges
from ocickpt.store.credentials import Credentials
from ocickpt.store.registries_conf import Place
from ocickpt.store.text import clean


def entry(login: str) -> dict[str, str]:
    return {"auth": base64.b64encode(login.encode()).decode()}


def write(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "me"
    folder.mkdir()
    for name in ("REGISTRY_AUTH_FILE", "DOCKER_CONFIG", "XDG_CONFIG_HOME", "CONTAINERS_REGISTRIES_CONF"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder / "run"))
    monkeypatch.setenv("PATH", str(folder / "bin"))
    return folder


def test_the_order_of_files(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = [
        home / ".docker/config.json",
        home / ".config/containers/auth.json",
        home / "run/containers/auth.json",
        home / "explicit.json",
        home / "given.json",
    ]
    assert credentials.find("reg.example", "web") is None
    for number, path in enumerate(places):
        write(path, {"auths": {"reg.example": entry(f"u{number}:p")}})
        if path.name == "explicit.json":
            monkeypatch.setenv("REGISTRY_AUTH_FILE", str(path))
        given = path if path.name == "given.json" else None
        assert credentials.find("reg.example", "web", given) == Credentials(f"u{number}", "p")


def test_docker_config(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(home / "elsewhere/config.json", {"auths": {"https://reg.example/v1/": entry("u:p:q")}})
    monkeypatch.setenv("DOCKER_CONFIG", str(home / "elsewhere"))
    assert credentials.find("reg.example", "web") == Credentials("u", "p:q")


def test_an_explicit_file_is_the_only_one(home: Path) -> None:
    write(home / ".docker/config.json", {"auths": {"reg.example": entry("u:p")}})
    write(home / "given.json", {"auths": {}})
    assert credentials.find("reg.example", "web", home / "given.json") is None
    with pytest.raises(AuthError, match="does not exist"):
        credentials.find("reg.example", "web", home / "missing.json")


def test_the_longest_prefix(home: Path) -> None:
    hosts = {"reg.example": "0", "reg.example/a": "1", "reg.example/a/b": "2", "reg.example/a/bc": "3", "a": "4"}
    write(home / "run/containers/auth.json", {"auths": {host: entry(f"u{n}:p") for host, n in hosts.items()}})
    for repository, number in (("a/b/c", 2), ("a/b", 2), ("a/bcd", 1), ("a", 1), ("b", 0)):
        assert credentials.find("reg.example", repository) == Credentials(f"u{number}", "p")
    assert credentials.find("reg.example:5000", "a") is None


def test_the_hub(home: Path) -> None:
    write(home / ".docker/config.json", {"auths": {"https://index.docker.io/v1/": entry("u:p")}})
    assert credentials.find("docker.io", "library/x") == Credentials("u", "p")


def helper(home: Path, name: str, script: str) -> None:
    (home / "bin").mkdir(exist_ok=True)
    path = home / "bin" / f"docker-credential-{name}"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_helpers(home: Path) -> None:
    config = home / "run/containers/auth.json"
    write(
        config,
        {
            "auths": {"reg.example": entry("file:p"), "other.example": {}},
            "credHelpers": {"reg.example": "one"},
            "credsStore": "two",
        },
    )
    helper(home, "one", 'read host; echo "{\\"Username\\":\\"$host\\",\\"Secret\\":\\"$1\\"}"')
    helper(home, "two", 'echo \'{"Username":"<token>","Secret":"t"}\'')
    assert credentials.find("reg.example", "web") == Credentials("reg.example", "get")
    assert credentials.find("other.example", "web") == Credentials(identity_token="t")
    helper(home, "two", "echo credentials not found in native keychain; exit 1")
    assert credentials.find("other.example", "web") is None
    helper(home, "two", "echo it is broken >&2; exit 1")
    with pytest.raises(AuthError, match="it is broken"):
        credentials.find("other.example", "web")
    helper(home, "two", "echo s3cret")
    with pytest.raises(AuthError) as caught:
        credentials.find("other.example", "web")
    assert "s3cret" not in caught.value.message
    write(config, {"credsStore": "three"})
    with pytest.raises(PrerequisiteError):
        credentials.find("other.example", "web")
    write(config, {"credsStore": "../../bin/sh"})
    with pytest.raises(AuthError, match="not the name"):
        credentials.find("other.example", "web")


@pytest.mark.parametrize("content", ["", "[]", "{s3cret", '{"auths": {"reg.example": {"auth": "s3cret!"}}}'])
def test_broken_files_are_not_quoted(home: Path, content: str) -> None:
    (home / "broken.json").write_text(content)
    with pytest.raises(AuthError, match=r"broken\.json") as caught:
        credentials.find("reg.example", "web", home / "broken.json")
    assert "s3cret" not in caught.value.message
    assert caught.value.__cause__ is None


def test_credentials_are_never_shown() -> None:
    shown = repr(Credentials("user", "pass", "token"))
    assert not any(word in shown for word in ("user", "pass", "token"))


# Challenges.


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ('Basic realm="x"', [Challenge("basic", {"realm": "x"})]),
        ("basic", [Challenge("basic", {})]),
        (
            'Bearer realm="https://a/t?x=1,2",service=reg,scope="repository:a:pull,push"',
            [Challenge("bearer", {"realm": "https://a/t?x=1,2", "service": "reg", "scope": "repository:a:pull,push"})],
        ),
        (
            'Basic realm="a \\"b\\"", Bearer realm="https://t"',
            [Challenge("basic", {"realm": 'a "b"'}), Challenge("bearer", {"realm": "https://t"})],
        ),
        ("Negotiate abc", []),
        ("", []),
    ],
)
def test_challenges(header: str, expected: list[Challenge]) -> None:
    assert parse_challenges([header]) == expected


@given(st.text())
def test_any_challenge_can_be_read(header: str) -> None:
    parse_challenges([header, "Bearer " + header])


def authenticator(answer: object, status: int = 200, realm: str = "https://t/token") -> Authenticator:
    def fetch(method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> tuple[int, bytes]:
        return status, answer if isinstance(answer, bytes) else json.dumps(answer).encode()

    made = Authenticator("reg.example", lambda: Credentials("me", "pass"), fetch, lambda realm: True)
    made.learn([f'Bearer realm="{realm}"'])
    return made


def test_tokens_are_kept_until_they_expire(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    asked: list[str] = []

    def fetch(method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> tuple[int, bytes]:
        asked.append(url)
        return 200, json.dumps({"access_token": f"t{len(asked)}", "expires_in": 100}).encode()

    one = Authenticator("reg.example", lambda: None, fetch, lambda realm: True)
    assert one.header(("a",)) == ""
    one.learn(['Bearer realm="https://t/token",service="s"'])
    assert [one.header(("a",)), one.header(("a",)), one.header(("b",))] == ["Bearer t1", "Bearer t1", "Bearer t2"]
    now[0] += 90
    assert one.header(("a",)) == "Bearer t3"
    assert one.refused(("a",), "Bearer t3", [])
    assert one.header(("a",)) == "Bearer t4"
    assert asked[0] == "https://t/token?service=s&scope=a"


@pytest.mark.parametrize(
    "answer", [b"", b"[]", b"{}", {"token": 1}, {"token": "a b"}, {"token": "a\r\nX: y"}, {"token": "ä"}, b"[" * 99999]
)
def test_unusable_tokens(answer: object) -> None:
    with pytest.raises(AuthError, match="no usable token"):
        authenticator(answer).header(("a",))


def test_token_services_that_are_none() -> None:
    with pytest.raises(AuthError, match="names no token service"):
        authenticator({}, realm="file:///etc/passwd").header(("a",))
    with pytest.raises(AuthError, match="token service answers 403") as caught:
        authenticator({}, 403).header(("a",))
    assert "pass" not in caught.value.message


# Token servers.


def configure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    path = tmp_path / "config.toml"
    path.write_text(text)
    monkeypatch.setattr(config, "PATH", path)


@pytest.mark.parametrize(
    ("registry", "own", "realm", "expected"),
    [
        ("reg.example", "https://reg.example", "https://reg.example/token", True),
        ("reg.example", "https://reg.example", "https://REG.example:443/token", True),
        ("reg.example", "https://reg.example", "https://reg.example:444/token", False),
        ("reg.example", "https://reg.example", "https://reg.example./token", False),
        ("reg.example", "https://reg.example", "https://auth.reg.example/token", False),
        ("reg.example", "https://reg.example", "https://reg.example.evil/token", False),
        ("reg.example:5000", "http://reg.example:5000", "http://reg.example:5000/token", True),
        ("reg.example:5000", "http://reg.example:5000", "https://reg.example:5000/token", False),
        ("reg.example:5000", "http://reg.example:5000", "http://reg.example/token", False),
        ("[::1]:5000", "https://[::1]:5000", "https://[::1]:5000/token", True),
        ("[::1]:5000", "https://[::1]:5000", "https://[::1]:5001/token", False),
        ("[::1]:5000", "https://[::1]:5000", "https://[::2]:5000/token", False),
        ("docker.io", "https://registry-1.docker.io", "https://auth.docker.io/token", True),
        ("registry-1.docker.io", "https://registry-1.docker.io", "https://auth.docker.io/token", True),
        ("docker.io", "https://registry-1.docker.io", "https://auth.docker.io:8443/token", False),
        ("docker.io", "http://registry-1.docker.io", "http://auth.docker.io/token", False),
        ("docker.io", "https://registry-1.docker.io", "https://auth.docker.io.evil/token", False),
        ("docker.io.evil", "https://docker.io.evil", "https://auth.docker.io/token", False),
        ("registry.gitlab.com", "https://registry.gitlab.com", "https://gitlab.com/jwt/auth", True),
        ("registry.redhat.io", "https://registry.redhat.io", "https://sso.redhat.com/auth/realms/x", True),
        ("known.example", "https://known.example", "https://auth.example/token", True),
        ("Known.example", "https://known.example", "https://AUTH.example/token", True),
        ("known.example", "https://known.example", "https://auth.example:8443/token", False),
        ("known.example", "https://known.example", "https://other.example/token", False),
        ("known.example:5000", "https://known.example:5000", "https://auth.example/token", False),
        ("port.example", "http://port.example", "http://auth.example:5001/token", True),
        ("port.example", "http://port.example", "http://auth.example/token", False),
        ("default.example", "https://default.example", "https://auth.example/token", True),
        ("six.example", "https://six.example", "https://[fd00::1]:5001/token", True),
    ],
)
def test_who_may_have_a_password(
    registry: str, own: str, realm: str, expected: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    servers = {"Known": "auth", "port": "auth.example:5001", "default": "auth.example:443", "six": "[fd00::1]:5001"}
    servers["Known"] = "auth.example"
    lines = (f'[registry."{name}.example"]\ntoken-server = "{server}"\n' for name, server in servers.items())
    configure(tmp_path, monkeypatch, "".join(lines))
    assert token_servers.may_have_password(registry, origin(own), origin(realm)) is expected


def test_a_broken_configuration_gives_nobody_a_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configure(tmp_path, monkeypatch, "[registry.x]\ntoken-servers = 'auth.example'\n")
    with pytest.raises(PrerequisiteError, match="token-servers"):
        token_servers.may_have_password("x", ("https", "x", 443), ("https", "auth.example", 443))


@pytest.mark.parametrize(
    "url",
    [
        "https://good@evil/token",
        "https://good:pass@evil/token",
        "https://evil\\@good/token",
        "https://evil\\.good/token",
        "https://good%2eevil/token",
        "https://good\N{IDEOGRAPHIC FULL STOP}evil/token",
        "https://good\t.evil/",
        "https://good evil/",
        "https:///good",
        "https://[::1%25eth0]/",
        "https://[good]evil/",
        "https://good:99999999/",
        "https://good:80:80/",
        "https://good\n",
        "ftp://good/",
        "//good/",
        "",
    ],
)
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(RegistryError, match="not a web address"):
        origin(url)


@given(st.from_regex(r"https?://[a-z0-9\[\]:@.\\\\%/?#_ -]{1,30}", fullmatch=True))
def test_who_is_compared_is_who_is_connected_to(url: str) -> None:
    """What passes leads the two parsers in play to the same place."""
    try:
        scheme, host, port = origin(url)
    except RegistryError:
        return
    try:
        connected = parse_url(url)
    except LocationParseError:
        return
    assert (connected.scheme, connected.host, connected.port or PORTS[scheme]) == (scheme, host, port)
    assert urlsplit(url).hostname == host.strip("[]")


# registries.conf.


def test_registries_conf(home: Path, tmp_path: Path) -> None:
    system = tmp_path / "etc"
    (system / "registries.conf.d").mkdir(parents=True)
    (system / "registries.conf").write_text(
        """
        unqualified-search-registries = ["x.example"]
        [[registry]]
        location = "reg.example"
        insecure = true
        [[registry]]
        prefix = "reg.example/team"
        location = "other.example:5000/moved"
        [[registry]]
        prefix = "*.wild.example"
        blocked = true
        [[registry]]
        prefix = "drop.example"
        insecure = true
        """
    )
    (system / "registries.conf.d" / "9.conf").write_text('[[registry]]\nprefix = "drop.example"\nblocked = true')

    def look_up(registry: str, repository: str) -> Place:
        return registries_conf.look_up(registry, repository, system=system)

    assert look_up("reg.example", "web") == Place("reg.example", "web", insecure=True)
    assert look_up("reg.example", "team/web") == Place("other.example:5000", "moved/web")
    assert look_up("reg.example", "teams/web") == Place("reg.example", "teams/web", insecure=True)
    assert look_up("reg.example:1", "web") == Place("reg.example:1", "web")
    assert look_up("a.b.wild.example:5000", "web").blocked
    assert not look_up("wild.example", "web").blocked
    assert look_up("drop.example", "web") == Place("drop.example", "web", blocked=True)
    user = home / ".config/containers/registries.conf"
    user.parent.mkdir(parents=True)
    user.write_text("")
    assert look_up("reg.example", "web") == Place("reg.example", "web")
    user.write_text("[[registry")
    with pytest.raises(UsageError, match=r"registries\.conf"):
        look_up("reg.example", "web")
    user.write_text("[[registry]]\ninsecure = true")
    with pytest.raises(UsageError, match="neither prefix nor location"):
        look_up("reg.example", "web")


# Text.


@given(st.text(), st.integers(1, 50))
def test_clean_text_cannot_move_a_terminal(text: str, limit: int) -> None:
    shown = clean(text, limit)
    assert len(shown) <= limit
    assert shown.isprintable()
