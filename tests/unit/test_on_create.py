"""Restoring instead of starting: what a host allows, and whether a bundle has what a checkpoint needs."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import sqlite3
import subprocess
import tomllib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ocickpt import config, names, oci, rendezvous
from ocickpt.artifact import extras
from ocickpt.config import Config
from ocickpt.engine.podman import storage
from ocickpt.errors import (
    IncompatibleError,
    IntegrityError,
    NotFoundError,
    PrerequisiteError,
    UnsupportedError,
    UsageError,
)
from ocickpt.model import Kind, Silent
from ocickpt.operations import workdir
from ocickpt.restoration import bundles, on_create, policy
from ocickpt.restoration.sequence import Target
from ocickpt.store import Access, Reference
from tests import schema

DIGEST = "sha256:" + "a" * 64
SPEC: dict[str, Any] = {
    "root": {"path": "/merged"},
    "process": {
        "user": {"uid": 0, "gid": 0},
        "capabilities": {"bounding": ["CAP_KILL", "CAP_CHOWN"], "effective": ["CAP_KILL"]},
    },
    "mounts": [
        {"destination": "/proc", "type": "proc"},
        {"destination": "/data/", "type": "bind", "source": "/volume", "options": ["rbind"]},
    ],
    "linux": {
        "namespaces": [{"type": "mount"}, {"type": "pid"}, {"type": "network", "path": "/run/netns/x"}],
        "seccomp": {"defaultAction": "SCMP_ACT_ERRNO"},
        "maskedPaths": ["/proc/kcore"],
        "readonlyPaths": ["/proc/sys"],
        "devices": [{"path": "/dev/fuse"}],
    },
}


def changed(place: str, value: Any) -> dict[str, Any]:
    """SPEC with something else at ``a/b/c``; None removes it."""
    spec = copy.deepcopy(SPEC)
    *way, last = place.split("/")
    at: Any = spec
    for word in way:
        at = at[word]
    if value is None:
        at.pop(last)
    else:
        at[last] = value
    return spec


def check(spec: dict[str, Any], saved: dict[str, Any], runtime: str) -> None:
    bundles.check(oci.read_bundle(spec, "bundle"), oci.read(saved, "checkpoint"), runtime)


def test_what_is_fetched_meanwhile_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before podman gives up on the container (240 s), and says nothing of why."""
    asked: list[Access] = []

    def opened(_: Reference, access: Access) -> None:
        asked.append(access)
        raise NotFoundError("there is none")

    monkeypatch.setattr(on_create, "open_source", opened)
    monkeypatch.setattr(workdir, "make", lambda place: None)
    monkeypatch.setattr(policy, "pinned", lambda wanted, _: Reference.parse(wanted))
    (tmp_path / "config.json").write_text(json.dumps({"annotations": {names.ANNOTATION_RESTORE: "reg.example/web:1"}}))
    assert on_create.create(["/bin/true"], ["--bundle", str(tmp_path), "c1"]) == 1
    assert [access.within < 240 for access in asked] == [True]


def test_the_same_fits() -> None:
    more = changed("process/capabilities/bounding", ["CAP_KILL", "CAP_CHOWN", "CAP_FOWNER"])
    for runtime in ("runc", "crun"):
        check(SPEC, SPEC, runtime)
        check(more, SPEC, runtime)


NETWORK = [{"type": "mount"}, {"type": "pid"}]


