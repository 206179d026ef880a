"""What a crafted config.dump and spec.dump may not make podman do."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import fields

from ocickpt import asked, oci
from ocickpt.engine import host
from ocickpt.engine.podman import config as libpod
from ocickpt.engine.podman import defaults
from ocickpt.engine.podman.imported import Imported, import_config
from ocickpt.errors import IntegrityError, OcickptError, PrerequisiteError, UnsupportedError, UsageError

ID = "996080a5fd0a51ecd9b9d5b3dc51580c9c3724b8353910257e2ad40481d1e00d"
OTHER = "0" * 64
USERDATA = f"/elsewhere/storage/overlay-containers/{ID}/userdata"
RUN = f"/run/containers/storage/overlay-containers/{ID}/userdata"
ROOT, VOLUMES = Path("/g"), Path("/v")

CONFIG: dict[str, Any] = {
    "id": ID,
    "name": "t1",
    "lockID": 3,
    "CreateCommand": ["podman", "run"],
    "rootfsImageID": "4c835ac95f98b7e7f1ec079d33f6cc0a099237bb79a3f81a710a2d94effd6e59",
    "rootfsImageName": "localhost/python:latest",
    "ShmDir": f"{USERDATA}/shm",
    "staticDir": USERDATA,
    "mounts": [f"{USERDATA}/shm"],
    "namedVolumes": [{"volumeName": "vol1", "dest": "/data", "options": ["rw", "rbind"]}],
    "secretsPath": f"{USERDATA}/secrets",
    "createNetNS": True,
    "networkMode": "bridge",
    "newNetworks": {"podman": {"interface_name": "eth0"}},
    "labels": {"any": "label"},
    "cgroupParent": "/libpod_parent",
    "conmonPidFile": f"{RUN}/conmon.pid",
    "runtime": "crun",
    "healthcheck": {"Test": ["CMD-SHELL", "true"], "Interval": 30000000000},
    "healthLogDestination": "local",
}
SPEC: dict[str, Any] = {
    "ociVersion": "1.2.0",
    "process": {"args": ["sleep"], "env": ["A=B"], "cwd": "/", "user": {"uid": 0, "gid": 0}},
    "root": {"path": "/elsewhere/merged"},
    "mounts": [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid"]},
        {
            "destination": "/data",
            "type": "bind",
            "source": "/elsewhere/storage/volumes/vol1/_data",
            "options": ["rbind"],
        },
        {"destination": "/etc/hosts", "type": "bind", "source": f"{RUN}/hosts", "options": ["bind"]},
        {"destination": "/srv", "type": "bind", "source": "/srv/data", "options": ["rbind", "ro"]},
    ],
    "annotations": {"io.container.manager": "libpod", "io.podman.annotations.autoremove": "TRUE"},
    "linux": {
        "resources": {"devices": [{"allow": False, "access": "rwm"}]},
        "namespaces": [
            {"type": "pid"},
            {"type": "network", "path": "/run/netns/netns-1"},
            {"type": "ipc"},
            {"type": "uts"},
            {"type": "mount"},
            {"type": "cgroup"},
        ],
        "seccomp": {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW"}]},
        "maskedPaths": sorted(defaults.MASKED),
        "readonlyPaths": sorted(defaults.READONLY),
    },
}


def load(config: dict[str, Any] | None = None, spec: dict[str, Any] | None = None, **changes: Any) -> Imported:
    record = libpod.read({**(config or CONFIG), **changes}, "configuration")
    return import_config(record, oci.read(spec or SPEC, "specification"), ROOT, VOLUMES)


def told(found: Imported) -> tuple[str, ...]:
    """What it asks for beside directories of the host, in words."""
    return tuple(each.meaning for each in found.asked if each.kind != "mount")


def written(found: Imported) -> tuple[dict[str, Any], dict[str, Any]]:
    """What podman gets to read of it: ``config.dump`` and ``spec.dump``."""
    members = found.members(("ocickpt", "restore"))
    return json.loads(members["config.dump"]), json.loads(members["spec.dump"])


def spec_with(*path: str, value: Any) -> dict[str, Any]:
    made = copy.deepcopy(SPEC)
    inner = made
    for key in path[:-1]:
        inner = inner.setdefault(key, {})
    inner[path[-1]] = value
    return made


def mount(**found: Any) -> dict[str, Any]:
    return spec_with("mounts", value=[{"destination": "/x"} | found])


def test_an_ordinary_container_passes() -> None:
    found = load()
    config, spec = written(found)
    assert config["staticDir"] == f"/g/overlay-containers/{ID}/userdata"
    assert config["mounts"] == [f"/g/overlay-containers/{ID}/userdata/shm"]
    assert config["labels"] == CONFIG["labels"]
    assert config["newNetworks"] == CONFIG["newNetworks"]
    assert spec["process"] | {"user": SPEC["process"]["user"]} == SPEC["process"]
    assert spec["linux"]["seccomp"] == SPEC["linux"]["seccomp"]
    assert spec["annotations"] == SPEC["annotations"]
    assert found.volumes == {"vol1": "/v/vol1/_data"}
    assert found.host_paths == ("/srv/data",)
    assert [each.kind for each in found.asked] == ["mount"]
    assert found.health_interval == "30000000000ns"


@pytest.mark.parametrize(("parent", "kept"), [("/libpod_parent", None), ("machine.slice", None), ("/own", "/own")])
def test_the_cgroup_parent_is_this_hosts_unless_one_was_asked_for(parent: str, kept: str | None) -> None:
    assert written(load(cgroupParent=parent))[0].get("cgroupParent") == kept


def test_a_volume_is_mounted_from_this_host_and_podmans_own_files_are_left_to_podman() -> None:
    assert [(each.destination, each.source) for each in load().spec.mounts] == [
        ("/proc", "proc"),
        ("/data", "/v/vol1/_data"),
        ("/srv", "/srv/data"),
    ]


@pytest.mark.parametrize(
    "key",
    [
        "hooks",
        "Hooks",
        "HOOKS",
        "exitCommand",
        "createCommand",
        "CreateCommand",
        "conmonPidFile",
        "ConmonPIDFile",
        "pid_file",
        "logPath",
        "LogPath",
        "rootfs_overlay",
        "sdnotifySocket",
        "healthLogDestination",
        "HEALTHLOGDESTINATION",
        "preserveFd",
        "lockID",
    ],
)
def test_a_key_that_reaches_the_host_does_not_pass(key: str) -> None:
    changes: dict[str, Any] = {key: ["/tmp/x"] if key == "CreateCommand" else "/tmp/x"}
    told = written(load(**changes))[0]
    assert key not in told or (key, told[key]) == ("CreateCommand", ["ocickpt", "restore"])
    assert key not in written(load(spec=spec_with(key, value={})))[1]


@pytest.mark.parametrize("key", ["Rootfs", "POD", "StaticDir", "NAMEDVOLUMES", "OverlayVolumes", "NetnsCtr", "Secrets"])
def test_another_spelling_that_go_would_take_for_a_key_does_not_pass(key: str) -> None:
    changes: dict[str, Any] = {key: "/x"}
    assert key not in written(load(**changes))[0]


@pytest.mark.parametrize("path", [("process", "Capabilities"), ("linux", "Namespaces"), ("linux", "Seccomp")])
def test_another_spelling_in_the_specification_does_not_pass(path: tuple[str, str]) -> None:
    assert path[1] not in written(load(spec=spec_with(*path, value=[])))[1][path[0]]


@pytest.mark.parametrize(
    "annotation",
    [
        "org.criu.config",
        "run.oci.hooks.stdout",
        "run.oci.handler",
        "run.oci.seccomp.receiver",
        "org.systemd.property.Wants",
        "io.podman.annotations.cid-file",
    ],
)
def test_an_annotation_that_runtimes_act_on_does_not_pass(annotation: str) -> None:
    found = load(spec=spec_with("annotations", annotation, value="/etc/passwd"))
    assert written(found)[1]["annotations"] == SPEC["annotations"]


@pytest.mark.parametrize("key", ["listenerPath", "ListenerPath", "listenerMetadata"])
def test_a_seccomp_agent_of_the_host_is_not_called(key: str) -> None:
    found = load(spec=spec_with("linux", "seccomp", key, value="/run/x.sock"))
    assert written(found)[1]["linux"]["seccomp"] == SPEC["linux"]["seccomp"]


@pytest.mark.parametrize(
    "spec",
    [
        mount(type="overlay", source="overlay", options=["lowerdir=/,upperdir=/tmp/u,workdir=/tmp/w"]),
        mount(type="ext4", source="/dev/sda1"),
        mount(source="/dev/sda1"),
        mount(type="bind", source="relative"),
        mount(type="bind", source="/a\x1b[2J"),
        mount(type="bind", source="/a\udcff"),
        spec_with("linux", "namespaces", value=[{"type": "mount"}, {"type": "pid", "path": "/proc/1/ns/pid"}]),
        spec_with("linux", "namespaces", value=[{"type": "mount", "path": "/proc/1/ns/mnt"}]),
        spec_with("linux", "namespaces", value=[{"type": "pid"}]),
        spec_with("linux", "namespaces", value=None),
        spec_with("mounts", value=[None]),
        spec_with("mounts", value={}),
        spec_with("linux", value=[]),
    ],
)
def test_a_specification_that_reaches_around_the_container_is_refused(spec: dict[str, Any]) -> None:
    with pytest.raises((IntegrityError, UnsupportedError)):
        load(spec=spec)


@pytest.mark.parametrize(
    "changes",
    [
        {"runtime": "/tmp/evil"},
        {"runtime": ""},
        {"rootfs": "/"},
        {"pod": OTHER},
        {"Dependencies": [OTHER]},
        {"netNsCtr": OTHER},
        {"overlayVolumes": [{"source": "/", "dest": "/host"}]},
        {"ctrImageVolumes": [{"source": "other", "dest": "/x"}]},
        {"rootfsImageID": "python"},
        {"rootfsImageName": "docker-archive:/etc/x.tar"},
        {"rootfsImageName": "dir:/etc"},
        {"rootfsImageName": "--all"},
        {"networkMode": "ns:/proc/1/ns/net"},
        {"networkMode": "pasta"},
        {"cgroupParent": "/../x"},
        {"timezone": "../../../etc/shadow"},
        {"staticDir": f"/x/overlay-containers/{OTHER}/userdata"},
        {"secretsPath": f"{USERDATA}/../../x"},
        {"secrets": [{"name": "a\x1b"}]},
        {"secret_env": {"A": None}},
        {"namedVolumes": [{"volumeName": "../x"}]},
        {"namedVolumes": [None]},
        {"healthcheck": {"Interval": "1s --health-cmd x"}},
        {"name": "--all"},
    ],
)
def test_a_configuration_that_reaches_around_the_container_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(OcickptError):
        load(**changes)


def test_a_joined_network_namespace_is_refused_unless_podman_makes_one() -> None:
    with pytest.raises(UnsupportedError):
        load(createNetNS=False)
    assert oci.Namespace("network") in load().spec.linux.namespaces


def test_a_volume_gets_no_driver_options() -> None:
    options = ["rw", "volume-opt=type=none", "volume-opt=o=bind", "volume-opt=device=/", "O", "upperdir=/etc", "U", "z"]
    found = load(namedVolumes=[{"volumeName": "vol1", "dest": "/data", "options": options}])
    assert found.config.named_volumes[0].options == ("rw",)


def test_the_owner_and_label_of_host_paths_stay() -> None:
    found = load(spec=mount(type="bind", source="/srv/data", options=["rbind", "U", "Z", "subpath=x"]))
    assert found.spec.mounts[0].options == ("rbind",)


@pytest.mark.parametrize("source", ["/var/lib/docker/volumes/vol1/_data", "/v/volumes/vol1/_data"])
def test_a_path_that_looks_like_a_volume_becomes_this_hosts_volume(source: str) -> None:
    assert load(spec=mount(type="bind", source=source)).spec.mounts[0].source == "/v/vol1/_data"


def test_a_volume_that_is_not_the_containers_is_a_host_path() -> None:
    assert load(spec=mount(type="bind", source="/v/volumes/vol2/_data")).host_paths == ("/v/volumes/vol2/_data",)


def test_another_containers_files_are_not_mounted() -> None:
    secret = f"/var/lib/containers/storage/overlay-containers/{OTHER}/userdata/secrets/key"
    assert load(spec=mount(type="bind", source=secret)).spec.mounts == ()


def test_what_it_gets_of_the_host_is_told() -> None:
    spec = spec_with("linux", "namespaces", value=[{"type": "mount"}, {"type": "pid"}])
    spec["linux"]["devices"] = [{"path": "/dev/kvm"}]
    assert told(load(spec=spec, privileged=True)) == (
        "what --privileged gives",
        "/dev/kvm, which is the device c0:0 of the host",
        "the network namespace",
        "the ipc namespace",
        "the uts namespace",
        "the cgroup namespace",
    )
    allowed = spec_with("linux", "resources", "devices", value=[{"allow": True, "access": "rwm"}])
    assert told(load(spec=allowed)) == ("devices",)
    found = load(secrets=[{"name": "b", "Target": "/x"}], secret_env={"A": {"name": "a"}})
    assert (found.secrets, told(found)) == (("a", "b"), ("the secret a", "the secret b"))


def seccomp(**changes: Any) -> dict[str, Any]:
    return spec_with("linux", "seccomp", value=SPEC["linux"]["seccomp"] | changes)


def test_privileges_that_podman_gives_nobody_unasked_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    profile = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [
            {"names": ["read"], "action": "SCMP_ACT_ALLOW"},
            {"names": ["clone"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0}], "excludes": {"caps": ["CAP_BPF"]}},
            {"names": ["bpf", "clone"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
            {"names": ["kexec_load"], "action": "SCMP_ACT_ERRNO"},
            {"names": ["other"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["nowhere"]}},
        ],
    }  # fmt: skip
    (tmp_path / "seccomp.json").write_text(json.dumps(profile))
    monkeypatch.setattr(defaults, "_PROFILES", (str(tmp_path / "seccomp.json"),))

    def calls(*names: str, **more: Any) -> list[dict[str, Any]]:
        return [{"names": list(names), "action": "SCMP_ACT_ALLOW", **more}]

    capabilities = {"bounding": ["CAP_CHOWN", "CAP_SYS_ADMIN"], "permitted": ["CAP_CHOWN", "CAP_NET_RAW"]}
    everything = "every system call (no seccomp profile, or one that allows what it does not name)"
    masked, readonly = sorted(defaults.MASKED - {"/proc/kcore"}), sorted(defaults.READONLY - {"/proc/sys"})
    cases: list[tuple[dict[str, Any], tuple[str, ...]]] = [
        (
            spec_with("process", "capabilities", value=capabilities),
            ("the capability NET_RAW", "the capability SYS_ADMIN"),
        ),
        (spec_with("process", "scheduler", value={"policy": "SCHED_FIFO"}), ("the scheduling policy SCHED_FIFO",)),
        (spec_with("process", "oomScoreAdj", value=-1000), ("the oom_score_adj -1000",)),
        (spec_with("process", "oomScoreAdj", value=500), ()),
        (spec_with("linux", "seccomp", value=None), (everything,)),
        (seccomp(defaultAction="SCMP_ACT_ALLOW"), (everything,)),
        (seccomp(defaultAction="SCMP_ACT_LOG"), (everything,)),
        (seccomp(syscalls=calls("read", "bpf", "kexec_load", "younger")), ("the system calls bpf kexec_load",)),
        (seccomp(syscalls=calls("clone")), ("the system calls clone",)),
        (seccomp(syscalls=calls("clone", args=[{"index": 0, "valueTwo": 0}])), ()),
        (seccomp(syscalls=calls("clone", args=[{"index": 1}])), ("the system calls clone",)),
        (mount(type="proc"), ("another proc at /x",)),
        (mount(type="sysfs", destination="/sys"), ("a writable /sys",)),
        (mount(type="cgroup2", destination="/sys/fs/cgroup", options=["ro"]), ()),
        (spec_with("linux", "maskedPaths", value=masked), ("access to /proc/kcore",)),
        (spec_with("linux", "readonlyPaths", value=readonly), ("access to /proc/sys",)),
    ]
    for spec, meanings in cases:
        assert told(load(spec=spec)) == meanings
    monkeypatch.setattr(host, "lsm", lambda: "apparmor")
    assert told(load()) == ("no AppArmor profile",)
    assert told(load(spec=spec_with("process", "apparmorProfile", value="containers-default-0.62.2"))) == ()
    named = spec_with("process", "apparmorProfile", value="unconfined")
    assert told(load(spec=named)) == ("the AppArmor profile unconfined",)
    monkeypatch.setattr(host, "lsm", lambda: "selinux")
    assert told(load()) == ("no SELinux label",)
    assert told(load(ProcessLabel="system_u:system_r:container_t:s0")) == ()
    free = "system_u:system_r:spc_t:s0"
    assert told(load(ProcessLabel=free)) == (f"the SELinux label {free}",)


def test_a_host_may_give_more_by_default(tmp_path: Path) -> None:
    assert "NET_RAW" not in defaults.capabilities(tmp_path)
    (tmp_path / "etc/containers/containers.conf.d").mkdir(parents=True)
    (tmp_path / "etc/containers/containers.conf").write_text('[containers]\ndefault_capabilities = ["CHOWN"]')
    assert defaults.capabilities(tmp_path) == {"CHOWN"}
    drop_in = tmp_path / "etc/containers/containers.conf.d/x.conf"
    drop_in.write_text('[containers]\ndefault_capabilities = ["CAP_NET_RAW"]')
    assert defaults.capabilities(tmp_path) == {"NET_RAW"}
    drop_in.write_text("default_capabilities = [")
    with pytest.raises(PrerequisiteError, match=r"x\.conf"):
        defaults.capabilities(tmp_path)


def test_a_user_namespace_is_refused() -> None:
    namespaces = [*SPEC["linux"]["namespaces"], {"type": "user"}]
    with pytest.raises(UnsupportedError, match="user namespace"):
        load(spec=spec_with("linux", "namespaces", value=namespaces))


def test_what_was_null_or_absent_is_not_written() -> None:
    """Go's decoder makes the same of both."""
    nothing = {"umask": None, "healthcheck": None, "mounts": None, "namedVolumes": None, "secrets": None}
    config, spec = written(load({**CONFIG, **nothing}, spec=spec_with("process", "rlimits", value=None)))
    assert not nothing.keys() & config.keys()
    assert config["CreateCommand"] == ["ocickpt", "restore"]
    assert "rlimits" not in spec["process"]


