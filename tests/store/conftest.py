"""Stores in every medium, each test with its own home, so that nobody's credentials are used."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ocickpt.model import Stage
from ocickpt.store import Access, Retry, Store
from ocickpt.store.layout import LayoutStore
from ocickpt.store.local import LocalStore
from ocickpt.store.registry import RegistryStore
from tests.store.registry_server import Registry, serve

FAST = Access(tls_verify=False, retry=Retry(attempts=5, base=0.005, ceiling=0.05, total=20))

MakeStore = Callable[[str], Store]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home; none of the variables that lead to credentials and configuration."""
    folder = tmp_path / "home"
    (folder / "run").mkdir(parents=True)
    (folder / "registries.conf").touch()
    for name in ("REGISTRY_AUTH_FILE", "DOCKER_CONFIG", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "REGISTRIES_CONFIG_PATH"):
        monkeypatch.delenv(name, raising=False)
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder / "run"))
    monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", str(folder / "registries.conf"))
    monkeypatch.setenv("OCICKPT_STORE", str(tmp_path / "local"))
    return folder


@pytest.fixture
def registry() -> Iterator[Registry]:
    with serve() as served:
        yield served


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="session")
def docker_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The real thing on a free loopback port: HOST:PORT."""
    folder = tmp_path_factory.mktemp("registry")
    host = f"127.0.0.1:{_free_port()}"
    (folder / "config.yml").write_text(
        "version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\n"
        f"storage: {{filesystem: {{rootdirectory: {folder}/data}}, delete: {{enabled: true}}}}\n"
        f"http: {{addr: '{host}'}}\n"
    )
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(["docker-registry", "serve", str(folder / "config.yml")], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(tuple_of(host), 1):
                break
            time.sleep(0.02)
        yield host
    finally:
        process.terminate()
        process.wait(10)


def tuple_of(host: str) -> tuple[str, int]:
    name, _, port = host.partition(":")
    return name, int(port)


@pytest.fixture(params=["layout", "local", "registry", pytest.param("docker-registry", marks=pytest.mark.lab)])
def make_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MakeStore]:
    """A function from a repository's name to a store of it, all in one place of one medium."""
    with contextlib.ExitStack() as stack:

        def make(repository: str) -> Store:
            store: Store
            if request.param == "layout":
                store = LayoutStore(tmp_path / "layouts" / repository, create=True)
            elif request.param == "local":
                store = LocalStore(repository=repository)
            elif request.param == "registry":
                store = RegistryStore(request.getfixturevalue("registry").host, repository, FAST, write=True)
            else:
                # One registry for the whole session: the test's name keeps repositories apart.
                prefix = tmp_path.name.lower().replace("_", "-").strip("-")
                store = RegistryStore(
                    request.getfixturevalue("docker_registry"), f"{prefix}/{repository}", FAST, write=True
                )
            stack.callback(store.close)
            return store

        yield make


@pytest.fixture
def store(make_store: MakeStore) -> Store:
    return make_store("web")


class Counted:
    """Progress that remembers."""

    def __init__(self) -> None:
        self.advanced = 0
        self.there = 0

    def stage(self, stage: Stage, of: str = "") -> None: ...

    def expect(self, size: int) -> None: ...

    def note(self, text: str) -> None: ...

    def advance(self, size: int) -> None:
        assert size > 0
        self.advanced += size

    def present(self, size: int) -> None:
        self.there += size


@pytest.fixture
def counted() -> Counted:
    return Counted()
