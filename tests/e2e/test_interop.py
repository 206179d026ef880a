"""The artifact in other tools' hands, archives from and for podman, and every store as source and target."""

from __future__ import annotations

import json
import uuid
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from ocickpt import names
from tests import schema
from tests.e2e.conftest import REGISTRY, Host, Start

SECOND = "registry:5001"
COUNTER = ("localhost/python", "python3", "/counter.py")
MEMORY = ("localhost/python", "python3", "/memory.py", "16")
one_runtime = pytest.mark.parametrize("runtime", ["crun"], indirect=True)

# Each /change rewrites single pages all over, zeroes others, and grows.
CHANGING = """
import hashlib, mmap, os, web
memory = [mmap.mmap(-1, 24 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)]
memory[0].write(os.urandom(16 << 20))
def answer(path):
    if path == "/change":
        step = len(memory)
        for page in range(step, 4000, 50):
            memory[0][page * 4096 + 5 : page * 4096 + 13] = os.urandom(8)
        memory[0][step << 20 : (step << 20) + 40960] = bytes(40960)
        memory.append(mmap.mmap(-1, 1 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
        memory[-1].write(os.urandom(500000))
        return "changed"
    if path == "/hash":
        digest = hashlib.sha256()
        for each in memory:
            digest.update(each)
        return digest.hexdigest()
    return None
web.serve(answer)
"""


@pytest.fixture
def second() -> Iterator[str]:
    """Another registry, which no host's registries.conf knows."""
    host, root = Host("registry"), f"/var/tmp/{uuid.uuid4().hex}"
    pid = host.sh(
        f"REGISTRY_HTTP_ADDR=:5001 REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY={root} setsid docker-registry serve"
        f" /etc/docker/registry/config.yml </dev/null >/dev/null 2>&1 & echo $!"
    )
    host.wait("curl", "-fs", f"http://{SECOND}/v2/")
    yield SECOND
    host.run("kill", pid)
    host.run("rm", "-rf", root)


@pytest.fixture
def unwrapped(hosts: tuple[Host, Host]) -> Iterator[tuple[Host, Host]]:
    """Hosts a and b without the shim."""
    for host in hosts:
        host.ocickpt("setup", "--undo")
    yield hosts
    for host in hosts:
        host.ocickpt("setup")


