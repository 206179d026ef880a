"""ocickpt as a user installs it: a wheel in a virtual environment, without the checkout."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.e2e.conftest import Host

PLACE = "/opt/ocickpt-test"
COMMAND, PYTHON = f"{PLACE}/bin/ocickpt", f"{PLACE}/bin/python"
COUNTER = ("localhost/python", "python3", "/counter.py")


@dataclass(frozen=True)
class Wheel:
    """The project's wheel, in the directory the hosts share."""

    path: str
    files: tuple[str, ...]


@pytest.fixture(scope="module")
def wheel(lab: dict[str, Host]) -> Iterator[Wheel]:
    a, directory = lab["a"], "/srv/share/wheel"
    # setuptools writes into the source tree, and the checkout is read-only in a host.
    a.sh(
        f"rm -rf {directory} /tmp/source && mkdir {directory} /tmp/source && cd /usr/src/ocickpt &&"
        " cp -a pyproject.toml README.md LICENSE ocickpt schemas tests contrib /tmp/source/ &&"
        f" pip wheel --quiet --no-deps --no-build-isolation --wheel-dir {directory} /tmp/source && rm -r /tmp/source"
    )
    path = a.sh(f"ls {directory}/ocickpt-*.whl")
    yield Wheel(path, tuple(a.out("python3", "-m", "zipfile", "--list", path).split()))
    a.run("rm", "-rf", directory)


@pytest.fixture
def installed(hosts: tuple[Host, Host], wheel: Wheel) -> Iterator[tuple[Host, Host]]:
    """Hosts a and b with the wheel in a virtual environment, and its launchers instead of the checkout's."""
    try:
        for host in hosts:
            host.ocickpt("setup", "--undo")
            host.run("python3", "-m", "venv", "--system-site-packages", "--without-pip", PLACE)
            host.sh(f"pip --python {PYTHON} install --quiet --no-index --no-deps --ignore-installed {wheel.path}")
            host.sh(f"cd / && {COMMAND} setup")
        yield hosts
    finally:
        for host in hosts:
            host.run("rm", "-rf", PLACE)
            host.ocickpt("setup")


def runtime_path(host: Host, runtime: str) -> str:
    return host.out("podman", "--runtime", runtime, "info", "--format", "{{.Host.OCIRuntime.Path}}")


def run(host: Host, runtime: str, *arguments: str) -> None:
    host.run("podman", "--runtime", runtime, "run", "--detach", "--name", "web", *arguments)


def test_the_wheel_has_what_it_needs_and_nothing_else(wheel: Wheel) -> None:
    for name in ("shim.py", "cli/main.py", "schemas/checkpoint-config.json", "schemas/checkpoint-manifest.json"):
        assert f"ocickpt/{name}" in wheel.files
    tops = {name.split("/")[0] for name in wheel.files if "/" in name}
    assert {name for name in tops if not name.endswith(".dist-info")} == {"ocickpt"}


def test_installed_it_works_without_the_checkout(installed: tuple[Host, Host], ref: str, runtime: str) -> None:
    a, b = installed
    where = "import ocickpt.schema as s; print(s.__file__); s.validate('checkpoint-config', {'version': 1}, 'it')"
    found = a.run("sh", "-c", f'cd / && {PYTHON} -c "{where}"', check=False)
    assert found.stdout.startswith(f"{PLACE}/lib/")
    assert "IntegrityError" in found.stderr
    launcher = a.out("cat", f"/usr/local/libexec/ocickpt/{runtime}")
    assert PYTHON in launcher
    assert "/usr/src/ocickpt" not in launcher
    assert runtime_path(a, runtime) == f"/usr/local/libexec/ocickpt/{runtime}"
    states = {each["name"]: each["state"] for each in json.loads(a.sh(f"{COMMAND} doctor --format json || true"))}
    assert states[f"shim of {runtime}"] == states["pycriu"] == "ok", states

    run(a, runtime, *COUNTER)
    address = a.address("web")
    assert [a.ask("web"), a.ask("web")] == ["0", "1"]
    made = a.run("sh", "-c", f"cd / && {COMMAND} checkpoint web {ref}")
    assert "not set up" not in made.stderr
    a.run("podman", "rm", "web")
    restored = b.run("sh", "-c", f"cd / && {COMMAND} restore {ref}")
    assert "not set up" not in restored.stderr
    assert b.address("web") == address
    assert b.ask("web") == "2"


def test_undone_podman_is_as_it_was(installed: tuple[Host, Host], runtime: str) -> None:
    a, _ = installed
    a.run(COMMAND, "setup", "--undo")
    assert runtime_path(a, runtime) in (f"/usr/bin/{runtime}", f"/usr/sbin/{runtime}")
    gone = a.sh("ls -d /usr/local/libexec/ocickpt /etc/containers/containers.conf.d/50-ocickpt.conf 2>/dev/null; true")
    assert gone == ""
    run(a, runtime, *COUNTER)
    assert a.ask("web") == "0"
    a.run("podman", "container", "checkpoint", "web")
    a.run("podman", "container", "restore", "web")
    assert a.ask("web") == "1"


@pytest.mark.parametrize(("runtime", "how"), [("runc", "pip uninstall"), ("crun", "rm")], indirect=["runtime"])
def test_uninstalled_without_undo_podman_goes_on(
    installed: tuple[Host, Host], ref: str, runtime: str, how: str
) -> None:
    a, _ = installed
    run(a, runtime, *COUNTER)
    assert a.ask("web") == "0"
    if how == "rm":
        a.run("rm", "-rf", PLACE)
    else:
        a.sh(f"pip --python {PYTHON} uninstall --quiet --yes ocickpt")
        assert a.run("test", "-e", COMMAND, check=False).returncode == 1
    # What an ocickpt that died leaves must not matter either.
    a.sh("mkdir -p /run/ocickpt/op && touch /run/ocickpt/op/$(podman inspect --format '{{.Id}}' web)")
    try:
        a.run("podman", "container", "checkpoint", "web")
        a.run("podman", "container", "restore", "web")
        assert a.ask("web") == "1"
        a.run("podman", "--runtime", runtime, "run", "--rm", "localhost/busybox", "true")
        assert a.execute("web", "echo", "here") == "here"
        # Installed anew, from elsewhere: it says what is the matter, and puts it right.
        made = a.ocickpt("checkpoint", "--leave-running", "web", ref)
        assert "not set up" in made.stderr
        assert "replaced" in a.ocickpt("setup").stdout
        assert "not set up" not in a.ocickpt("checkpoint", "web", ref).stderr
    finally:
        a.sh("rm -f /run/ocickpt/op/*")