def test_null_in_what_is_only_passed_on_stays() -> None:
    """In a map of Go's, it is an entry."""
    assert written(load(newNetworks={"podman": None}))[0]["newNetworks"] == {"podman": None}


def test_an_older_spelling_inside_the_profile_does_not_pass() -> None:
    rule = {"names": ["read"], "action": "SCMP_ACT_ALLOW"}
    found = load(spec=seccomp(syscalls=[{**rule, "NAMES": ["bpf"], "Args": []}]))
    assert written(found)[1]["linux"]["seccomp"]["syscalls"] == [rule]


def test_what_is_left_out_is_known_all_the_same() -> None:
    """Nothing of `Beyond` has a place in what podman gets to read."""
    names = [{each.encode_name for each in fields(kind)} for kind in (libpod.Config, libpod.Beyond)]
    assert not names[0] & names[1]


def test_each_is_the_option_that_allows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = spec_with("process", "capabilities", value={"bounding": ["CAP_SYS_ADMIN"]})
    spec["mounts"] = [
        {"destination": "/w", "type": "bind", "source": "/srv/written", "options": ["rbind"]},
        {"destination": "/r", "type": "bind", "source": "/srv/read", "options": ["rbind", "ro"]},
        {"destination": "/r2", "type": "bind", "source": "/srv/both", "options": ["rbind", "ro"]},
        {"destination": "/w2", "type": "bind", "source": "/srv/both", "options": ["rbind"]},
        {"destination": "/p", "type": "proc"},
    ]
    spec["linux"]["devices"] = [{"path": "/dev/fuse", "type": "b", "major": 8, "minor": 1}]
    spec["linux"]["seccomp"] = None
    found = load(spec=spec, secrets=[{"name": "key", "Target": "/x"}])
    assert [each.option for each in found.asked] == [
        "mount=/srv/both",
        "mount=/srv/read:ro",
        "mount=/srv/written",
        "device=/dev/fuse:b8:1",
        "filesystem=proc:/p",
        "cap=sys_admin",
        "seccomp=unconfined",
        "secret=key",
    ]
    assert {each.kind for each in found.asked} <= set(asked.KINDS)
    assert asked.not_allowed(found.asked, [each.option for each in found.asked]) == []
    most = [each.option for each in found.asked if each.kind not in ("cap", "mount")]
    given = ["cap=CAP_SYS_ADMIN", "mount=/srv/both", "mount=/srv/read", "mount=/srv/written:ro", *most]
    assert [each.option for each in asked.not_allowed(found.asked, given)] == ["mount=/srv/written"]
    for nothing in ("everything", "cap", "", "mounts=/srv", "host-access"):
        if nothing != "cap":
            with pytest.raises(UsageError, match="says nothing that can be allowed"):
                asked.not_allowed(found.asked, [nothing])
    assert asked.not_allowed(found.asked, ["cap", "mount", "seccomp", "secret="]) == list(found.asked)


def test_a_directory_is_not_called_like_an_option() -> None:
    with pytest.raises(UnsupportedError, match="cannot be told from an option"):
        load(spec=mount(type="bind", source="/srv/data:ro"))


@pytest.mark.parametrize("name", ["/dev/a\nb", "/dev/\x1b[2J", "/dev/\u202ea"])
def test_what_cannot_be_shown_cannot_be_asked_for(name: str) -> None:
    with pytest.raises(IntegrityError, match="whose name cannot be shown"):
        load(spec=spec_with("linux", "devices", value=[{"path": name}]))
