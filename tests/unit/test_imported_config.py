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
    "newNetworks": {"podman": {"aliases": [ID[:12]], "interface_name": "eth0"}},
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
    assert config["newNetworks"] == {"podman": {"interface_name": "eth0"}}, "podman adds the ID that it has then"
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
        "io.ocickpt.push",
        "io.containers.trace-syscall",
    ],
)
def test_an_annotation_that_is_acted_on_is_asked_for(annotation: str) -> None:
    found = load(spec=spec_with("annotations", annotation, value="/etc/passwd"))
    (asked_for,) = (each for each in found.asked if each.optional)
    assert asked_for.option == f"annotation={annotation}=/etc/passwd"
    assert written(found)[1]["annotations"] == SPEC["annotations"] | {annotation: "/etc/passwd"}
    left = found.without([asked_for])
    assert written(left)[1]["annotations"] == SPEC["annotations"]
    assert [each.kind for each in left.asked] == ["mount"]


def test_a_refused_annotation_is_left_out_whatever_its_name() -> None:
    found = load(spec=spec_with("annotations", "run.oci.x=y", value="z=1"))
    left = found.without([each for each in found.asked if each.kind == "annotation"])
    assert written(left)[1]["annotations"] == SPEC["annotations"]


@pytest.mark.parametrize("annotation", ["io.podman.annotations.cid-file", "io.ocickpt.restore"])
def test_an_annotation_of_how_it_was_made_does_not_pass(annotation: str) -> None:
    found = load(spec=spec_with("annotations", annotation, value="/etc/passwd"))
    assert written(found)[1]["annotations"] == SPEC["annotations"]
    assert [each.kind for each in found.asked] == ["mount"]


def test_a_note_passes_unless_a_hook_of_this_host_acts_on_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = spec_with("annotations", "my.app", value="of ours\n")
    found = load(spec=spec)
    assert written(found)[1]["annotations"] == SPEC["annotations"] | {"my.app": "of ours\n"}
    assert [each.kind for each in found.asked] == ["mount"]
    spec["annotations"]["my.app"] = "of ours"
    monkeypatch.setattr("ocickpt.engine.podman.annotations.hook_directories", lambda: (str(tmp_path),))
    hook = tmp_path / "trace.json"
    for when, acted in (
        ({"^my[.]": "ours$"}, 1),
        ({"^my[.]": "^ours"}, 0),
        ({r"^other\.app$": ".*"}, 0),
        ({"(": ""}, 1),
        (None, 0),
        # Go means another thing than Python.
        ({"^[[:alpha:]]+[.]app$": ""}, 1),
        ({r"^\pL+": ""}, 1),
        ({r"^my.app\z": ""}, 1),
        ({"(?i)^ny": ""}, 1),
        ({"x{,3}y": ""}, 1),
    ):
        hook.write_text(json.dumps({"when": {"annotations": when, "always": True}}))
        assert [each.kind for each in load(spec=spec).asked].count("annotation") == acted, when
    unread: tuple[object, ...] = (
        {"annotations": ["^of"]},
        {"When": {"annotations": {"my": ""}}},
        {"when": {"Annotations": {}}},
        "{",
    )
    for said in unread:
        hook.write_text(json.dumps(said))
        assert "annotation=my.app=of ours" in [each.option for each in load(spec=spec).asked]


def test_hooks_are_where_podman_was_told_to_look(tmp_path: Path) -> None:
    directory = tmp_path / "etc/containers/containers.conf.d"
    directory.mkdir(parents=True)
    (directory / "1.conf").write_text('[engine]\nhooks_dir = ["/srv/hooks"]\n')
    (directory / "2.conf").write_text('[engine]\nhooks_dir = ["/opt/hooks", {append = true}]\n')
    found = defaults.hook_directories(tmp_path)
    assert {"/etc/containers/oci/hooks.d", "/srv/hooks", "/opt/hooks"} <= set(found)


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
    assert told(load(spec=allowed)) == ("the devices a *:* rwm of the host",)
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
        (spec_with("process", "scheduler", value={"policy": "SCHED_OTHER", "nice": -5}), ("the nice value -5",)),
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
    assert written(load(exposedPorts={"80": None}))[0]["exposedPorts"] == {"80": None}


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


