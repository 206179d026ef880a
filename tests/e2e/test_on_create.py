"""`podman run --annotation io.ocickpt.restore=…`: a container that was restored, not started."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

from tests.e2e.conftest import Host, Start, flip_a_bit, manifest_of, slow_down

COUNTER = ("localhost/python", "python3", "/counter.py")
LAUNCHERS = "/usr/local/libexec/ocickpt"
CONFIG = "/etc/ocickpt/config.toml"
one_runtime = pytest.mark.parametrize("runtime", ["crun"], indirect=True)


@pytest.fixture(autouse=True)
def allowed(hosts: tuple[Host, Host]) -> Iterator[None]:
    """Host b lets containers be restored from what tests push."""
    _, b = hosts
    b.sh(f"mkdir -p /etc/ocickpt; printf '[restore-on-start]\\nallow = [\"registry:5000/t\"]\\n' >{CONFIG}")
    yield
    b.run("rm", "-f", CONFIG)


def checkpointed(a: Host, ref: str) -> str:
    """The pinned reference of the container `web` on host a, which goes."""
    found = a.ocickpt("checkpoint", "--quiet", "web", ref).stdout.strip()
    a.run("podman", "rm", "web")
    return found


def run(b: Host, runtime: str, name: str, pinned: str, *options: str, check: bool = True) -> str:
    done = b.run(
        "podman", "--runtime", runtime, "run", "--detach", "--name", name,
        "--annotation", f"io.ocickpt.restore={pinned}", *options, *COUNTER, check=check,
    )  # fmt: skip
    return done.stdout.strip() if check else done.stderr


def test_it_goes_on_and_then_it_is_a_container_like_any_other(
    hosts: tuple[Host, Host], start: Start, ref: str, runtime: str
) -> None:
    a, b = hosts
    start("web", "-v", "data:/data", *COUNTER)
    assert [a.ask("web"), a.ask("web")] == ["0", "1"]
    a.execute("web", "sh", "-c", "echo kept >/data/file; echo changed >/etc/motd; rm /etc/issue; echo shm >/dev/shm/x")
    pinned = checkpointed(a, ref)
    run(b, runtime, "new", pinned, "-v", "data:/data", "--restart=always")
    assert b.ask("new") == "2"
    assert b.execute("new", "cat", "/data/file", "/etc/motd", "/dev/shm/x") == "kept\nchanged\nshm"
    assert b.run("podman", "exec", "new", "test", "-e", "/etc/issue", check=False).returncode == 1
    assert "GET /" in b.out("podman", "logs", "new")
    assert b.out("podman", "ps", "--format", "{{.Names}} {{.Command}}").startswith("new python3")
    assert not b.inspect("new")["State"].get("Restored")
    b.execute("new", "sh", "-c", "echo later >/etc/motd")

    # Once only: from here on it starts with its own files.
    b.run("podman", "stop", "--time", "0", "new")
    b.run("podman", "start", "new")
    assert [b.ask("new"), b.ask("new")] == ["0", "1"]
    assert b.execute("new", "cat", "/data/file", "/etc/motd") == "kept\nlater"
    b.run("podman", "exec", "new", "kill", "-KILL", "-1", check=False)
    b.sh("kill -KILL $(podman inspect -f '{{.State.Pid}}' new)")
    b.wait("sh", "-c", "test $(podman inspect -f '{{.RestartCount}}' new) = 1")
    assert b.ask("new") == "0"
    b.reboot()
    b.run("podman", "start", "new")
    assert b.ask("new") == "0"
    assert b.execute("new", "cat", "/data/file", "/etc/motd") == "kept\nlater"
    b.run("podman", "rm", "--force", "--time", "0", "new")
    b.run("podman", "volume", "rm", "data")


# The system log of a host that has none: a line for each message.
LOG = """
import socket
log = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
log.bind('/dev/log')
while True: print(log.recv(9999))
"""


@one_runtime
def test_what_a_file_lost_is_in_the_system_log(hosts: tuple[Host, Host], start: Start, ref: str, runtime: str) -> None:
    a, b = hosts
    start("web", "-v", "data:/data", *COUNTER)
    assert a.ask("web") == "0"
    a.sh("touch /var/lib/containers/storage/volumes/data/_data/file")
    a.sh("setfattr -n user.note -v x /var/lib/containers/storage/volumes/data/_data/file")
    pinned = checkpointed(a, ref)
    b.run("podman", "volume", "create", "--opt", "type=ramfs", "--opt", "device=ramfs", "data")  # takes no attributes
    b.sh(f'python3 -u -c "{LOG}" >/tmp/log 2>&1 & echo $! >/tmp/log.pid')
    try:
        b.wait("test", "-S", "/dev/log")
        run(b, runtime, "new", pinned, "-v", "data:/data")
        assert b.ask("new") == "1"
        log = b.out("cat", "/tmp/log")
    finally:
        b.sh("kill $(cat /tmp/log.pid); rm -f /dev/log /tmp/log /tmp/log.pid")
    name = b.inspect("new")["Id"][:12]
    assert f"container {name}: 1 extended attribute was lost, for volume data is on a filesystem" in log
    b.run("podman", "rm", "--force", "--time", "0", "new")
    b.run("podman", "volume", "rm", "data")


@one_runtime
def test_until_it_is_started_it_stands_still(hosts: tuple[Host, Host], start: Start, ref: str, runtime: str) -> None:
    a, b = hosts
    start("web", *COUNTER)
    assert a.ask("web") == "0"
    pinned = checkpointed(a, ref)
    b.run(
        "podman", "--runtime", runtime, "create", "--name", "new",
        "--annotation", f"io.ocickpt.restore={pinned}", *COUNTER,
    )  # fmt: skip
    b.run("podman", "init", "new")
    identity = b.inspect("new")["Id"]
    assert json.loads(b.out(f"{LAUNCHERS}/{runtime}", "state", identity))["status"] == "created"
    b.run("podman", "start", "new")
    assert b.ask("new") == "1"
    # Removed before it ever ran, it leaves nothing.
    b.run("podman", "rm", "--force", "--time", "0", "new")
    b.run("podman", "create", "--name", "new", "--annotation", f"io.ocickpt.restore={pinned}", *COUNTER)
    b.run("podman", "init", "new")
    b.run("podman", "rm", "--force", "--time", "0", "new")
    assert b.sh("ls /run/ocickpt/created") == ""


REFUSED: dict[str, tuple[Callable[[str], str] | None, list[str], str]] = {
    "a tag": (lambda pinned: pinned.partition("@")[0], [], "names no digest"),
    "another repository": (lambda pinned: pinned.replace("/t/", "/u/"), [], "does not allow"),
    "fewer mounts": (None, [], "does not mount /data"),
    "more mounts": (None, ["-v", "data:/data", "--tmpfs", "/more"], "knows no mount at /more"),
    "a volume with content": (None, ["-v", "data:/data"], "has content already"),
    "fewer capabilities": (None, ["-v", "data:/data", "--cap-drop", "kill"], "lacks the"),
    "another network": (None, ["-v", "data:/data", "--network", "host"], "namespace network"),
}


@one_runtime
def test_what_does_not_fit_is_refused(hosts: tuple[Host, Host], start: Start, ref: str, runtime: str) -> None:
    a, b = hosts
    start("web", "-v", "data:/data", *COUNTER)
    a.ask("web")
    pinned = checkpointed(a, ref)
    for name, (change, options, word) in REFUSED.items():
        if name == "a volume with content":
            b.sh("podman volume create data >/dev/null; touch $(podman volume inspect -f '{{.Mountpoint}}' data)/x")
        said = run(b, runtime, "new", change(pinned) if change else pinned, *options, check=False)
        assert word in said, name
        assert b.inspect("new")["State"]["Pid"] == 0
        b.run("podman", "rm", "new")
        b.run("podman", "volume", "rm", "data", check=False)
        assert b.leftovers() == []
    b.sh(f"echo 'restore-on-start = 7' >{CONFIG}")
    assert f"{CONFIG}" in run(b, runtime, "new", pinned, "-v", "data:/data", check=False)
    b.run("podman", "rm", "new")
    b.run("podman", "run", "--rm", *COUNTER[:1], "true")
    b.run("rm", CONFIG)
    assert "does not allow" in run(b, runtime, "new", pinned, "-v", "data:/data", check=False)


@one_runtime
def test_an_altered_bit_is_noticed_before_anything_runs(
    hosts: tuple[Host, Host], start: Start, ref: str, runtime: str
) -> None:
    a, b = hosts
    start("web", *COUNTER)
    a.ask("web")
    pinned = checkpointed(a, ref)
    manifest = manifest_of(b, pinned)
    for blob in (manifest["config"], *manifest["layers"]):
        flip_a_bit(blob["digest"])
        b.forget()
        said = run(b, runtime, "new", pinned, check=False)
        assert "sha256:" in said or "digest" in said or "does not match" in said, (blob["mediaType"], said)
        assert b.inspect("new")["State"]["Pid"] == 0
        b.run("podman", "rm", "new")
        flip_a_bit(blob["digest"])
    run(b, runtime, "new", pinned)
    assert b.ask("new") == "1"


@one_runtime
def test_fifty_copies(hosts: tuple[Host, Host], start: Start, ref: str, runtime: str) -> None:
    a, b = hosts
    start("web", *COUNTER)
    assert a.ask("web") == "0"
    pinned = checkpointed(a, ref)
    size = sum(layer["size"] for layer in manifest_of(b, pinned)["layers"])
    received = "cat /sys/class/net/eth0/statistics/rx_bytes"
    before = int(b.sh(received))
    b.sh(
        f"seq 50 | xargs -P 10 -I N podman --runtime {runtime} run --detach --name copy-N"
        f" --annotation io.ocickpt.restore={pinned} {' '.join(COUNTER)}"
    )
    # Each asks for the manifest, and all for the chunks once.
    assert int(b.sh(received)) - before < 2 * size
    answers = b.sh(
        "for c in $(podman ps --format '{{.Names}}'); do"
        " curl -s $(podman inspect -f '{{.NetworkSettings.IPAddress}}' $c):8080; echo; done"
    )
    assert answers.split() == ["1"] * 50


BUNDLE = """
    set -e
    podman create --name plain {image} python3 /counter.py; podman init plain
    root=$(podman mount plain); static=$(podman inspect -f '{{{{.StaticDir}}}}' plain)
    mkdir /tmp/plain /tmp/plain/shm; ip netns add plain; ip -n plain link set lo up
    python3 - $static $root {pinned} <<'END'
