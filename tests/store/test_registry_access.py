"""Credentials, tokens, TLS and registries.conf, against a registry that wants them."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from ocickpt import config
from ocickpt.errors import AuthError, RegistryError, UsageError
from ocickpt.store import Access, Reference, open_store, registry, tls
from ocickpt.store.registry import RegistryStore
from tests.store.conftest import FAST
from tests.store.material import TYPE, data_of, put_artifact
from tests.store.registry_server import Registry, serve

SECRET = "s3cret:pa55"


def log_in(home: Path, registry: Registry, login: str = f"me:{SECRET}", **entry: str) -> Path:
    path = home / "run" / "containers" / "auth.json"
    path.parent.mkdir(exist_ok=True)
    encoded = {"auth": base64.b64encode(login.encode()).decode()} if login else {}
    path.write_text(json.dumps({"auths": {registry.host: encoded | entry}}))
    return path


@pytest.fixture
def store(registry: Registry) -> Iterator[RegistryStore]:
    registry.faults.login = f"me:{SECRET}"
    with RegistryStore(registry.host, "web", FAST) as store:
        yield store


@pytest.mark.parametrize("bearer", [True, False])
def test_logged_in(registry: Registry, store: RegistryStore, home: Path, bearer: bool) -> None:
    registry.faults.bearer = bearer
    log_in(home, registry)
    described, blobs = put_artifact(store, "1", b"{}", data_of(100_000))
    assert store.resolve("1")[0] == described
    with store.open_blob(blobs[1]) as stream:
        assert stream.read() == data_of(100_000)
    if bearer:
        scopes = {scope for scope, _ in registry.tokens.values() if scope}
        assert scopes == {"repository:web:pull,push"}


def test_reading_asks_for_no_more(registry: Registry, store: RegistryStore, home: Path) -> None:
    log_in(home, registry)
    assert store.tags() == []
    assert {scope for scope, _ in registry.tokens.values() if scope} == {"repository:web:pull"}


@pytest.mark.parametrize("bearer", [True, False])
@pytest.mark.parametrize("login", ["", "me:wrong"])
def test_not_logged_in(registry: Registry, store: RegistryStore, home: Path, bearer: bool, login: str) -> None:
    registry.faults.bearer = bearer
    if login:
        log_in(home, registry, login)
    with pytest.raises(AuthError) as caught:
        store.tags()
    assert caught.value.hint == f"`podman login {registry.host}` stores credentials that may do this"
    assert "wrong" not in str(caught.value)
    assert registry.host in caught.value.message


def test_forbidden(registry: Registry, store: RegistryStore, home: Path) -> None:
    log_in(home, registry)
    registry.faults.answers = [(403, "")]
    with pytest.raises(AuthError, match="does not permit the tags of"):
        store.tags()


def test_tokens_expire_during_a_long_push(registry: Registry, store: RegistryStore, home: Path) -> None:
    log_in(home, registry)
    registry.faults.token_uses = 3
    contents = [b"{}", *(data_of(300_000, seed) for seed in range(5))]
    described, _ = put_artifact(store, "1", *contents)
    assert store.resolve("1")[0] == described
    assert len(registry.asked("GET", "^/token")) >= 5


def test_identity_tokens(registry: Registry, home: Path) -> None:
    registry.faults.identity_token = "refresh-me"
    log_in(home, registry, login="", identitytoken="refresh-me")
    with RegistryStore(registry.host, "web", FAST) as store:
        put_artifact(store, "1", b"{}")
    assert registry.asked("POST", "^/token")


def add_helper(home: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = home / "bin"
    programs.mkdir()
    helper = programs / "docker-credential-test"
    answer = json.dumps({"ServerURL": registry.host, "Username": "me", "Secret": SECRET})
    helper.write_text(f'#!/bin/sh\n[ "$1" = get ] && [ "$(cat)" = {registry.host} ] && echo \'{answer}\'\n')
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    log_in(home, registry, "me:wrong").write_text(json.dumps({"credHelpers": {registry.host: "test"}}))


def test_a_helper(registry: Registry, store: RegistryStore, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_helper(home, registry, monkeypatch)
    assert store.tags() == []


def test_an_explicit_file(registry: Registry, home: Path) -> None:
    registry.faults.login = f"me:{SECRET}"
    path = log_in(home, registry)
    other = path.rename(home / "other.json")
    log_in(home, registry, "me:wrong")
    access = Access(authfile=other, tls_verify=False, retry=FAST.retry)
    with RegistryStore(registry.host, "web", access) as store:
        assert store.tags() == []


def test_redirects_do_not_carry_tokens(registry: Registry, store: RegistryStore, home: Path) -> None:
    log_in(home, registry)
    blob = store.put_blob_bytes(TYPE, b"content")
    with serve() as elsewhere:
        elsewhere.blobs = registry.blobs
        registry.faults.redirect_to = elsewhere.url
        assert store.read_at(blob, 0, 7) == b"content"
        assert elsewhere.log
        assert all("Authorization" not in seen.headers for seen in elsewhere.log)


def test_who_is_redirected_to_cannot_ask_for_credentials(registry: Registry, store: RegistryStore, home: Path) -> None:
    log_in(home, registry)
    blob = store.put_blob_bytes(TYPE, b"content")
    with serve() as elsewhere:
        elsewhere.faults.login = "another:login"
        registry.faults.redirect_to = elsewhere.url
        with pytest.raises(AuthError):
            store.read_at(blob, 0, 7)
        assert not elsewhere.asked("GET", "^/token")


# Token servers on other hosts.


@pytest.fixture
def elsewhere(registry: Registry) -> Iterator[Registry]:
    """A token server that is another; `registry` takes its tokens, and names it."""
    with serve() as served:
        served.tokens = registry.tokens
        served.faults.login = registry.faults.login = f"me:{SECRET}"
        registry.faults.realm = f"{served.url}/token"
        yield served


def trust(home: Path, monkeypatch: pytest.MonkeyPatch, registry: str, server: str) -> None:
    path = home / "config.toml"
    path.write_text(f'[registry."{registry}"]\ntoken-server = "{server}"\n')
    monkeypatch.setattr(config, "PATH", path)


def carries_no_secret(seen: Registry, secret: str = SECRET) -> bool:
    """Whether nothing that came in there had it, in no form, and not the user's name either."""
    encoded = base64.b64encode(f"me:{secret}".encode()).decode()
    everything = " ".join(f"{each.path} {each.headers} {each.body!r}" for each in seen.log)
    return not any(word in everything for word in (secret, quote(secret), encoded, "account=", "refresh_token"))