def published(port: int, **more: Any) -> dict[str, Any]:
    return {"newPortMappings": [{"host_ip": "", "container_port": 80, "host_port": port, "range": 1} | more]}


PATH = "/srv/data"
BESIDE: list[tuple[dict[str, Any], list[str]]] = [
    (published(8080), ["port=8080"]),
    (published(8080, protocol="tcp"), ["port=8080"]),
    (published(53, protocol="udp"), ["port=53/udp"]),
    (published(53, protocol="tcp,udp"), ["port=53", "port=53/udp"]),
    (published(8080, host_ip="127.0.0.1"), ["port=127.0.0.1:8080"]),
    (published(8080, host_ip="0:0::1"), ["port=[::1]:8080"]),
    (published(7000, range=3), ["port=7000-7002"]),
    ({"restart_policy": "no"}, []),
    ({"restart_policy": "always", "restart_retries": 3}, ["restart=always"]),
    ({"restart_policy": "unless-stopped"}, ["restart=unless-stopped"]),
    ({"restart_policy": "on-failure"}, ["restart=on-failure"]),
    ({"restart_policy": "on-failure", "restart_retries": 3}, ["restart=on-failure:3"]),
    ({"newNetworks": {}}, []),
    ({"newNetworks": {"backend": {"aliases": [OTHER[:12]]}, "podman": {}}}, ["network=backend"]),
    ({"newNetworks": {"backend": {"aliases": ["web", "db"]}}}, ["network=backend:alias=db,alias=web"]),
    ({"newNetworks": {"podman": {"aliases": ["db"]}}}, []),
    ({"labels": {"note": "x", "app": "PODMAN_SYSTEMD_UNIT"}}, []),
    ({"labels": {"PODMAN_SYSTEMD_UNIT": "sshd.service"}}, ["label=PODMAN_SYSTEMD_UNIT=sshd.service"]),
    ({"labels": {"io.containers.autoupdate": "registry"}}, ["label=io.containers.autoupdate=registry"]),
    (
        {"labels": {"io.containers.autoupdate.authfile": "/root/auth.json"}},
        ["label=io.containers.autoupdate.authfile=/root/auth.json"],
    ),
    ({"labels": {"traefik.http.routers.x.rule": "Host(`x`)"}}, ["label=traefik.http.routers.x.rule=Host(`x`)"]),
    ({"cgroupParent": "/own"}, ["cgroup-parent=/own"]),
    ({"cgroupsMode": "enabled"}, []),
    ({"cgroupsMode": "split"}, ["cgroups=split"]),
    ({"noCgroups": True}, ["cgroups=disabled"]),
    ({"logDriver": "journald"}, []),
    ({"logDriver": "passthrough"}, ["log-driver=passthrough"]),
    ({"HostUsers": ["root"]}, ["hostuser=root"]),
    ({"stopTimeout": 10}, []),
    ({"stopTimeout": 11}, ["stop-timeout=11"]),
    ({"cdiDevices": ["nvidia.com/gpu=all"]}, ["device=nvidia.com/gpu=all"]),
    # What is done in the container, or to it.
    ({"healthcheck": {"Test": ["CMD", "x"]}, "healthcheck_on_failure_action": 3, "stopSignal": 9, "timeout": 5}, []),
    ({"hostsAdd": ["x:1.2.3.4"], "dnsServer": ["1.2.3.4"], "shmSize": 1 << 40, "sdnotifyMode": "container"}, []),
]
RESOURCES = ("linux", "resources")
ENOUGH = (1 << 64) - 1


def limited(name: str, most: int) -> dict[str, Any]:
    return spec_with("process", "rlimits", value=[{"type": f"RLIMIT_{name}", "hard": most, "soft": most}])


def ruled(**rule: Any) -> dict[str, Any]:
    spec = spec_with(*RESOURCES, "devices", value=[{"allow": False, "access": "rwm"}, {"allow": True, **rule}])
    spec["linux"]["devices"] = [{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229}]
    return spec


