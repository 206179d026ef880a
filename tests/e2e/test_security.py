"""A container is confined after a restore exactly as it was: as the kernel sees it, and when it tries."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from ocickpt.errors import PrerequisiteError
from tests.e2e.conftest import CONFIG, REGISTRY, Host, Move, Start

STATE = (Path(__file__).parent / "programs" / "state.py").read_text()
REFUSED = "77"
"""An error number that nothing but this profile gives."""
PROFILE = {
    "defaultAction": "SCMP_ACT_ALLOW",
    "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": int(REFUSED)}],
}
CUSTOM = (
    *("--security-opt", "seccomp=/run/profile.json", "--security-opt", "no-new-privileges"),
    *("--cap-drop", "all", "--cap-add", "KILL,SETPCAP,NET_BIND_SERVICE", "--security-opt", "mask=/srv"),
)
LINES = "grep -E '^(Cap|NoNewPrivs|Seccomp)' /proc/self/status"


@pytest.mark.parametrize("options", [CUSTOM, ()], ids=["custom", "default"])
def test_confinement_is_what_it_was(
    hosts: tuple[Host, Host], start: Start, move: Move, options: tuple[str, ...]
) -> None:
    a, b = hosts
    a.run("sh", "-c", "cat > /run/profile.json", stdin=json.dumps(PROFILE))
    start("confined", *options, "localhost/python", "python3", "-c", STATE)
    before = json.loads(a.ask("confined"))
    assert before["status"]["Seccomp"] == "2"
    if options:
        assert (before["status"]["NoNewPrivs"], before["status"]["CapBnd"]) == (
            "1",
            f"{1 << 5 | 1 << 8 | 1 << 10:016x}",
        )
        assert [a.ask("confined", "/call/mkdir"), a.ask("confined", "/call/chown")] == [REFUSED, "1"]
    executed = a.execute("confined", "sh", "-c", LINES)
    spec = json.loads(a.out("cat", f"{a.inspect('confined')['StaticDir']}/config.json"))

    # The profile allows more than podman's own.
    published = move("confined", asking=bool(options))
    assert json.loads(b.ask("confined")) == before
    assert b.execute("confined", "sh", "-c", LINES) == executed
    if options:
        assert [b.ask("confined", "/call/mkdir"), b.ask("confined", "/call/chown")] == [REFUSED, "1"]
        refused = b.run("podman", "exec", "confined", "mkdir", "/tmp/made", check=False)
        assert refused.returncode and "bad state" in refused.stderr
        assert "made" not in b.execute("confined", "ls", "/tmp")

    told = json.loads(b.ocickpt("inspect", "--format", "json", published["reference"]).stdout)["description"][
        "security"
    ]
    canonical = json.dumps(spec["linux"]["seccomp"], sort_keys=True, separators=(",", ":")).encode()
    assert told["seccomp"] == {"mode": "filter", "digest": f"sha256:{hashlib.sha256(canonical).hexdigest()}"}
    assert told["noNewPrivileges"] is bool(options)
    assert told["capabilities"]["bounding"] == spec["process"]["capabilities"]["bounding"]
    if options:
        assert {*told["capabilities"]["bounding"]} == {"CAP_KILL", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE"}

    # A start from anew, by podman alone, confines it no less.
    b.run("podman", "restart", "--time", "5", "confined")
    fresh = json.loads(b.ask("confined"))
    assert (fresh["status"], fresh["mounts"]) == (before["status"], before["mounts"])


OPEN = """
import sys
from pathlib import Path
from tests.hostile.changing import not_mounted
from tests.hostile.run import archive, members_of
members = members_of(Path(sys.argv[1]))
not_mounted("/proc/acpi")(members)
archive(members, Path(sys.argv[1]))
"""


def test_what_only_this_host_has_is_hidden_here(hosts: tuple[Host, Host], start: Start, ref: str, shared: str) -> None:
    """A checkpoint of a machine without /proc/acpi does not hide it."""
    a, b = hosts
    start("web", "localhost/busybox", "/counter.sh")
    a.wait("podman", "exec", "web", "test", "-s", "/tmp/count")
    assert a.execute("web", "sh", "-c", "ls /proc/acpi; grep -c ' /proc/acpi ' /proc/mounts") == "1"
    archive = f"{shared}/web.tar"
    a.run("podman", "container", "checkpoint", "--compress", "none", "--export", archive, "web")
    a.run("sh", "-c", f"cd /usr/src/ocickpt && PYTHONDONTWRITEBYTECODE=1 python3 -c '{OPEN}' {archive}")
    a.ocickpt("push", archive, ref)
    b.ocickpt("restore", ref)
    assert b.execute("web", "sh", "-c", "ls /proc/acpi; grep -c ' /proc/acpi ' /proc/mounts") == "1"


@pytest.fixture
def token(hosts: tuple[Host, Host]) -> Iterator[str]:
    """The name of a podman secret that both hosts have, each its own."""
    for host in hosts:
        host.run("podman", "secret", "create", "token", "-", stdin=f"the secret of {host.name}")
    yield "token"
    for host in hosts:
        host.run("podman", "rm", "--all", "--force", "--time", "0")
        host.run("podman", "secret", "rm", "token")


def test_secrets_are_those_of_the_host(
    hosts: tuple[Host, Host], start: Start, move: Move, token: str, ref: str
) -> None:
    _, b = hosts
    start("user", "--secret", token, "--secret", f"{token},target=a/b,mode=0400,uid=5", "localhost/busybox")
    move("user", asking=True)
    assert b.execute("user", "cat", "/run/secrets/token", "/run/secrets/a/b") == "the secret of b" * 2
    assert b.execute("user", "stat", "-c", "%a %u", "/run/secrets/a/b") == "400 5"
    b.run("podman", "rm", "--force", "--time", "0", "user")
    assert "the secret token" in b.ocickpt("restore", ref, check=False).stderr
    assert b.refused("pull", ref, "-o", "/srv/share/user.tar") == ["--allow", "secret=token"]
    b.ocickpt("pull", "--allow", "secret=token", ref, "-o", "/srv/share/user.tar")
    held = b.run("grep", "-c", "the secret of", "/srv/share/user.tar", check=False)
    b.run("rm", "/srv/share/user.tar")
    assert held.stdout.strip() == "0", "they are not in the checkpoint"


@pytest.fixture
def backend(hosts: tuple[Host, Host]) -> Iterator[str]:
    """The name of a network that both hosts have."""
    for host in hosts:
        host.run("podman", "network", "create", "backend")
    yield "backend"
    for host in hosts:
        host.clean()
        host.run("podman", "network", "rm", "backend")


@pytest.mark.parametrize("runtime", ["runc"], indirect=True)
def test_what_a_host_does_for_nobody_unasked(
    hosts: tuple[Host, Host], start: Start, ref: str, backend: str, shared: str
) -> None:
    """It is told, refused, and allowed in the same words, by whoever restores or by the host."""
    a, b = hosts
    start(
        *("web", "-p", "8080:80", "-p", "127.0.0.1:5353:53/udp", "--network", f"{backend}:alias=db"),
        *("--restart=always", "--label", "PODMAN_SYSTEMD_UNIT=sshd.service", "--label", "note=x"),
        *("--stop-timeout", "60", "--hostuser", "root", "localhost/nginx"),
    )
    page = a.wait("curl", "-fsS", "http://localhost:8080/")
    a.ocickpt("checkpoint", "web", ref)
    asks = [
        *("port=8080", "port=127.0.0.1:5353/udp", f"network={backend}:alias=db", "restart=always"),
        *("label=PODMAN_SYSTEMD_UNIT=sshd.service", "hostuser=root", "stop-timeout=60"),
    ]
    told = json.loads(b.ocickpt("inspect", "--format", "json", ref).stdout)
    assert sorted(each["option"] for each in told["asks_for"]) == sorted(asks)
    lines = b.ocickpt("inspect", ref).stdout.partition("Asks for")[2].splitlines()
    assert sorted(line.split()[0] for line in lines) == sorted(asks)

    options = b.refused("restore", ref)
    assert sorted(options[1::2]) == sorted(asks)
    archive = f"{shared}/web.tar"
    assert b.refused("pull", ref, "-o", archive) == options
    for missing in ("restart=always", "port=8080"):
        others = [word for each in asks if each != missing for word in ("--allow", each)]
        assert b.refused("restore", *others, ref) == ["--allow", missing]
    # A port of the caller's own takes the place of the checkpoint's.
    assert "port" not in " ".join(b.refused("restore", "-p", "8081:80", ref))
    assert (b.out("podman", "ps", "--all", "--quiet"), b.traces()) == ("", [])

    b.ocickpt("restore", *options, ref)
    assert b.out("curl", "-fsS", "http://localhost:8080/") == page
    found = b.inspect("web")
    assert found["HostConfig"]["RestartPolicy"]["Name"] == "always"
    assert found["Config"]["Labels"]["PODMAN_SYSTEMD_UNIT"] == "sshd.service"
    assert set(found["NetworkSettings"]["Networks"][backend]["Aliases"]) == {"db", found["Id"][:12]}
    b.run("podman", "rm", "--force", "--time", "0", "web")

    given = ", ".join(json.dumps(each) for each in asks if not each.startswith("port="))
    b.decides(f'[[allow]]\nrepository = "{REGISTRY}/t"\nasks = [{given}]\n')
    try:
        assert b.refused("restore", ref)[1::2] == [each for each in options[1::2] if each.startswith("port=")]
        b.ocickpt("restore", "--name", "copy", "--ignore-static-ip", "--ignore-static-mac", "-p", "8081:80", ref)
        assert b.out("curl", "-fsS", "http://localhost:8081/") == page
        copy = b.inspect("copy")
        # podman gives it its hostname as a name there, which stays what it was.
        names = {"db", found["Id"][:12], copy["Id"][:12]}
        assert set(copy["NetworkSettings"]["Networks"][backend]["Aliases"]) == names
        b.decides("[[allow]]\nrepository = 'x'\nasks = ['everything']\n")
        done = b.ocickpt("restore", *options, ref, check=False)
        assert done.returncode == PrerequisiteError.exit_code
        assert "'everything' says nothing that can be allowed" in done.stderr
    finally:
        b.run("rm", "-f", CONFIG)
