"""ocickpt as a user installs it: as README says, and as a wheel in a virtual environment; without the checkout."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.conftest import Host

PLACE = "/opt/ocickpt-test"
COMMAND, PYTHON = f"{PLACE}/bin/ocickpt", f"{PLACE}/bin/python"
ROOT = Path(__file__).parents[2]
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
    where = "import ocickpt; print(ocickpt.__file__); ocickpt.inspect('oci:/nowhere:x')"
    found = a.run("sh", "-c", f'cd / && {PYTHON} -c "{where}"', check=False)
    assert found.stdout.startswith(f"{PLACE}/lib/")
    assert "NotFoundError" in found.stderr
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


# The lab's own ocickpt, which a host would not have.
LABS = ("/usr/local/bin/ocickpt", "/usr/lib/python3/dist-packages/ocickpt.pth")
# No host has a way out: what pipx and pip would fetch comes from the wheels that Debian itself has.
OFFLINE = "PIP_NO_INDEX=1 PIP_FIND_LINKS=/usr/share/python-wheels PATH=/root/.local/bin:$PATH"
SOURCE = "/tmp/checkout"


def readme() -> list[list[str]]:
    """The commands in README's section on installing, block by block."""
    section = (ROOT / "README.md").read_text("utf-8").partition("## Install\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"^```\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    return [[line.partition("#")[0].strip() for line in block.splitlines()] for block in blocks]


@pytest.fixture
def bare(hosts: tuple[Host, Host]) -> Iterator[tuple[Host, Host]]:
    """Hosts a and b as they come: no ocickpt, and a checkout to install it from."""
    undo = (
        "apt-get purge --yes ocickpt; PATH=/root/.local/bin:$PATH pipx uninstall ocickpt; "
        f"rm -rf /root/.local {SOURCE}; for each in {' '.join(LABS)}; do mv $each.aside $each; done"
    )
    try:
        for host in hosts:
            host.ocickpt("setup", "--undo")
            host.sh(
                f"for each in {' '.join(LABS)}; do mv $each $each.aside; done; rm -rf {SOURCE}; mkdir {SOURCE};"
                f" cd /usr/src/ocickpt && cp -a pyproject.toml README.md LICENSE ocickpt schemas {SOURCE}"
            )
            assert host.run("sh", "-c", "cd / && ocickpt --version", check=False).returncode == 127
        yield hosts
    finally:
        for host in hosts:
            host.run("sh", "-c", undo, check=False)
            host.ocickpt("setup")


def install_deb(host: Host, commands: list[str]) -> None:
    make, apt = commands
    assert make.split()[0] == "make"
    subprocess.run(make.split(), cwd=ROOT, check=True, capture_output=True)
    (package,) = (ROOT / "dist").glob("*.deb")
    target = f"{SOURCE}/{package.relative_to(ROOT)}"
    with package.open("rb") as file:
        script = f"mkdir -p {Path(target).parent} && cat >{target}"
        subprocess.run(host.argv("sh", "-c", script), check=True, stdin=file)
    host.sh(f"cd {SOURCE} && {apt}")


def install_pipx(host: Host, commands: list[str]) -> None:
    (pipx,) = commands
    host.sh(f"cd {SOURCE} && {OFFLINE} {pipx}")


def moves(a: Host, b: Host, runtime: str, ref: str) -> None:
    """A container moves from a to b, with the launchers."""
    run(a, runtime, *COUNTER)
    assert a.ask("web") == "0"
    for host, command in ((a, f"checkpoint web {ref}"), (b, f"restore {ref}")):
        done = host.run("sh", "-c", f"cd / && {OFFLINE} ocickpt {command}")
        assert "not set up" not in done.stderr
    assert b.ask("web") == "1"


def test_readme_says_how_to_install_it() -> None:
    deb, pipx, after = readme()
    assert [each.split()[:2] for each in deb] == [["make", "deb"], ["apt", "install"]]
    assert [each.split()[:2] for each in pipx] == [["pipx", "install"]]
    assert after == ["ocickpt doctor", "ocickpt setup"]


@pytest.mark.parametrize(
    ("runtime", "way", "where"),
    [("runc", "deb", "/usr/lib/python3/dist-packages/"), ("crun", "pipx", "/root/.local/")],
    indirect=["runtime"],
)
def test_each_way_in_readme(bare: tuple[Host, Host], ref: str, runtime: str, way: str, where: str) -> None:
    deb, pipx, after = readme()
    for host in bare:
        if way == "deb":
            install_deb(host, deb)
        else:
            install_pipx(host, pipx)
        for command in after:
            host.sh(f"cd / && {OFFLINE} {command}")
        assert f"_ocickpt_shim={where}" in host.out("cat", f"/usr/local/libexec/ocickpt/{runtime}")
    moves(*bare, runtime, ref)


@pytest.mark.parametrize("how", ["apt-get remove --yes ocickpt", "dpkg --purge ocickpt"])
@pytest.mark.parametrize("runtime", ["crun"], indirect=True)
def test_the_debian_package_goes_and_podman_goes_on(bare: tuple[Host, Host], ref: str, runtime: str, how: str) -> None:
    a, b = bare
    for host in bare:
        install_deb(host, readme()[0])
        host.sh("cd / && ocickpt setup && ocickpt setup --hooks")
    amiss = [line.split()[-1] for line in a.out("dpkg", "--verify", "ocickpt").splitlines()]
    assert all(path.startswith(("/usr/share/doc", "/usr/share/man")) for path in amiss)  # the lab's hosts have none
    moves(a, b, runtime, ref)
    b.sh(how)
    gone = "/usr/lib/python3/dist-packages/ocickpt /usr/local/libexec/ocickpt /usr/bin/ocickpt"
    gone += " /etc/containers/containers.conf.d/50-ocickpt.conf /usr/share/containers/oci/hooks.d/ocickpt-*"
    assert b.sh(f"ls -d {gone} 2>/dev/null; true") == ""
    assert runtime_path(b, runtime) in (f"/usr/bin/{runtime}", f"/usr/sbin/{runtime}")
    assert b.ask("web") == "2"
    assert b.execute("web", "echo", "here") == "here"
    b.run("podman", "container", "checkpoint", "web")
    b.run("podman", "container", "restore", "web")
    assert b.ask("web") == "3"
    b.run("podman", "--runtime", runtime, "run", "--rm", "localhost/busybox", "true")


def test_a_debian_package_that_cannot_undo_its_setup_goes_all_the_same(bare: tuple[Host, Host]) -> None:
    a, _ = bare
    install_deb(a, readme()[0])
    a.sh("cd / && ocickpt setup && rm -r /usr/lib/python3/dist-packages/ocickpt/cli")
    assert "is still there" in a.out("apt-get", "remove", "--yes", "ocickpt")
    assert runtime_path(a, "crun") == "/usr/local/libexec/ocickpt/crun"
    run(a, "crun", *COUNTER)
    assert a.ask("web") == "0"
    a.run("podman", "container", "checkpoint", "web")
    a.run("podman", "container", "restore", "web")
    assert a.ask("web") == "1"


def test_removing_the_debian_package_leaves_the_setup_of_another(bare: tuple[Host, Host]) -> None:
    a, _ = bare
    install_pipx(a, readme()[1])
    a.sh(f"cd / && {OFFLINE} ocickpt setup")
    install_deb(a, readme()[0])
    a.sh("apt-get remove --yes ocickpt")
    assert "/root/.local/" in a.out("cat", "/usr/local/libexec/ocickpt/crun")
    a.sh(f"cd / && {OFFLINE} ocickpt setup --undo")


def test_wheel_and_debian_package_are_the_same(wheel: Wheel) -> None:
    subprocess.run(["make", "deb"], cwd=ROOT, check=True, capture_output=True)
    (package,) = (ROOT / "dist").glob("*.deb")
    listed = subprocess.run(["dpkg-deb", "--contents", package], check=True, capture_output=True, text=True).stdout
    place = "./usr/lib/python3/dist-packages/"
    packed = {line.split()[-1].removeprefix(place) for line in listed.splitlines() if place in line}
    assert {name for name in packed if not name.endswith("/") and name} == {
        name for name in wheel.files if name.startswith("ocickpt/")
    }