def checkpoint(host: Host, *arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(host.ocickpt("checkpoint", "--format", "json", *arguments).stdout)
    return found


def inspect(host: Host, *arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(host.ocickpt("inspect", "--format", "json", *arguments).stdout)
    return found


def listed(host: Host, *arguments: str) -> dict[str, str]:
    """Names and digests that `ocickpt list` lists."""
    found = json.loads(host.ocickpt("list", "--format", "json", *arguments).stdout)
    return {each["name"]: each["digest"] for each in found}


def raw(host: Host, ref: str) -> str:
    return host.out("skopeo", "inspect", "--tls-verify=false", "--raw", ref)


def copy(host: Host, source: str, target: str) -> None:
    host.run("skopeo", "copy", "--quiet", "--src-tls-verify=false", "--dest-tls-verify=false", source, target)


def blobs(manifest: str) -> list[dict[str, Any]]:
    found = json.loads(manifest)
    return [found["config"], *found["layers"]]


def wrong_blobs(host: Host, registry: str, repository: str, manifest: str) -> list[str]:
    """Blobs in a registry that are not what the manifest says."""
    url = f"http://{registry}/v2/{repository}/blobs"
    lines = "\n".join(f"{blob['digest'].removeprefix('sha256:')} {blob['size']}" for blob in blobs(manifest))
    script = (
        "while read -r digest size; do"
        f' curl -fsS "{url}/sha256:$digest" >/tmp/blob;'
        ' echo "$digest  /tmp/blob" | sha256sum --check --quiet; [ "$(stat -c %s /tmp/blob)" = "$size" ] || echo size;'
        " done; rm -f /tmp/blob"
    )
    return host.run("sh", "-c", script, stdin=lines + "\n").stdout.splitlines()


@one_runtime
def test_copies_are_the_same_and_restore(
    hosts: tuple[Host, Host], start: Start, ref: str, shared: str, second: str
) -> None:
    a, b = hosts
    start("web", *MEMORY)
    want = a.ask("web", "/hash")
    published = checkpoint(a, "web", ref)
    a.run("podman", "rm", "web")
    original = raw(a, f"docker://{ref}")

    layout, elsewhere, beside = f"oci:{shared}/layout:x", f"{second}/other/place:2", f"{REGISTRY}/t/beside:3"
    copy(a, f"docker://{ref}", layout)
    copy(a, layout, f"docker://{elsewhere}")
    copy(a, f"docker://{elsewhere}", f"docker://{beside}")
    for place in (layout, f"docker://{elsewhere}", f"docker://{beside}"):
        assert raw(b, place) == original
    assert inspect(b, layout)["digest"] == published["digest"]
    files = a.sh(f"cd {shared}/layout/blobs/sha256 && sha256sum *").splitlines()
    assert all(line.split()[0] == line.split()[1] for line in files)
    digests = {blob["digest"].removeprefix("sha256:") for blob in blobs(original)}
    assert {line.split()[0] for line in files} == digests | {published["digest"].removeprefix("sha256:")}
    assert wrong_blobs(b, second, "other/place", original) == []
    assert wrong_blobs(b, REGISTRY, "t/beside", original) == []

    insecure = "--tls-verify=false"
    for number, source in enumerate(([layout], [insecure, elsewhere], [beside], [f"{beside}@{published['digest']}"])):
        b.ocickpt("restore", "--name", f"web{number}", *source)
        assert b.ask(f"web{number}", "/hash") == want
    assert listed(b, insecure, f"{second}/other/place") == {elsewhere: published["digest"]}


@one_runtime
def test_oras_and_zstd_read_it(hosts: tuple[Host, Host], start: Start, ref: str, shared: str) -> None:
    a, _ = hosts
    start("web", *MEMORY)
    a.ask("web", "/hash")
    published = checkpoint(a, "--leave-running", "web", ref)
    manifest = json.loads(a.out("oras", "manifest", "fetch", "--plain-http", ref))
    assert manifest["artifactType"] == names.ARTIFACT_TYPE
    assert a.out("oras", "resolve", "--plain-http", ref) == published["digest"]
    a.run("oras", "pull", "--plain-http", "--output", shared, ref)
    titles = [layer["annotations"][names.ANNOTATION_TITLE] for layer in manifest["layers"]]
    assert sorted(a.sh(f"ls {shared}").splitlines()) == sorted(titles)
    for layer, title in zip(manifest["layers"], titles, strict=True):
        assert a.sh(f"sha256sum <{shared}/{title}").split()[0] == layer["digest"].removeprefix("sha256:")

    packs = [title for title in titles if title.startswith("memory-")]
    assert packs
    unpacked = " ".join(f"{shared}/{pack}" for pack in packs)
    # What /memory.py has in every page, and nothing but whole pages.
    assert int(a.sh(f"zstd -dc {unpacked} | grep -ac 'page 00000'")) > 16 * 256
    assert int(a.sh(f"zstd -dc {unpacked} | wc -c")) % 4096 == 0
    a.run("zstd", "--test", *(f"{shared}/{title}" for title in titles if title.endswith(".zst")))


def test_podman_restores_what_is_pulled(unwrapped: tuple[Host, Host], start: Start, ref: str, shared: str) -> None:
    a, b = unwrapped
    a.ocickpt("setup")
    start("web", "--volume", "data:/data", *COUNTER)
    address = a.address("web")
    assert [a.ask("web"), a.ask("web")] == ["0", "1"]
    a.execute("web", "sh", "-c", "echo kept >/data/file; echo changed >/etc/motd; rm /etc/issue; chmod 750 /srv")
    checkpoint(a, "web", ref)
    a.run("podman", "rm", "web")
    archive = f"{shared}/web.tar"
    assert b.ocickpt("pull", "--output", archive, ref).stdout.strip() == archive
    assert b.leftovers() == []
    assert a.sh(f"ls -A {shared}") == "web.tar"

    b.run("podman", "container", "restore", "--import", archive)
    assert b.address("web") == address
    assert [b.ask("web"), b.ask("web")] == ["2", "3"]
    assert b.execute("web", "cat", "/data/file", "/etc/motd") == "kept\nchanged"
    assert b.run("podman", "exec", "web", "test", "-e", "/etc/issue", check=False).returncode == 1
    assert b.execute("web", "stat", "-c", "%a", "/srv") == "750"
    # Nothing of ours is in what podman restored.
    assert b.sh("find /var/lib/containers/storage/overlay-containers -name 'ocickpt*'") == ""


@one_runtime
def test_checkpointctl_reads_what_is_pulled(hosts: tuple[Host, Host], start: Start, ref: str, shared: str) -> None:
    """As much of it as of the archive that podman wrote, but for the mounts that podman makes anew."""
    a, _ = hosts
    start("web", *COUNTER)
    assert a.ask("web") == "0"
    a.run("podman", "container", "checkpoint", "--export", f"{shared}/podman.tar", "web")
    a.ocickpt("push", f"{shared}/podman.tar", ref)
    a.ocickpt("pull", "-o", f"{shared}/pulled.tar", ref)
    shown = a.out("checkpointctl", "show", f"{shared}/pulled.tar")
    assert all(word in shown for word in ("web", "localhost/python:latest", "crun", "Podman"))
    # The first line has the file's name in it, a tar's size depends on who wrote it, and checkpointctl shows
    # annotations in whatever order its map gives them, which changes the branches drawn before them too.
    podman, pulled = (
        Counter(line.replace("└", "├") for line in lines[1:] if "diff size" not in line)
        for name in ("podman", "pulled")
        for lines in [a.out("checkpointctl", "inspect", "--all", f"{shared}/{name}.tar").splitlines()]
    )
    assert any("CRIU dump statistics" in line for line in podman)
    made = sum("/userdata/" in line for line in podman.elements())
    assert pulled < podman
    assert (podman - pulled).total() == 3 * made, "destination, type and source of each"


@pytest.mark.parametrize(
    ("runtime", "compression"), [("runc", "none"), ("crun", "gzip"), ("crun", "zstd")], indirect=["runtime"]
)
def test_an_archive_of_podman_is_pushed(
    hosts: tuple[Host, Host], start: Start, runtime: str, ref: str, shared: str, compression: str
) -> None:
    a, b = hosts
    start("web", "--volume", "data:/data", *COUNTER)
    address = a.address("web")
    assert [a.ask("web"), a.ask("web")] == ["0", "1"]
    a.execute("web", "sh", "-c", "echo kept >/data/file; echo changed >/etc/motd; rm /etc/issue")
    a.run("podman", "container", "checkpoint", "--compress", compression, "--export", f"{shared}/web.tar", "web")
    a.run("podman", "rm", "web")

    # The host that pushes need not be the one it was made on.
    pushed = json.loads(b.ocickpt("push", "--format", "json", f"{shared}/web.tar", ref).stdout)
    description = inspect(b, ref)["description"]
    assert description["runtime"]["name"] == runtime
    assert description["container"]["name"] == "web"
    assert description["host"]["arch"] == b.out("dpkg", "--print-architecture")
    assert [description["host"][each] for each in ("kernel", "cgroup", "cpuFeatures", "distribution")] == [
        "",
        "",
        [],
        "",
    ]
    assert [description[each]["version"] for each in ("engine", "runtime", "criu")] == ["", "", ""]
    again = json.loads(b.ocickpt("push", "--format", "json", f"{shared}/web.tar", ref).stdout)
    assert again["sent"] * 4 < pushed["sent"]
    assert "not known on what CPU" in b.ocickpt("restore", ref).stderr
    assert b.address("web") == address
    assert [b.ask("web"), b.ask("web")] == ["2", "3"]
    assert b.execute("web", "cat", "/data/file", "/etc/motd") == "kept\nchanged"
    assert b.run("podman", "exec", "web", "test", "-e", "/etc/issue", check=False).returncode == 1


@one_runtime
def test_checkpoints_without_a_registry(hosts: tuple[Host, Host], start: Start, shared: str) -> None:
    a, b = hosts
    start("web", *COUNTER)
    assert a.ask("web") == "0"
    layout = f"oci:{shared}/new/layout"
    kept = checkpoint(a, "--leave-running", "web", f"{layout}:first")
    assert kept["reference"] == f"{layout}:first@{kept['digest']}"
    assert a.ask("web") == "1"
    again = checkpoint(a, "--leave-running", "web", f"{layout}:second")
    assert again["present"] > 0
    assert listed(b, layout) == {f"{layout}:first": kept["digest"], f"{layout}:second": again["digest"]}
    assert blobs(raw(b, f"{layout}:second"))
    for name, tag, answer in (("web1", "first", "1"), ("web2", "second", "2")):
        b.ocickpt("restore", "--name", name, f"{layout}:{tag}")
        assert b.ask(name) == answer
    b.ocickpt("rm", f"{layout}:first")
    assert listed(b, layout) == {f"{layout}:second": again["digest"]}
    b.ocickpt("restore", "--name", "web3", f"{layout}:second")
    assert b.ask("web3") == "2"

    local = checkpoint(a, "web", "web:1")
    a.run("podman", "rm", "web")
    assert local["reference"] == f"web:1@{local['digest']}"
    a.ocickpt("restore", "web:1")
    assert a.ask("web") == "2"
    assert a.sh("skopeo inspect --raw oci:/var/lib/ocickpt:web:1 | sha256sum").split()[0] in local["digest"]
    a.ocickpt("rm", "web:1")
    assert a.sh("ls /var/lib/ocickpt/blobs/sha256") == ""


@one_runtime
def test_every_verb_on_what_is_stored(hosts: tuple[Host, Host], start: Start, ref: str) -> None:
    a, b = hosts
    start("web", "--volume", "data:/data", *MEMORY)
    want = a.ask("web", "/hash")
    repository = ref.removesuffix(":1")
    made = checkpoint(a, "web", "web:1")
    a.run("podman", "rm", "web")
    assert listed(a) == {"web:1": made["digest"]}

    pushed = json.loads(a.ocickpt("push", "--format", "json", "web:1", ref).stdout)
    assert pushed["digest"] == made["digest"]
    assert pushed["sent"] == pushed["size"] == made["size"]
    second = json.loads(a.ocickpt("push", "--format", "json", f"web@{made['digest']}", f"{repository}:2").stdout)
    assert (second["sent"], second["present"]) == (0, made["size"])
    assert listed(b, repository) == {ref: made["digest"], f"{repository}:2": made["digest"]}

    name = repository.rpartition("/")[2]
    assert b.ocickpt("pull", ref).stdout.strip() == f"{name}:1@{made['digest']}"
    assert listed(b) == {f"{name}:1": made["digest"]}
    found = inspect(b, f"{name}:1")
    assert found["digest"] == made["digest"]
    assert found["manifest"] == inspect(b, ref)["manifest"]
    schema.validate("checkpoint-config", found["description"], "description")
    schema.validate("checkpoint-manifest", found["manifest"], "manifest")
    assert found["description"]["volumes"] == [{"name": "data", "destination": "/data"}]

    registry = Host("registry")
    registry.run("ocickpt", "list", repository)
    b.ocickpt("rm", ref)
    assert b.ocickpt("inspect", ref, check=False).returncode == 3
    b.ocickpt("restore", f"{name}:1")
    assert b.ask("web", "/hash") == want
    freed = json.loads(b.ocickpt("rm", "--format", "json", f"{name}:1").stdout)
    assert [each["freed"] for each in freed] == [made["size"]]
    assert listed(b) == {}
    assert b.sh("ls /var/lib/ocickpt/blobs/sha256") == ""
    a.ocickpt("rm", "web:1")


@pytest.mark.parametrize(
    ("runtime", "there", "here"),
    [("runc", False, False), ("crun", False, False), ("runc", True, False), ("crun", False, True)],
    ids=["neither-runc", "neither-crun", "a-runc", "b-crun"],
    indirect=["runtime"],
)
def test_without_the_shim(unwrapped: tuple[Host, Host], start: Start, ref: str, there: bool, here: bool) -> None:
    a, b = unwrapped
    for host, wanted in ((a, there), (b, here)):
        if wanted:
            host.ocickpt("setup")
    start("web", "--volume", "data:/data", *COUNTER)
    address = a.address("web")
    assert [a.ask("web"), a.ask("web")] == ["0", "1"]
    a.execute("web", "sh", "-c", "echo kept >/data/file; echo changed >/etc/motd; rm /etc/issue")

    made = a.ocickpt("checkpoint", "--leave-running", "web", ref)
    assert ("not set up" in made.stderr) is not there
    assert a.ask("web") == "2"
    a.ocickpt("checkpoint", "web", ref)
    a.run("podman", "rm", "web")
    # With a launcher for this one call where there is none: nothing is slower, and nothing of it stays.
    b.ocickpt("restore", ref)
    assert b.address("web") == address
    assert [b.ask("web"), b.ask("web")] == ["3", "4"]
    assert b.execute("web", "cat", "/data/file", "/etc/motd") == "kept\nchanged"
    assert b.run("podman", "exec", "web", "test", "-e", "/etc/issue", check=False).returncode == 1


def test_a_chain_under_one_tag(hosts: tuple[Host, Host], start: Start, ref: str) -> None:
    a, b = hosts
    start("web", "localhost/python", "python3", "-c", CHANGING)
    made, hashes = [], []
    for _ in range(3):
        assert a.ask("web", "/change") == "changed"
        hashes.append(a.ask("web", "/hash"))
        made.append(checkpoint(a, "--leave-running", "web", ref))
    assert len(set(hashes)) == 3
    assert all(each["sent"] * 2 < made[0]["sent"] for each in made[1:])
    assert [inspect(b, each["reference"])["description"]["parent"] for each in made] == [
        None,
        made[0]["digest"],
        made[1]["digest"],
    ]
    b.ocickpt("restore", ref)
    assert b.ask("web", "/hash") == hashes[2]
    # The earlier ones are whole without the later ones, and the other way round.
    b.ocickpt("restore", "--name", "first", made[0]["reference"])
    assert b.ask("first", "/hash") == hashes[0]
    b.ocickpt("rm", made[0]["reference"])
    b.ocickpt("restore", "--name", "second", made[1]["reference"])
    assert b.ask("second", "/hash") == hashes[1]


def test_there_and_back_again(hosts: tuple[Host, Host], start: Start, ref: str) -> None:
    a, b = hosts
    start("web", "--volume", "data:/data", *COUNTER)
    address = a.address("web")
    for answers, (host, other) in enumerate(((a, b), (b, a), (a, b), (b, a))):
        assert host.ask("web") == str(answers)
        host.execute("web", "sh", "-c", f"echo {answers} >>/data/file; echo {answers} >>/etc/motd; rm -f /etc/issue")
        checkpoint(host, "web", ref)
        host.run("podman", "rm", "web")
        host.run("podman", "volume", "rm", "data")
        other.ocickpt("restore", ref)
    assert a.address("web") == address
    assert a.ask("web") == "4"
    assert a.execute("web", "cat", "/data/file") == "0\n1\n2\n3"
    assert a.execute("web", "tail", "-n", "4", "/etc/motd") == "0\n1\n2\n3"


@one_runtime
def test_copies_with_ports_of_their_own(hosts: tuple[Host, Host], start: Start, ref: str) -> None:
    a, b = hosts
    start("web", *COUNTER)
    assert a.ask("web") == "0"
    checkpoint(a, "web", ref)
    for name, port in (("one", 8081), ("two", 8082)):
        b.ocickpt("restore", "--name", name, "--publish", f"{port}:8080", ref)
    assert a.out("curl", "-fsS", "http://b:8081/") == "1"
    assert a.out("curl", "-fsS", "http://b:8082/") == "1"
    assert b.out("curl", "-fsS", "http://localhost:8081/") == "2"

    taken = b.ocickpt("restore", "--name", "three", "-p", "8082:8080", ref, check=False)
    assert taken.returncode == 4
    assert "Traceback" not in taken.stderr
    assert b.run("podman", "container", "exists", "three", check=False).returncode == 1
    b.ocickpt("restore", "--name", "three", "-p", "8083:8080", ref)
    assert a.out("curl", "-fsS", "http://b:8083/") == "1"


@one_runtime
def test_a_published_port_comes_along(hosts: tuple[Host, Host], start: Start, ref: str) -> None:
    a, b = hosts
    start("web", "--publish", "8080:80", "localhost/nginx")
    page = a.wait("curl", "-fsS", "http://localhost:8080/")
    checkpoint(a, "web", ref)
    a.run("podman", "rm", "web")
    assert a.run("curl", "-fsS", "http://localhost:8080/", check=False).returncode == 7
    assert b.refused("restore", ref) == ["--allow", "port=8080"]
    b.ocickpt("restore", "--allow", "port=8080", ref)
    assert b.out("curl", "-fsS", "http://localhost:8080/") == page
    assert a.out("curl", "-fsS", "http://b:8080/") == page


def test_a_directory_of_the_host_is_mounted_not_carried(hosts: tuple[Host, Host], start: Start, ref: str) -> None:
    a, b = hosts
    path = f"/srv/bound-{uuid.uuid4().hex[:8]}"
    a.sh(f"mkdir {path}; echo 'of a' >{path}/file")
    try:
        start("web", "--volume", f"{path}:/bound", *COUNTER)
        assert a.ask("web") == "0"
        checkpoint(a, "web", ref)
        a.run("podman", "rm", "web")
        missing = b.ocickpt("restore", ref, check=False)
        assert missing.returncode == 7
        assert path in missing.stderr
        assert b.run("test", "-e", path, check=False).returncode == 1
        b.sh(f"mkdir {path}; echo 'of b' >{path}/file")
        assert b.refused("restore", ref) == ["--allow", f"mount={path}"]
        # Who may read it may not write to it.
        assert b.refused("restore", "--allow", f"mount={path}:ro", ref) == ["--allow", f"mount={path}"]
        restored = b.ocickpt("restore", "--allow", f"mount={path}", ref)
        assert path in restored.stderr
        assert b.ask("web") == "1"
        assert b.execute("web", "cat", "/bound/file") == "of b"
        b.execute("web", "sh", "-c", "echo written >/bound/file")
        assert b.out("cat", f"{path}/file") == "written"
        assert a.out("cat", f"{path}/file") == "of a"
    finally:
        for host in hosts:
            host.run("rm", "-rf", path)


@one_runtime
def test_what_is_no_checkpoint_of_ours(hosts: tuple[Host, Host], start: Start, ref: str, shared: str) -> None:
    a, b = hosts
    start("web", *COUNTER)
    assert a.ask("web") == "0"
    a.run("podman", "container", "checkpoint", "--leave-running", "--create-image", "localhost/checkpoint", "web")
    a.run("podman", "push", "--quiet", "localhost/checkpoint", f"docker://{ref}")
    a.run("podman", "rmi", "localhost/checkpoint")
    for arguments in (["restore", ref], ["inspect", ref], ["pull", ref], ["pull", "-o", f"{shared}/x.tar", ref]):
        refused = b.ocickpt(*arguments, check=False)
        assert refused.returncode == 6, refused.stderr
        assert "hint: " in refused.stderr
    assert listed(b, ref.removesuffix(":1")) == {}
    assert a.sh(f"ls -A {shared}") == ""