@pytest.mark.parametrize(
    ("place", "value", "word"),
    [
        ("mounts", SPEC["mounts"][:1], "does not mount /data"),
        ("mounts", [*SPEC["mounts"], {"destination": "/more", "type": "tmpfs"}], "no mount at /more"),
        ("mounts", [SPEC["mounts"][0], {"destination": "/data", "type": "tmpfs"}], "another kind of mount is at /data"),
        ("linux/devices", None, "no device /dev/fuse"),
        ("linux/namespaces", NETWORK, "shares with others the namespace network"),
        ("linux/namespaces", [*SPEC["linux"]["namespaces"], {"type": "ipc"}], "of its own the namespace ipc"),
        ("linux/namespaces", [*SPEC["linux"]["namespaces"][:1], {"type": "pid", "path": "/x"}, {"type": "network"}],
         "joins the pid namespace /x"),
        ("linux/seccomp", {"defaultAction": "SCMP_ACT_KILL"}, "another seccomp profile"),
        ("linux/maskedPaths", ["/proc/kcore", "/sys/x"], "does not protect /sys/x"),
        ("linux/readonlyPaths", ["/proc/irq", "/proc/sys"], "does not protect /proc/irq"),
        ("root/readonly", True, "root filesystem is read-only"),
        ("process/terminal", True, "has a terminal"),
        ("process/noNewPrivileges", True, "no_new_privs"),
        ("process/apparmorProfile", "strict", "AppArmor profile is strict"),
        ("process/selinuxLabel", "u:r:t:s0:c1", "SELinux label"),
        ("process/user", {"uid": 7, "gid": 0}, "runs as user 7"),
        ("process/capabilities/bounding", ["CAP_KILL"], "lacks the bounding capabilities CAP_CHOWN"),
        ("process/capabilities/effective", [], "lacks the effective capabilities CAP_KILL"),
    ],
)  # fmt: skip
def test_what_differs_is_named(place: str, value: Any, word: str) -> None:
    with pytest.raises(IncompatibleError, match=word):
        check(changed(place, value), SPEC, "runc")


def test_what_cannot_be_restored_like_this_is_said() -> None:
    with pytest.raises(UnsupportedError, match="user namespace"):
        check(changed("linux/namespaces", [{"type": "user"}]), SPEC, "runc")
    hooks = {"createRuntime": [{"path": "/usr/bin/nvidia"}], "poststop": [{"path": "/x"}]}
    check(changed("hooks", hooks), SPEC, "runc")
    with pytest.raises(UnsupportedError, match="no createRuntime hooks"):
        check(changed("hooks", hooks), SPEC, "crun")
    check(changed("hooks", {"createRuntime": [{"path": f"/x/{rendezvous.HOOK}"}]}), SPEC, "crun")


def test_only_what_is_allowed_and_pinned_is_restored() -> None:
    host = Config(allow=("registry.example/ck", "oci:/srv/ck"))
    for name in (
        "registry.example/ck",
        "docker://registry.example/ck/web",
        "registry.example/ck/web:1",
        "oci:/srv/ck/x",
    ):
        assert policy.pinned(f"{name}@{DIGEST}", host).digest == DIGEST
    with pytest.raises(UsageError, match="no digest"):
        policy.pinned("registry.example/ck/web:1", host)
    for name in (
        "registry.example/ckx",
        "registry.example/c",
        "other.example/ck",
        "web",
        "oci:/srv/ckx",
        "oci:/srv/ck/../x",
    ):
        with pytest.raises(PrerequisiteError, match="does not allow"):
            policy.pinned(f"{name}@{DIGEST}", host)
    with pytest.raises(PrerequisiteError, match="does not allow"):
        policy.pinned(f"registry.example/ck@{DIGEST}", Config())
    with pytest.raises(UsageError):
        policy.pinned(f"oci:/srv/ck/../x y\n@{DIGEST}", host)