import json, sys
static, root, pinned = sys.argv[1:]
spec = json.load(open(static + "/config.json"))
spec["root"]["path"], spec["linux"]["cgroupsPath"] = root, "/plain"
spec["annotations"] = {{"io.ocickpt.restore": pinned}}
for namespace in spec["linux"]["namespaces"]:
    if namespace["type"] == "network":
        namespace["path"] = "/run/netns/plain"
json.dump(spec, open("/tmp/plain/config.json", "w"))
END
"""


def test_without_any_engine(hosts: tuple[Host, Host], start: Start, ref: str, runtime: str) -> None:
    a, b = hosts
    start("web", *COUNTER)
    assert a.ask("web") == "0"
    pinned = checkpointed(a, ref)
    b.sh(BUNDLE.format(image=COUNTER[0], pinned=pinned))
    program = f"{LAUNCHERS}/{runtime}"
    try:
        b.sh(f"cd /tmp/plain; {program} create --pid-file pid plain </dev/null >out 2>&1")
        assert json.loads(b.out(program, "state", "plain"))["status"] == "created"
        b.run(program, "start", "plain")
        assert b.wait("ip", "netns", "exec", "plain", "curl", "-sf", "http://127.0.0.1:8080/") == "1"
        b.run(program, "kill", "plain", "KILL")
        b.wait("sh", "-c", f"{program} state plain | grep -q stopped")
        b.run(program, "delete", "plain")
        # The same container, started again.
        b.sh(f"cd /tmp/plain; {program} create plain </dev/null >out 2>&1; {program} start plain")
        assert b.wait("ip", "netns", "exec", "plain", "curl", "-sf", "http://127.0.0.1:8080/") == "0"
        # Restored once more, and given up before it runs.
        b.run(program, "delete", "--force", "plain")
        b.sh(f"cd /tmp/plain; rm ocickpt-restored; {program} create plain </dev/null >out 2>&1")
        b.run(program, "delete", "-f", "plain")
        assert b.run(program, "state", "plain", check=False).returncode != 0
        assert b.sh("ls /run/ocickpt/created") == ""
    finally:
        b.run(program, "delete", "--force", "plain", check=False)
        b.run("podman", "umount", "plain", check=False)
        b.sh("ip netns del plain; rm -rf /tmp/plain")


@one_runtime
def test_a_host_does_for_it_what_its_owner_asked(
    hosts: tuple[Host, Host], start: Start, ref: str, runtime: str
) -> None:
    """What the checkpointed one had of its host (ports, a restart policy, labels, a limit) nobody asks for here."""
    a, b = hosts
    asks = ("-p", "8080:8080", "--restart=always", "--stop-timeout", "60")
    start("web", *asks, "--label", "PODMAN_SYSTEMD_UNIT=sshd.service", *COUNTER)
    assert a.ask("web") == "0"
    pinned = checkpointed(a, ref)
    assert b.refused("restore", ref)[1::2] == [
        "port=8080", "restart=always", "label=PODMAN_SYSTEMD_UNIT=sshd.service", "stop-timeout=60",
    ]  # fmt: skip
    run(b, runtime, "new", pinned, "-p", "8081:8080")
    assert b.out("curl", "-fsS", "http://localhost:8081/") == "1"
    found = b.inspect("new")
    assert found["HostConfig"]["RestartPolicy"]["Name"] in ("", "no")
    assert found["HostConfig"]["PortBindings"].keys() == {"8080/tcp"}
    assert [each["HostPort"] for each in found["HostConfig"]["PortBindings"]["8080/tcp"]] == ["8081"]
    assert "PODMAN_SYSTEMD_UNIT" not in (found["Config"]["Labels"] or {})
    assert found["Config"]["StopTimeout"] == 10


@one_runtime
def test_an_image_has_no_say(hosts: tuple[Host, Host], start: Start, ref: str, runtime: str) -> None:
    a, b = hosts
    start("web", *COUNTER)
    assert a.ask("web") == "0"
    pinned = checkpointed(a, ref)
    asks = f"--annotation io.ocickpt.restore={pinned} --label io.ocickpt.restore={pinned}"
    b.sh(f"echo FROM {COUNTER[0]} | podman build --quiet {asks} --tag localhost/asks -")
    try:
        image = json.loads(b.out("podman", "image", "inspect", "localhost/asks"))[0]
        assert image["Annotations"]["io.ocickpt.restore"] == image["Labels"]["io.ocickpt.restore"] == pinned
        b.run("podman", "--runtime", runtime, "run", "--detach", "--name", "new", "localhost/asks", *COUNTER[1:])
        assert b.ask("new") == "0"
    finally:
        b.run("podman", "rm", "--force", "--time", "0", "new")
        b.run("podman", "rmi", "localhost/asks")


def test_its_memory_may_follow(hosts: tuple[Host, Host], start: Start, ref: str, runtime: str, registry: Host) -> None:
    a, b = hosts
    memory = ("localhost/python", "python3", "/memory.py", "96")
    start("web", *memory)
    digest = a.ask("web", "/hash")
    pinned = checkpointed(a, ref)
    options = ["--annotation", f"io.ocickpt.restore={pinned}", "--annotation", "io.ocickpt.restore.lazy=true"]
    b.run("podman", "--runtime", runtime, "run", "--detach", "--name", "new", *options, *memory)
    assert b.ask("new", "/hash") == digest
    b.wait("sh", "-c", "test $(ocickpt status --format json) = '[]'")
    assert b.traces() == []
    # Without its memory it never runs.
    b.run("podman", "rm", "--force", "--time", "0", "new")
    slow_down(registry)
    b.run("podman", "--runtime", runtime, "create", "--name", "new", *options, *memory)
    b.run("podman", "init", "new")
    b.run("pkill", "-KILL", "-f", "import pageserver")
    b.wait("sh", "-c", "ocickpt status | grep 'page server died'")
    assert b.run("podman", "start", "new", check=False).returncode != 0
    b.run("podman", "rm", "--force", "--time", "0", "new")
    assert b.ocickpt("status", "--format", "json").stdout.strip() == "[]"


def test_processes_that_crun_forgets_end(hosts: tuple[Host, Host], start: Start, ref: str, runtime: str) -> None:
    """crun fails after CRIU has restored them: here for a limit whose controller the host has not."""
    a, b = hosts
    tree = ("localhost/python", "python3", "/workers.py")
    start("web", *tree)
    a.ask("web")
    pinned = checkpointed(a, ref)
    options = ("--memory", "64m", "--annotation", f"io.ocickpt.restore={pinned}")
    done = b.run("podman", "--runtime", runtime, "run", "--detach", "--name", "new", *options, *tree, check=False)
    assert done.returncode
    assert b.run("pgrep", "-f", "workers.py", check=False).stdout == ""
    b.run("podman", "rm", "new")
    assert b.leftovers() == []


def test_a_small_container_whose_memory_has_all_come_at_once(
    hosts: tuple[Host, Host], start: Start, ref: str, runtime: str
) -> None:
    """Its memory is there before it is confined; who restores it still has work to do in the same directory."""
    a, b = hosts
    busybox = ("localhost/busybox", "/counter.sh")
    start("web", *busybox)
    a.wait("podman", "exec", "web", "test", "-s", "/tmp/count")
    pinned = checkpointed(a, ref)
    options = ["--annotation", f"io.ocickpt.restore={pinned}", "--annotation", "io.ocickpt.restore.lazy=true"]
    for number in range(5):
        b.run("podman", "--runtime", runtime, "run", "--detach", "--name", f"new-{number}", *options, *busybox)
        b.wait("podman", "exec", f"new-{number}", "test", "-s", "/tmp/count")
    b.wait("sh", "-c", "test $(ocickpt status --format json) = '[]'")
    b.wait("sh", "-c", "! pgrep -f '[i]mport guard'")
    assert b.traces() == []
    assert b.sh("ls -d /var/lib/containers/storage/overlay-containers/*/userdata/ocickpt || true") == ""
