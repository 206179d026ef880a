"""Credentials, tokens, TLS and registries.conf, against a registry that wants them."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

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


def test_a_helper(registry: Registry, store: RegistryStore, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = home / "bin"
    programs.mkdir()
    helper = programs / "docker-credential-test"
    answer = json.dumps({"ServerURL": registry.host, "Username": "me", "Secret": SECRET})
    helper.write_text(f'#!/bin/sh\n[ "$1" = get ] && [ "$(cat)" = {registry.host} ] && echo \'{answer}\'\n')
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    log_in(home, registry, "me:wrong").write_text(json.dumps({"credHelpers": {registry.host: "test"}}))
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
