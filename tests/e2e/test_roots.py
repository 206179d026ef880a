"""Where podman keeps things, on hosts that are configured in unusual ways: as `podman info` says."""

from __future__ import annotations

import json
import subprocess

import pytest

from tests.e2e.conftest import Host

TOP = "/var/lib/containers/unusual"
# podman says the same directory now with a symlink in its path and now without.
ASK = """
import json, sys
from pathlib import Path
from ocickpt.engine.podman.roots import roots
found, said = roots(), json.loads(sys.stdin.read() or "null")
print([found.graph.resolve(), found.volumes.resolve(), *(each.resolve() for each in found.images)])
if said:
    stores = said["graphOptions"].get("overlay.additionalImageStores", [])
    print([Path(each).resolve() for each in (said["graphRoot"], said["volumePath"], said["graphRoot"], *stores)])
"""
STORES = 'additionalimagestores = ["/var/lib/lab-images/all", "/var/lib/lab-images/only-a"]'
# By name: what stands in storage.conf before [storage.options] and in it, in containers.conf, in the environment.
HOSTS = {
    "plain": ("", "", "", ""),
    'with"quote': ("", "", "", ""),
    "link/below": ("", "", "", ""),
    "not//clean/": ("", "", "", ""),
    "split": (f'imagestore = "{TOP}/images"', STORES, "", ""),
    "volumes": ("", "", f'[engine]\nvolume_path = "{TOP}/elsewhere"', ""),
    "transient": ("transient_store = true", "", "", ""),
    "driver": ("", "", "", "STORAGE_DRIVER=vfs"),
    "options": ("", "", "", "STORAGE_OPTS=overlay.imagestore=/var/lib/lab-images/all"),
}


class Unusual:
    """Host b, with a podman that is configured as one of HOSTS says."""

    def __init__(self, host: Host, name: str) -> None:
        self.host = host
        storage, options, engine, environment = HOSTS[name]
        paths = json.dumps(f"{TOP}/{name}"), json.dumps(f"/run/unusual/{name}")
        text = f'[storage]\ndriver = "overlay"\ngraphroot = {paths[0]}\nrunroot = {paths[1]}\n{storage}\n'
        self.write("storage.conf", f"{text}[storage.options]\n{options}\n")
        self.write("containers.conf", engine)
        self._env = [
            "env", f"CONTAINERS_STORAGE_CONF={TOP}/storage.conf", f"CONTAINERS_CONF_OVERRIDE={TOP}/containers.conf",
            "PYTHONPATH=/usr/src/ocickpt", *environment.split(),
        ]  # fmt: skip

    def write(self, name: str, text: str) -> None:
        self.host.run("sh", "-c", f"mkdir -p {TOP}/target; ln -sfn target {TOP}/link; cat >{TOP}/{name}", stdin=text)

    def roots(self, said: str = "", check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.host.run(*self._env, "python3", "-c", ASK, check=check, stdin=said)

    def info(self) -> str:
        return self.host.run(*self._env, "podman", "info", "--format", "{{json .Store}}").stdout

    def is_as_podman_says(self) -> bool:
        found, said = self.roots(self.info()).stdout.splitlines()
        return found == said


@pytest.fixture(params=HOSTS)
def unusual(hosts: tuple[Host, Host], request: pytest.FixtureRequest) -> Unusual:
    _, b = hosts
    request.addfinalizer(lambda: b.run("rm", "-rf", TOP, "/run/unusual"))
    return Unusual(b, request.param)


def test_it_is_as_podman_info_says(unusual: Unusual) -> None:
    unusual.roots()  # before podman was ever used there
    assert unusual.is_as_podman_says()


@pytest.mark.parametrize("unusual", ["volumes"], indirect=True)
def test_what_podman_has_on_record_is_what_counts(unusual: Unusual) -> None:
    unusual.roots()
    unusual.write("containers.conf", f'[engine]\nvolume_path = "{TOP}/moved"')
    assert unusual.is_as_podman_says()
    assert f"{TOP}/elsewhere" in unusual.roots().stdout


@pytest.mark.parametrize("unusual", ["volumes"], indirect=True)
def test_a_podman_that_does_not_work_says_why(unusual: Unusual) -> None:
    unusual.roots()
    unusual.write("containers.conf", "")
    assert "does not match our volume path" in unusual.roots(check=False).stderr