BELOW: list[tuple[dict[str, Any], list[str]]] = [
    (limited("NOFILE", 1 << 20), []),
    (limited("CORE", ENOUGH), []),
    (limited("NOFILE", (1 << 20) + 1), ["ulimit=nofile=1048577"]),
    (limited("MEMLOCK", ENOUGH), ["ulimit=memlock=-1"]),
    (limited("RTPRIO", 1), ["ulimit=rtprio=1"]),
    (limited("NICE", 1), ["ulimit=nice=1"]),
    (ruled(type="c", major=10, minor=229, access="rwm"), ["device=/dev/fuse:c10:229"]),
    (ruled(type="b", major=8, access="rw"), ["device=/dev/fuse:c10:229", "device-cgroup-rule=b 8:* rw"]),
    (spec_with(*RESOURCES, "memory", value={"limit": 1, "swap": 2}), []),
    (spec_with(*RESOURCES, "pids", value={"limit": 1}), []),
    (spec_with(*RESOURCES, "cpu", value={"shares": 1024, "quota": 1}), []),
    (spec_with(*RESOURCES, "cpu", value={"shares": 1025}), ["cpu-shares=1025"]),
    (spec_with(*RESOURCES, "cpu", value={"realtimeRuntime": 1000}), ["cpu-rt-runtime=1000"]),
    (spec_with(*RESOURCES, "memory", value={"reservation": 5}), ["memory-reservation=5"]),
    (spec_with(*RESOURCES, "memory", value={"disableOOMKiller": True}), ["oom-kill-disable"]),
    (spec_with(*RESOURCES, "blockIO", value={"weight": 100}), []),
    (
        spec_with(*RESOURCES, "blockIO", value={"weight": 10, "weightDevice": [{"major": 8, "weight": 900}]}),
        ["blkio-weight=900"],
    ),
    (spec_with(*RESOURCES, "unified", value={"memory.min": "1"}), ["cgroup-conf=memory.min=1"]),
    (
        mount(type="bind", source=PATH, options=["rbind", "ro", "rshared"]) | {},
        [f"mount={PATH}:ro", "propagation=rshared:/x"],
    ),
    (spec_with("linux", "rootfsPropagation", value="rslave"), ["propagation=rslave:/"]),
    (spec_with("linux", "rootfsPropagation", value="rprivate"), []),
    (spec_with("linux", "sysctl", value={"net.ipv4.ip_forward": "1"}), []),
]


def asking(found: Imported) -> list[str]:
    """The options that allow what it asks for, but for the directory that every specification here mounts."""
    return [each.option for each in found.asked if each.option != f"mount={PATH}:ro"]


def check_each_is_allowed_alone(found: Imported, options: list[str]) -> None:
    assert asking(found) == [each for each in options if each != f"mount={PATH}:ro"]
    everything = [each.option for each in found.asked]
    assert asked.not_allowed(found.asked, everything) == []
    for option in everything:
        others = [each for each in everything if each != option]
        assert [each.option for each in asked.not_allowed(found.asked, others)] == [option]


@pytest.mark.parametrize(("changes", "options"), BESIDE, ids=lambda each: str(each)[:70])
def test_what_a_host_does_for_nobody_unasked(changes: dict[str, Any], options: list[str]) -> None:
    check_each_is_allowed_alone(load(**changes), options)


@pytest.mark.parametrize(("spec", "options"), BELOW, ids=lambda each: str(each)[-70:])
def test_what_goes_before_others(spec: dict[str, Any], options: list[str]) -> None:
    check_each_is_allowed_alone(load(spec=spec), options)


def test_every_kind_is_shown_here() -> None:
    """But for those that other tests here show, and what depends on the host."""
    shown = {option.partition("=")[0] for _, options in (*BESIDE, *BELOW) for option in options}
    elsewhere = {
        *(
            "annotation",
            "apparmor",
            "cap",
            "filesystem",
            "namespace",
            "oom-score-adj",
            "privileged",
            "scheduling",
            "seccomp",
        ),
        *("secret", "selinux", "syscall", "unmask", "volume", "volume-opt"),
    }
    assert shown | elsewhere == set(asked.KINDS)
    assert not shown & elsewhere