def test_the_configuration_is_read(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    assert config.load(path) == Config()
    path.write_text('runtime = "crun"\npush = "background"\nrepository = "r.example/ck"\npatience = 5\n'
                    '[restore-on-start]\nallow = ["docker://r.example/ck"]\n')  # fmt: skip
    assert config.load(path) == Config("crun", True, "r.example/ck", 5.0, ("r.example/ck",))


def test_a_host_may_always_allow_what_is_in_a_repository(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(
        '[[allow]]\nrepository = "docker://r.example:5000/team"\nasks = ["cap=sys_admin", "port=8080"]\n'
        '[[allow]]\nrepository = "r.example:5000/team/db"\nasks = ["port=5432"]\n'
        '[[allow]]\nrepository = "oci:/srv/ck"\nasks = ["secret=key"]\n'
    )
    found = config.load(path)
    both = {"cap=sys_admin", "port=8080"}
    cases: tuple[tuple[str, set[str]], ...] = (
        ("r.example:5000/team", both),
        ("r.example:5000/team:1", both),
        (f"docker://r.example:5000/team/web@{DIGEST}", both),
        ("r.example:5000/team/db/one:2", {*both, "port=5432"}),
        ("oci:/srv/ck:web", {"secret=key"}),
        ("oci:/srv/ck/below", {"secret=key"}),
        ("r.example:5000/teams", set()),
        ("r.example/team", set()),
        ("other.example:5000/r.example/team", set()),
        ("oci:/srv/ck/../x", set()),
        ("oci:r.example:5000", set()),
        ("team", set()),
    )
    for text, asks in cases:
        assert found.allowed_to(Reference.parse(text).home) == asks, text
    assert found.allow == (), "nothing is restored on start for it"


def test_the_local_store_is_nobodys_repository(tmp_path: Path) -> None:
    """What lies there under a name may have been pulled from anywhere."""
    path = tmp_path / "config.toml"
    path.write_text('[[allow]]\nrepository = "web"\nasks = ["privileged"]\n')
    assert config.load(path).allowed_to("web") == {"privileged"}
    assert config.load(path).allowed_to(Reference.parse("web:1").home) == frozenset()


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("push = 7", "at push"),
        ("colour = 'red'", "colour"),
        ("runtime = 'kata'", "at runtime"),
        ("patience = -1", "at patience"),
        ("patience = true", "at patience"),
        ("[restore-on-start]\nallow = 'x'", "at restore-on-start.allow"),
        ("allow = ['x']", "at allow"),
        ("[[allow]]\nrepository = 'r/x'", "asks"),
        ("[[allow]]\nasks = ['port=1']", "repository"),
        *((f"[[allow]]\nrepository = '{each}'\nasks = []", "repository") for each in ("r/*", "r/x:1", "r/x@sha256:0")),
        ("[[allow]]\nrepository = 'r/x'\nasks = ['everything']", "'everything' says nothing that can be allowed"),
        ("[[allow]]\nrepository = 'r/x'\nasks = 'port=1'", "at allow"),
        ("[[allow]]\nrepository = 'r/x'\nasks = ['port=1']\nname = 'x'", "name"),
        ("push = ", "not TOML"),
        ("\udcff", "not TOML"),
        ("#" * (2 << 20), "larger"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused(tmp_path: Path, text: str, word: str) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(PrerequisiteError, match=word):
        config.load(path)


NO_TABLES: tuple[Any, ...] = ([], [{}], [[]], ["x"])
REPOSITORIES: tuple[Any, ...] = (
    *("r", "r/x", "r:5000/x/y", "docker://r/x", "oci:/srv/x", "", "r/", "r/x/", "r//x", "r/*", "r/x:1", "r/x@sha256:0"),
    *("r/x y", "oci:/srv/x:1", "oci:", "r" * 1000, "r" * 1001, 7),
)
TABLES: tuple[Any, ...] = ({}, [], {"deny": []}, {"allow": "x"}, {"allow": []})


@pytest.mark.parametrize(
    "document",
    [
        {},
        *({"runtime": each} for each in ("runc", "crun", "kata", "", 1)),
        *({"push": each} for each in ("before-return", "background", "never", True)),
        *({"repository": each} for each in ("r", "", "r" * 1000, "r" * 1001, 7)),
        *({"patience": each} for each in (0, 0.5, -0.1, 86400, 86401, True, "5")),
        *({"restore-on-start": each} for each in TABLES),
        *(
            {"restore-on-start": {"allow": each}}
            for each in (["r"], [""], ["r" * 1001], ["r"] * 1000, ["r"] * 1001, [7])
        ),
        *({"allow": each} for each in NO_TABLES),
        *({"allow": [{"repository": each, "asks": ["port=1"]}]} for each in REPOSITORIES),
        *({"allow": [{"repository": "r/x", "asks": each}]} for each in ([], ["cap=x"], [""], ["port=1"] * 1001, [1])),
        {"allow": [{"repository": "r/x", "asks": [], "more": 1}]},
        *({"registry": {"r": each}} for each in ({}, {"colour": "red"}, {"token-server": 7})),
        *(
            {"registry": {"r.example:5000": {"token-server": each}}}
            for each in (
                "a",
                "a.example",
                "a.example:5001",
                "[::1]:5001",
                "",
                "A",
                "a/",
                "https://a",
                "u@a",
                "a:",
                "a b",
            )
        ),
        {"colour": "red"},
    ],
    ids=lambda document: str(document)[:60],
)
def test_the_schema_and_the_types_say_the_same_of_a_configuration(tmp_path: Path, document: dict[str, Any]) -> None:
    path = tmp_path / "config.toml"
    table = document.get("restore-on-start")
    plain = {key: value for key, value in document.items() if not isinstance(value, dict)}
    lines = [f"{key} = {_inline(value)}" for key, value in plain.items()]
    if isinstance(table, dict):
        lines += ["[restore-on-start]", *(f"{key} = {json.dumps(value)}" for key, value in table.items())]
    for name, registry in document.get("registry", {}).items():
        lines += [
            f"[registry.{json.dumps(name)}]",
            *(f"{key} = {json.dumps(value)}" for key, value in registry.items()),
        ]
    path.write_text("\n".join(lines), "utf-8")
    assert tomllib.loads(path.read_text("utf-8")) == document

    def accepted(read: Callable[[], object]) -> bool:
        try:
            read()
        except (IntegrityError, PrerequisiteError):
            return False
        return True

    by_types = accepted(lambda: config.load(path))
    assert by_types == accepted(lambda: schema.validate("host-config", document, "configuration"))


def _inline(value: Any) -> str:
    """A value as TOML has it on one line."""
    if isinstance(value, list):
        return f"[{', '.join(map(_inline, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_inline(each)}" for key, each in value.items()) + "}"
    return json.dumps(value)


class Told(Silent):
    """Remembers what was noted."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_a_volume_that_is_a_mount_is_emptied(tmp_path: Path) -> None:
    place, told = tmp_path / "_data", Told()
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", place], check=True)
    try:
        (place / "inner" / "deep").mkdir(parents=True)
        (place / "inner" / "file").touch()
        on_create._empty(place, told)
        assert list(place.iterdir()) == []
        assert told.notes == []
    finally:
        subprocess.run(["umount", place], check=True)


def test_what_cannot_be_emptied_is_told(tmp_path: Path) -> None:
    told = Told()
    on_create._empty(tmp_path / "gone", told)
    assert told.notes == [f"{tmp_path}/gone has files of the checkpoint, which cannot be removed: {os.strerror(2)}"]


def test_nothing_is_written_where_a_volume_is_of_the_host(tmp_path: Path) -> None:
    bundle, place = tmp_path / "overlay-containers" / "c1" / "userdata", tmp_path / "volumes" / "data" / "_data"
    bundle.mkdir(parents=True)
    place.mkdir(parents=True)
    with closing(sqlite3.connect(tmp_path / "db.sql")) as made:
        made.execute("CREATE TABLE VolumeConfig (Name TEXT, JSON TEXT)")
        given = {"volumeDriver": "local", "volumeOptions": {"type": "none", "device": "/srv", "o": "bind"}}
        made.execute("INSERT INTO VolumeConfig VALUES ('data', ?)", (json.dumps(given),))
        made.commit()
    request = SimpleNamespace(bundle=bundle)
    mount = {"destination": "/data", "type": "bind", "source": str(place), "options": ["rbind"]}
    spec = oci.read_bundle({"root": {"path": "/merged"}, "mounts": [mount]}, "bundle")
    written: list[object] = []
    rebuilder = SimpleNamespace(tree=lambda kind, *rest: written.append(kind), extras=lambda: extras.NONE)
    config = SimpleNamespace(named_volumes=(SimpleNamespace(name="data", dest="/data"),))
    saved: Any = SimpleNamespace(rebuilder=rebuilder, config=SimpleNamespace(config=config))
    way = on_create.OnCreate.__new__(on_create.OnCreate)
    way._request, way._undo, way.progress = request, contextlib.ExitStack(), Told()  # type: ignore[assignment]
    target = Target(bundle, spec, tmp_path, "")
    with pytest.raises(IncompatibleError, match="/data, where the container has a directory, device or share"):
        way.fill(saved, target)
    assert written == [Kind.ROOTFS]
    # As a directory that whoever makes the container binds, and as a plain volume, it can be filled.
    with closing(sqlite3.connect(tmp_path / "db.sql")) as made:
        made.execute("DELETE FROM VolumeConfig")
        made.commit()
    way.fill(saved, target)
    assert written[-1] == Kind.VOLUME


def test_storage_knows_the_image(tmp_path: Path) -> None:
    here = tmp_path / "overlay-containers"
    path = here / "abc" / "userdata"
    path.mkdir(parents=True)
    assert storage.image_of(path) == ""
    (here / "containers.json").write_text('[{"id": "x", "image": "1"}]')
    assert storage.image_of(path) == ""
    (here / "volatile-containers.json").write_text('[{"id": "abc", "image": "2"}]')
    assert storage.image_of(path) == "2"
