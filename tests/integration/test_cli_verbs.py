"""Every verb: its options become the flow's arguments, and what the flow returns is printed."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from ocickpt.artifact import Artifact
from ocickpt.asked import Asked
from ocickpt.cli.main import VERBS
from ocickpt.description import (
    Amounts,
    Capabilities,
    ContainerInfo,
    Contents,
    Criu,
    Description,
    Engine,
    HostInfo,
    IdMap,
    ImageInfo,
    Options,
    Runtime,
    Seccomp,
    Security,
    SELinux,
    UserNamespace,
    VolumeInfo,
)
from ocickpt.errors import UsageError
from ocickpt.hostsetup.doctor import Check
from ocickpt.library.catalog import Inspection, Listed, Removed
from ocickpt.library.pull import Pulled
from ocickpt.model import Descriptor, Kind, Manifest, Progress, Published, Stage
from ocickpt.restoration.options import Restored, RestoreOptions
from ocickpt.save.checkpoint import CheckpointOptions
from ocickpt.store import Access, Reference
from tests.integration.cli_bench import Bench

DIGEST = "sha256:" + "ab" * 32
REF = "registry.example.com/ck/web:1"
PINNED = f"{REF}@{DIGEST}"


def published(**_: Any) -> Published:
    return Published(PINNED, DIGEST, 1_200_000, 1_000_000, 200_000)


def test_checkpoint(ocickpt: Bench) -> None:
    calls = ocickpt.stand_in("save.checkpoint.checkpoint", published)
    done = ocickpt.run("checkpoint", "web", REF)
    assert (done.code, done.stdout) == (0, f"{PINNED}\n")
    assert calls[0]["container"] == "web"
    assert calls[0]["ref"] == REF
    assert calls[0]["options"] == CheckpointOptions()
    assert calls[0]["access"] == Access(authfile=None, tls_verify=None)


def test_checkpoint_with_every_option(ocickpt: Bench, tmp_path: Path) -> None:
    calls = ocickpt.stand_in("save.checkpoint.checkpoint", published)
    options = ["--leave-running", "--tcp-established", "--file-locks", "--ignore-rootfs", "--ignore-volumes"]
    authfile = tmp_path / "auth.json"
    done = ocickpt.run(
        "checkpoint", *options, "web", REF, "--authfile", str(authfile), "--tls-verify=false", "--format", "json", "-q"
    )
    assert done.code == 0
    seconds = done.json.pop("seconds")
    assert seconds >= 0
    told = {name: value for name, value in done.json.items() if name != "seconds"}
    assert told == {"reference": PINNED, "digest": DIGEST, "size": 1_200_000, "sent": 1_000_000, "present": 200_000}
    assert done.stderr == ""
    assert calls[0]["options"] == CheckpointOptions(True, True, True, True, True)
    assert calls[0]["access"] == Access(authfile=authfile, tls_verify=False)


def test_a_reference_is_pinned_once(ocickpt: Bench) -> None:
    ocickpt.stand_in("save.checkpoint.checkpoint", lambda **_: Published(REF, DIGEST, 1, 1, 0))
    assert ocickpt.run("checkpoint", "-R", "web", REF).stdout == f"{PINNED}\n"


@pytest.mark.parametrize(
    ("spelling", "meaning"),
    [
        (["--tls-verify"], True),
        (["--tls-verify=true"], True),
        (["--tls-verify=false"], False),
        (["--tls-verify=0"], False),
        ([], None),
    ],
)
def test_tls_verify_is_spelled_as_for_podman(ocickpt: Bench, spelling: list[str], meaning: bool | None) -> None:
    calls = ocickpt.stand_in("library.catalog.list_checkpoints", lambda **_: [])
    assert ocickpt.run("list", *spelling, "registry.example.com/ck").code == 0
    assert calls[0]["repo"] == "registry.example.com/ck"
    assert calls[0]["access"].tls_verify is meaning


def test_tls_verify_takes_nothing_else(ocickpt: Bench) -> None:
    done = ocickpt.run("list", "--tls-verify=perhaps")
    assert done.code == 2
    assert "'perhaps' is not a valid boolean" in done.stderr


def test_what_follows_two_dashes_is_no_option(ocickpt: Bench) -> None:
    calls = ocickpt.stand_in("save.checkpoint.checkpoint", published)
    assert ocickpt.run("checkpoint", "--", "--tls-verify", "--quiet").code == 0
    assert (calls[0]["container"], calls[0]["ref"]) == ("--tls-verify", "--quiet")


def test_restore(ocickpt: Bench) -> None:
    calls = ocickpt.stand_in("restoration.restore.restore", lambda **_: Restored("0123abc", "web", PINNED, DIGEST))
    done = ocickpt.run("restore", PINNED)
    assert (done.code, done.stdout) == (0, "0123abc\n")
    assert calls[0]["options"] == RestoreOptions()
    done = ocickpt.run(
        *("restore", "-n", "copy", "--tcp-established", "--ignore-static-ip", "--ignore-static-mac", "--ignore-rootfs"),
        *("--ignore-volumes", "-p", "8080:80", "--publish", "127.0.0.1::53/udp", "--format=json", PINNED),
    )
    assert calls[1]["options"] == RestoreOptions(
        name="copy",
        tcp_established=True,
        ignore_static_ip=True,
        ignore_static_mac=True,
        ignore_rootfs=True,
        ignore_volumes=True,
        publish=("8080:80", "127.0.0.1::53/udp"),
    )
    assert done.json == {"container_id": "0123abc", "name": "web", "reference": PINNED, "digest": DIGEST}


def test_push(ocickpt: Bench) -> None:
    calls = ocickpt.stand_in("library.push.push", published)
    assert ocickpt.run("push", "web.tar.zst", REF).stdout == f"{PINNED}\n"
    assert (calls[0]["source"], calls[0]["reference"]) == ("web.tar.zst", Reference.parse(REF))
    assert ocickpt.run("push", "web", REF, "--format", "json").json["sent"] == 1_000_000


def test_pull(ocickpt: Bench, tmp_path: Path) -> None:
    calls = ocickpt.stand_in("library.pull.pull", lambda **_: Pulled(PINNED, DIGEST, None))
    manifest = inspection(description()).manifest
    blob = Descriptor("manifest", DIGEST, 1)
    found = Artifact(Reference.parse(PINNED), blob, manifest, description())
    written = ocickpt.stand_in("exchange.podman_archive.write", lambda **_: found)
    assert ocickpt.run("pull", REF).stdout == f"{PINNED}\n"
    assert [each["reference"] for each in calls] == [Reference.parse(REF)]
    assert written == []
    useless = ocickpt.run("pull", "--allow", "port=8080", REF)
    assert (useless.code, len(calls)) == (UsageError.exit_code, 1)
    assert "--allow goes with -o" in useless.stderr
    file = tmp_path / "web.tar"
    assert ocickpt.run("pull", "-o", str(file), REF).stdout == f"{file}\n"
    assert (written[0]["reference"], written[0]["output"]) == (Reference.parse(REF), file)
    assert len(calls) == 1
    assert ocickpt.run("pull", "--output", str(file), REF, "--format=json").json == {
        "reference": PINNED,
        "digest": DIGEST,
        "path": str(file),
    }


def test_list(ocickpt: Bench) -> None:
    found = [
        Listed("web:1", DIGEST, "2026-01-02T03:04:05Z", "web", "localhost/python", 545_200_000, "", 1_500_000, DIGEST),
        Listed(REF, "", "", "db", "", 0, "unpublished: the registry was down"),
    ]
    calls = ocickpt.stand_in("library.catalog.list_checkpoints", lambda **_: found)
    done = ocickpt.run("list")
    assert done.stdout.splitlines() == [
        "NAME                           DIGEST               CREATED               CONTAINER  IMAGE"
        "                 SIZE     OWN  PARENT  STATE",
        "web:1                          sha256:abababababab  2026-01-02T03:04:05Z  web        localhost/python"
        "  545.2 MB  1.5 MB  1",
        "registry.example.com/ck/web:1                                             db"
        "                                0 B     0 B          unpublished: the registry was down",
    ]
    assert calls[0]["repo"] is None
    assert ocickpt.run("list", "--format=json").json[0] == {
        "name": "web:1",
        "digest": DIGEST,
        "created": "2026-01-02T03:04:05Z",
        "container": "web",
        "image": "localhost/python",
        "size": 545_200_000,
        "state": "",
        "own": 1_500_000,
        "parent": DIGEST,
    }


def test_an_empty_list(ocickpt: Bench) -> None:
    ocickpt.stand_in("library.catalog.list_checkpoints", lambda **_: [])
    assert ocickpt.run("list").stdout.split()[:2] == ["NAME", "DIGEST"]
    assert ocickpt.run("list", "--format", "json").json == []


def test_rm(ocickpt: Bench) -> None:
    calls = ocickpt.stand_in("library.catalog.remove", lambda ref, **_: Removed(ref, DIGEST, 5_000_000))
    done = ocickpt.run("rm", "web:1", "web:2")
    assert done.stdout == f"web:1@{DIGEST}\nweb:2@{DIGEST}\n"
    assert done.stderr == "5.0 MB freed\n5.0 MB freed\n"
    assert [call["ref"] for call in calls] == ["web:1", "web:2"]
    done = ocickpt.run("rm", "-q", "web:1", "--format=json")
    assert done.json == [{"reference": "web:1", "digest": DIGEST, "freed": 5_000_000}]
    assert done.stderr == ""
    assert ocickpt.run("rm").code == 2


def test_setup(ocickpt: Bench) -> None:
    calls = ocickpt.stand_in("hostsetup.setup.setup", lambda **_: ["/x: made", "/y: made"])
    assert ocickpt.run("setup").stdout == "/x: made\n/y: made\n"
    assert ocickpt.run("setup", "--undo", "--format", "json").json == ["/x: made", "/y: made"]
    assert [call["undo"] for call in calls] == [False, True]


def test_doctor(ocickpt: Bench) -> None:
    checks = [Check("podman", "ok", "5.4.2"), Check("skopeo", "warning", "not installed", "install skopeo")]
    ocickpt.stand_in("hostsetup.doctor.examine", lambda: checks)
    done = ocickpt.run("doctor")
    assert done.code == 0
    assert done.stdout.splitlines() == [
        "ok       podman  5.4.2",
        "warning  skopeo  not installed",
        "                 -> install skopeo",
    ]
    checks.append(Check("criu", "failed", "not installed", "install criu"))
    done = ocickpt.run("doctor", "--format=json")
    assert done.code == 10
    assert done.json[2] == {"name": "criu", "state": "failed", "found": "not installed", "remedy": "install criu"}
    assert "FAILED   criu    not installed" in ocickpt.run("doctor").stdout


def description(name: str = "web") -> Description:
    capabilities = ("CAP_CHOWN", "CAP_KILL")
    return Description(
        created="2026-01-02T03:04:05Z",
        container=ContainerInfo("c" * 64, name, "2026-01-01T00:00:00Z"),
        image=ImageInfo("localhost/python:latest", "d" * 64, DIGEST),
        engine=Engine("podman", "5.4.2"),
        runtime=Runtime("crun", "1.28"),
        criu=Criu("4.2.1"),
        host=HostInfo("amd64", "6.18.5", "v2", ("avx", "sse2"), 4096, "debian 13"),
        options=Options(leave_running=True, tcp_established=False, file_locks=False, rootfs=True, volumes=False),
        security=Security(
            selinux=SELinux("system_u:system_r:container_t:s0:c1,c2", "system_u:object_r:container_file_t:s0:c1,c2"),
            apparmor="containers-default",
            seccomp=Seccomp("filter", DIGEST),
            capabilities=Capabilities(
                bounding=capabilities, effective=capabilities, permitted=capabilities, inheritable=(), ambient=()
            ),
            no_new_privileges=True,
            user_namespace=UserNamespace((IdMap(0, 100_000, 65_536),), (IdMap(0, 200_000, 65_536),)),
            images_lsm="selinux",
        ),
        volumes=(VolumeInfo("data", "/var/lib/data"), VolumeInfo("cache", "/cache")),
        contents=Amounts(boot=Contents(40, 700_000), memory=Contents(1, 1_074_000_000), volume=Contents(0, 0)),
        parent=None,
    )


def inspection(told: Description) -> Inspection:
    packs = tuple(Descriptor(kind.media_type, DIGEST, size) for kind, size in ((Kind.BOOT, 90_000), (Kind.MEMORY, 5)))
    manifest = Manifest(Descriptor("config", DIGEST, 10), packs, "type", {"a": "b"})
    asks = (
        Asked("port", "8080", "the port 8080 of the host"),
        Asked("device-cgroup-rule", "b 8:* rw", "the devices b 8:* rw of the host"),
    )
    return Inspection(REF, DIGEST, manifest, told, asks)


def test_inspect_says_what_is_not_known(ocickpt: Bench) -> None:
    told = replace(
        description(), engine=Engine("podman", ""), runtime=Runtime("crun", ""), criu=Criu(""),
        host=HostInfo("", "", "", (), 4096, ""),
    )  # fmt: skip
    ocickpt.stand_in("library.catalog.inspect", lambda **_: inspection(told))
    lines = ocickpt.run("inspect", REF).stdout.splitlines()
    first = lines.index("Engine            podman unknown")
    assert lines[first + 1 : first + 5] == [
        "Runtime           crun unknown",
        "CRIU              unknown",
        "Host              unknown, Linux unknown, unknown",
        "                  cgroup unknown, pages of 4096 bytes, CPU unknown",
    ]


def test_inspect(ocickpt: Bench) -> None:
    calls = ocickpt.stand_in("library.catalog.inspect", lambda **_: inspection(description()))
    done = ocickpt.run("inspect", REF)
    assert done.code == 0
    assert calls[0]["ref"] == REF
    assert done.stdout.splitlines() == [
        f"Checkpoint        {PINNED}",
        "Created           2026-01-02T03:04:05Z",
        "",
        "Container         web  cccccccccccc  created 2026-01-01T00:00:00Z",
        "Image             localhost/python:latest  dddddddddddd",
        f"                  {DIGEST}",
        "Engine            podman 5.4.2",
        "Runtime           crun 1.28",
        "CRIU              4.2.1",
        "Host              amd64, Linux 6.18.5, debian 13",
        "                  cgroup v2, pages of 4096 bytes",
        "Options           left running, without volumes",
        "Volumes           data on /var/lib/data",
        "                  cache on /cache",
        "",
        "Stored            90.0 kB in 2 blobs",
        "  boot              700.0 kB, stored as 90.0 kB, 40 entries",
        "  memory              1.1 GB, stored as 5 B, 1 entry",
        "",
        "SELinux           system_u:system_r:container_t:s0:c1,c2",
        "                  system_u:object_r:container_file_t:s0:c1,c2 (mounts)",
        "AppArmor          containers-default",
        "Labels in CRIU    selinux",
        f"Seccomp           filter  {DIGEST}",
        "no_new_privs      yes",
        "Capabilities      bounding, effective, permitted:",
        "                    chown kill",
        "                  inheritable, ambient:",
        "                    none",
        "User ids          0-65535 are 100000-165535 of the host",
        "Group ids         0-65535 are 200000-265535 of the host",
        "",
        "Asks for          port=8080                        the port 8080 of the host",
        "                  'device-cgroup-rule=b 8:* rw'    the devices b 8:* rw of the host",
    ]
    for trouble, line in (
        ("", "nothing that podman does not give everybody"),
        ("it has no id", "nobody knows, and no restore takes it: it has no id"),
    ):
        found = Inspection(REF, DIGEST, inspection(description()).manifest, description(), (), trouble)
        ocickpt.stand_in("library.catalog.inspect", partial(lambda shown, **_: shown, found))
        assert ocickpt.run("inspect", REF).stdout.splitlines()[-1] == f"Asks for          {line}"


def test_inspect_gives_everything_as_json(ocickpt: Bench) -> None:
    ocickpt.stand_in("library.catalog.inspect", lambda **_: inspection(description()))
    told = ocickpt.run("inspect", "--format", "json", REF).json
    assert told["digest"] == DIGEST
    assert told["manifest"] == json.loads(inspection(description()).manifest.to_bytes())
    assert told["description"] == description().to_json()
    assert told["asks_for"][0] == {"option": "port=8080", "meaning": "the port 8080 of the host"}
    assert told["trouble"] is None


def test_names_in_an_artifact_do_not_drive_the_terminal(ocickpt: Bench) -> None:
    evil = "web\x1b[2J\n\u202eexe\udcff"
    ocickpt.stand_in("library.catalog.inspect", lambda **_: inspection(description(evil)))
    ocickpt.stand_in("library.catalog.list_checkpoints", lambda **_: [Listed(evil, DIGEST, "", evil, evil, 1)])
    for arguments in (["inspect", REF], ["list"]):
        done = ocickpt.run(*arguments)
        assert done.code == 0
        assert "web\\x1b[2J\\n\\u202eexe\\udcff" in done.stdout
        assert done.stdout.replace("\n", "").isprintable()
    assert "\x1b" not in ocickpt.run("list", "--format=json").stdout


def test_progress_is_words_not_data(ocickpt: Bench) -> None:
    def flow(progress: Progress, **_: Any) -> Published:
        progress.stage(Stage.SENDING)
        progress.expect(557_300_000)
        progress.advance(545_200_000)
        progress.present(12_100_000)
        progress.note("memory travels in clear")
        return published()

    ocickpt.stand_in("save.checkpoint.checkpoint", flow)
    done = ocickpt.run("checkpoint", "web", REF)
    assert done.stdout == f"{PINNED}\n"
    assert done.stderr == ("note: memory travels in clear\nsending: 545.2 MB sent, 12.1 MB were there already, 0.0 s\n")
    assert ocickpt.run("checkpoint", "--quiet", "web", REF).stderr == ""


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(ocickpt: Bench, verb: str) -> None:
    for option in ("-h", "--help"):
        done = ocickpt.run(verb, option)
        assert done.code == 0
        assert done.stdout.startswith(f"Usage: ocickpt {verb}")
        assert done.stderr == ""


def test_help_and_version(ocickpt: Bench) -> None:
    done = ocickpt.run("--help")
    assert done.code == 0
    assert all(f"\n  {verb} " in done.stdout for verb in VERBS)
    assert ocickpt.run("--version").stdout.startswith("ocickpt 0.")