def test_who_may_listen_everywhere_may_listen_somewhere() -> None:
    found = load(**published(8080, host_ip="127.0.0.1")).asked
    for option in ("port=8080", "port=8080/tcp", "port=127.0.0.1:8080", "port=127.0.0.1:8080/tcp"):
        assert [each.kind for each in asked.not_allowed(found, [option])] == ["mount"]
    for option in ("port=8081", "port=8080/udp", "port=127.0.0.2:8080", "port=80", "port"):
        assert "port" in [each.kind for each in asked.not_allowed(found, [option])]
    everywhere = load(**published(8080)).asked
    assert "port" in [each.kind for each in asked.not_allowed(everywhere, ["port=127.0.0.1:8080"])]


def test_a_hostname_is_a_name_in_networks_that_have_names() -> None:
    for network, hostname, options in (
        ("backend", "db", ["network=backend:alias=db"]),
        ("backend", OTHER[:12], ["network=backend"]),
        ("podman", "db", []),
    ):
        found = load(spec=spec_with("hostname", value=hostname), newNetworks={network: {}})
        check_each_is_allowed_alone(found, options)


def test_ports_of_the_callers_own_take_the_place_of_its() -> None:
    found = load(**published(8080), restart_policy="always")
    assert found.publishing(()) == found
    own = found.publishing(("9090:80",))
    assert asking(own) == ["restart=always"]
    assert "newPortMappings" not in written(own)[0]


@pytest.mark.parametrize(
    "changes",
    [
        published(0),
        published(-1),
        published(65535, range=2),
        published(8080, container_port=0),
        published(8080, container_port=65535, range=2),
        published(8080, protocol="icmp"),
        published(8080, protocol="tcp,"),
        published(8080, host_ip="localhost"),
        published(8080, host_ip="1.2.3.4\n"),
        published(1 << 70),
        {"restart_policy": "sometimes"},
        {"restart_policy": 1},
        {"newNetworks": {"": {}}},
        {"newNetworks": {"--help": {}}},
        {"newNetworks": {"a b": {}}},
        {"newNetworks": {"x": {"aliases": ["a\x1b"]}}},
        {"labels": {"PODMAN_SYSTEMD_UNIT": "a\nb"}},
        {"labels": ["x"]},
        {"HostUsers": ["\u202e"]},
        {"networkMode": "slirp4netns:allow_host_loopback=true"},
        {"stopTimeout": "1"},
    ],
    ids=str,
)
def test_what_podman_never_writes_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises((IntegrityError, UnsupportedError)):
        load(**changes)


def test_systemd_is_told_what_podmans_configuration_says() -> None:
    """Of how long a host waits at its shutdown, and what it sends then."""
    spec = spec_with("annotations", "org.systemd.property.TimeoutStopUSec", value="uint64 99999999000000")
    spec["annotations"] |= {"org.systemd.property.KillSignal": "[1]", "org.opencontainers.image.stopSignal": "x"}
    annotations = written(load(spec=spec, stopSignal=3, stopTimeout=7))[1]["annotations"]
    assert annotations == SPEC["annotations"] | {
        "org.systemd.property.TimeoutStopUSec": "uint64 7000000",
        "org.systemd.property.KillSignal": "3",
        "org.opencontainers.image.stopSignal": "3",
    }
    assert "org.systemd.property.TimeoutStopUSec" not in written(load(spec=spec))[1]["annotations"]


def test_what_others_get_is_this_hosts_to_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (defaults.network(tmp_path), defaults.stop_timeout(tmp_path)) == ("podman", 10)
    (tmp_path / "etc/containers").mkdir(parents=True)
    text = '[containers]\nstop_timeout = 60\n[network]\ndefault_network = "own"\n'
    (tmp_path / "etc/containers/containers.conf").write_text(text)
    assert (defaults.network(tmp_path), defaults.stop_timeout(tmp_path)) == ("own", 60)
    monkeypatch.setattr(defaults, "network", lambda: "own")
    monkeypatch.setattr(defaults, "stop_timeout", lambda: 60)
    assert asking(load(stopTimeout=60, newNetworks={"own": {}})) == []
    assert asking(load(stopTimeout=61)) == ["network=podman", "stop-timeout=61"]