REALMS = {
    "another port": "{evil}/token",
    "another host": "http://localhost:{evil_port}/token",
    "the same host by another name": "http://localhost:{port}/token",
    "a trailing dot": "http://127.0.0.1.:{evil_port}/token",
    "a user's name": "http://{own}@{evil_host}/token",
    "a backslash": "http://{evil_host}\\\\@{own}/token",
    "a backslash before the path": "http://{evil_host}\\\\/@{own}/token",
    "another way to write the address": "http://127.1:{evil_port}/token",
    "IPv6": "http://[::ffff:127.0.0.1]:{evil_port}/token",
    "no scheme": "//{evil_host}/token",
    "an upper-case host": "http://LOCALHOST:{evil_port}/token",
    "a fragment": "{evil}/token#@{own}",
    "a query": "{evil}/token?@{own}/",
}


@pytest.mark.parametrize("credentials", ["password", "identity token", "helper"])
@pytest.mark.parametrize("realm", REALMS)
def test_another_token_server_gets_no_password(
    registry: Registry, elsewhere: Registry, home: Path, realm: str, credentials: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.faults.realm = REALMS[realm].format(
        own=registry.host,
        port=registry.host.rpartition(":")[2],
        evil=elsewhere.url,
        evil_host=elsewhere.host,
        evil_port=elsewhere.host.rpartition(":")[2],
    )
    if credentials == "password":
        log_in(home, registry)
    elif credentials == "identity token":
        log_in(home, registry, login="", identitytoken=SECRET)
    else:
        add_helper(home, registry, monkeypatch)
    with RegistryStore(registry.host, "web", FAST) as store, pytest.raises(RegistryError) as caught:
        store.tags()
    assert carries_no_secret(elsewhere)
    assert carries_no_secret(registry)
    assert SECRET not in f"{caught.value.message} {caught.value.hint}"


def test_what_refuses_a_password_says_how_to_allow_it(registry: Registry, elsewhere: Registry, home: Path) -> None:
    log_in(home, registry)
    with RegistryStore(registry.host, "web", FAST) as store, pytest.raises(AuthError) as caught:
        store.tags()
    assert caught.value.message == (
        f"{registry.host} wants its password for a token (repository:web:pull) sent to another server, "
        f"{elsewhere.host}, which was not done"
    )
    assert f'token-server = "{elsewhere.host}" below [registry."{registry.host}"]' in caught.value.hint
    assert "/etc/ocickpt/config.toml" in caught.value.hint


@pytest.mark.parametrize("identity_token", [False, True])
def test_a_token_server_that_is_configured_gets_the_password(
    registry: Registry, elsewhere: Registry, home: Path, monkeypatch: pytest.MonkeyPatch, identity_token: bool
) -> None:
    if identity_token:
        elsewhere.faults.identity_token = "refresh-me"
        log_in(home, registry, login="", identitytoken="refresh-me")
    else:
        log_in(home, registry)
    trust(home, monkeypatch, registry.host, elsewhere.host)
    with RegistryStore(registry.host, "web", FAST) as store:
        assert store.tags() == []
    assert elsewhere.asked("POST" if identity_token else "GET", "^/token")


def test_a_token_server_that_is_configured_for_another_registry(
    registry: Registry, elsewhere: Registry, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_in(home, registry)
    trust(home, monkeypatch, "reg.example", elsewhere.host)
    with RegistryStore(registry.host, "web", FAST) as store, pytest.raises(AuthError, match="another server"):
        store.tags()
    assert carries_no_secret(elsewhere)


def test_anybody_may_give_what_anybody_gets(registry: Registry, elsewhere: Registry, home: Path) -> None:
    """The token for anonymous users, of another server: what is public can be read, logged in or not."""
    elsewhere.faults.anonymous = True
    log_in(home, registry)
    with RegistryStore(registry.host, "web", FAST) as store:
        assert store.tags() == []
    assert elsewhere.asked("GET", "^/token")
    assert carries_no_secret(elsewhere)


def test_a_token_for_anybody_that_is_not_enough(registry: Registry, elsewhere: Registry, home: Path) -> None:
    elsewhere.faults.anonymous = True
    elsewhere.faults.token_uses = 0
    log_in(home, registry)
    with RegistryStore(registry.host, "web", FAST) as store, pytest.raises(AuthError, match="another server") as caught:
        store.tags()
    assert "token-server" in caught.value.hint
    assert carries_no_secret(elsewhere)


@pytest.mark.parametrize("identity_token", [False, True])
def test_a_token_server_cannot_send_the_password_on(registry: Registry, home: Path, identity_token: bool) -> None:
    registry.faults.login = f"me:{SECRET}"
    log_in(home, registry, *([""] if identity_token else []), **({"identitytoken": SECRET} if identity_token else {}))
    with serve() as elsewhere:
        registry.faults.redirect_tokens_to = f"{elsewhere.url}/token"
        with RegistryStore(registry.host, "web", FAST) as store, pytest.raises(AuthError, match="answers 307"):
            store.tags()
        assert elsewhere.log == []


@pytest.mark.lab
def test_a_password_does_not_leave_tls(certificate: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even for a token server that is configured."""
    with serve(certificate) as registry, serve() as plain:
        registry.faults.login = f"me:{SECRET}"
        registry.faults.realm = f"{plain.url}/token"
        log_in(home, registry)
        trust(home, monkeypatch, registry.host, plain.host)
        with RegistryStore(registry.host, "web", FAST) as store, pytest.raises(RegistryError, match="to plain http"):
            store.tags()
        assert plain.log == []


@pytest.mark.parametrize(
    "location", ["http://{evil}\\@{own}/blob", "http://{own}@{evil}/blob", "http://{evil}\\/@{own}/"]
)
def test_redirects_that_two_parsers_read_differently(
    registry: Registry, store: RegistryStore, home: Path, location: str
) -> None:
    log_in(home, registry)
    blob = store.put_blob_bytes(TYPE, b"content")
    with serve() as elsewhere:
        registry.faults.redirect_to = "=" + location.format(evil=elsewhere.host, own=registry.host)
        with pytest.raises(RegistryError, match="not a web address"):
            store.read_at(blob, 0, 7)
        assert elsewhere.log == []


# TLS.


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for 127.0.0.1 with its key, in one file."""
    folder = tmp_path_factory.mktemp("tls")
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=test"
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", f"{folder}/key", "-out", f"{folder}/crt"]
    subprocess.run([*command.split(), *names], check=True, capture_output=True)
    both = folder / "both"
    both.write_bytes((folder / "key").read_bytes() + (folder / "crt").read_bytes())
    return both


@pytest.mark.lab
def test_an_unknown_certificate(certificate: Path) -> None:
    with serve(certificate) as registry:
        with (
            RegistryStore(registry.host, "web", Access(retry=FAST.retry)) as store,
            pytest.raises(RegistryError, match="certificate cannot be trusted") as caught,
        ):
            store.tags()
        assert "--tls-verify=false" in caught.value.hint
        with RegistryStore(registry.host, "web", FAST) as store:
            put_artifact(store, "1", b"{}")
            assert store.tags() == ["1"]


@pytest.mark.lab
def test_a_certificate_in_certs_d(certificate: Path, home: Path) -> None:
    with serve(certificate) as registry:
        folder = home / ".config" / "containers" / "certs.d" / registry.host
        folder.mkdir(parents=True)
        shutil.copy(certificate, folder / "ca.crt")
        with RegistryStore(registry.host, "web", Access(tls_verify=True, retry=FAST.retry)) as store:
            assert store.tags() == []
        (folder / "ca.crt").write_text("nonsense")
        with RegistryStore(registry.host, "web", FAST) as store, pytest.raises(UsageError, match=r"ca\.crt"):
            store.tags()


@pytest.mark.lab
def test_certificates_are_looked_up_by_the_name_that_users_write(
    certificate: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """docker.io, not the server behind it; where `location` leads elsewhere, the name that stands there."""
    with serve(certificate) as served:
        monkeypatch.setattr(registry, "_HUB_SERVER", served.host)
        (home / "registries.conf").write_text(
            f'[[registry]]\nprefix = "good.example"\nlocation = "{served.host}"\n'
            '[[registry]]\nprefix = "hub.example"\nlocation = "docker.io/library"\n'
        )
        folders = home / ".config" / "containers" / "certs.d"
        for name, host in (("docker.io", "docker.io"), ("hub.example", "docker.io"), ("good.example", served.host)):
            with (
                RegistryStore(name, "web", Access(retry=FAST.retry)) as store,
                pytest.raises(RegistryError, match="certificate cannot be trusted") as caught,
            ):
                store.tags()
            assert caught.value.hint.endswith(f"/etc/containers/certs.d/{host}")
            (folders / host).mkdir(parents=True)
            shutil.copy(certificate, folders / host / "ca.crt")
            with RegistryStore(name, "web", Access(retry=FAST.retry)) as store:
                assert store.tags() == []
            shutil.rmtree(folders)


def test_certificates_that_nobody_may_see_are_as_if_not_there(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: Path, *_: object, **__: object) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_dir", refused)
    assert tls.context("reg.example", verify=True).check_hostname


@pytest.mark.lab
def test_tls_is_not_left(certificate: Path) -> None:
    with serve(certificate) as registry, serve() as plain, RegistryStore(registry.host, "web", FAST) as store:
        blob = store.put_blob_bytes(TYPE, b"content")
        registry.faults.redirect_to = plain.url
        with pytest.raises(RegistryError, match="from https to plain http"):
            store.read_at(blob, 0, 7)
        assert plain.log == []


def test_plain_http_must_be_permitted(registry: Registry, home: Path) -> None:
    with RegistryStore(registry.host, "web", Access(retry=FAST.retry)) as store:
        with pytest.raises(RegistryError, match="does not speak TLS"):
            store.tags()
        assert registry.log == []
    (home / "registries.conf").write_text(f'[[registry]]\nlocation = "{registry.host}"\ninsecure = true\n')
    with RegistryStore(registry.host, "web", Access(retry=FAST.retry)) as store:
        assert store.tags() == []
    with (
        RegistryStore(registry.host, "web", Access(tls_verify=True, retry=FAST.retry)) as store,
        pytest.raises(RegistryError),
    ):
        store.tags()


# registries.conf.


def test_blocked(home: Path) -> None:
    (home / "registries.conf").write_text('[[registry]]\nprefix = "bad.example/x"\nblocked = true\n')
    with pytest.raises(AuthError, match=r"blocks bad\.example/x/y"):
        open_store(Reference.parse("bad.example/x/y:1"))
    open_store(Reference.parse("bad.example/z:1")).close()


def test_reading_elsewhere(registry: Registry, home: Path) -> None:
    (home / "registries.conf").write_text(
        f'[[registry]]\nprefix = "good.example/a"\nlocation = "{registry.host}/b"\ninsecure = true\n'
    )
    with RegistryStore(registry.host, "b/web", FAST) as store:
        described, _ = put_artifact(store, "1", b"{}")
    read = open_store(Reference.parse("good.example/a/web:1"))
    assert read.name == "good.example/a/web"
    assert read.resolve("1")[0] == described
    read.close()
