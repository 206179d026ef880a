"""A podman archive becomes an artifact in a layout and an archive again: nothing is lost, nothing added."""

from __future__ import annotations

import io
import json
import os
import shlex
import sys
import types
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ocickpt import artifact, config, names, pull, push
from ocickpt.artifact import extras
from ocickpt.artifact.extras import Extras, File, Thread
from ocickpt.artifact.parts import Parts
from ocickpt.artifact.rebuild import Rebuilder
from ocickpt.description import Criu, Engine, HostInfo, Runtime
from ocickpt.engine import host
from ocickpt.engine.files.archive import ArchiveWriter, members, nested, tree_contents, tree_tar
from ocickpt.engine.podman import defaults
from ocickpt.engine.podman.volumes import VolumeOptions
from ocickpt.errors import (
    ExistsError,
    IntegrityError,
    NotFoundError,
    OcickptError,
    PrerequisiteError,
    UnsupportedError,
    UsageError,
)
from ocickpt.exchange import podman_archive
from ocickpt.gate import verification
from ocickpt.library import catalog
from ocickpt.memory.pagemap import PE_PRESENT, PageMap
from ocickpt.model import Content, Entry, FileType, Kind, Run, Silent
from ocickpt.store import Access, open_store
from ocickpt.store.reference import Reference
from tests import schema
from tests.unit.test_pagemap import LAZY, PAGE, image, new, old

ID, IMAGE = "c1" * 32, "d2" * 32
CONFIG = {"id": ID, "name": "web", "runtime": "crun", "rootfsImageID": IMAGE, "rootfsImageName": "localhost/web:1"}
SPEC = {
    "process": {"args": ["x"]},
    "linux": {
        "seccomp": {"defaultAction": "SCMP_ACT_ERRNO"},
        "namespaces": [{"type": each} for each in ("pid", "network", "ipc", "uts", "mount", "cgroup")],
    },
}
VOLUMES = {"namedVolumes": [{"volumeName": "data", "dest": "/data"}, {"volumeName": "empty", "dest": "/empty"}]}
# A page of zeros between others, and one that is there twice.
MEMORY = os.urandom(3 * PAGE) + bytes(PAGE) + (b"twice" * PAGE)[:PAGE] * 2
SHARED = (b"shared" * PAGE)[: 2 * PAGE]
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="whiteouts and owners need root")

Files = dict[str, bytes]


@pytest.fixture(autouse=True)
def _pycriu(monkeypatch: pytest.MonkeyPatch) -> None:
    """pycriu is not on every machine; here inventory.img is JSON."""
    module = types.ModuleType("pycriu")
    module.images = types.SimpleNamespace(load=lambda file: {"entries": json.load(file)})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pycriu", module)
    # The rest of CRIU's images is noise here, and the image is on no host: what is looked at is what comes back.
    monkeypatch.setattr(verification, "verify", lambda *_: {})
    monkeypatch.setattr(podman_archive, "_layers", lambda _: (Path("/nonexistent"),))


def checkpoint() -> Files:
    """The members of an archive that podman might have written, but for the nested ones."""
    return {
        "config.dump": json.dumps(CONFIG | VOLUMES).encode(),
        "spec.dump": json.dumps(SPEC).encode(),
        "network.status": b'{"podman": {}}',
        "stats-dump": b"statistics",
        "ctr.log": b"",
        "checkpoint/inventory.img": b'[{"lsmtype": "SELINUX"}]',
        "checkpoint/core-1.img": b'[{"mtype": "AARCH64"}]' + b" " * 2000,
        "checkpoint/descriptors.json": b'["/dev/null", "pipe:[1]", "pipe:[2]"]',
        "checkpoint/tmpfs-dev-73.tar.gz.img": os.urandom(700_000),
        "checkpoint/pagemap-1.img": image(new(0x10000, 2, LAZY), new(0x12000, 1, PE_PRESENT), new(0x20000, 3, LAZY)),
        "checkpoint/pages-7.img": MEMORY,
        "checkpoint/pagemap-shmem-9.img": image(old(0, 1, PE_PRESENT), old(0x5000, 1, PE_PRESENT), pages_id=8),
        "checkpoint/pages-8.img": SHARED,
        "checkpoint/pagemap-2.img": image(pages_id=9),
        "checkpoint/pages-9.img": b"",
    }


def tree(kind: Kind, prefix: str = "") -> list[Content]:
    def placed(path: str) -> str:
        return "/".join(filter(None, (prefix, path)))

    def entry(type_: FileType, path: str, data: bytes = b"", **more: Any) -> Content:
        found = Entry(kind, type_, placed(path), mtime=5_000_000_007, size=len(data), **more)
        return Content(found, (Run(0, len(data)),) if data else (), (lambda: io.BytesIO(data)) if data else None)

    return [
        entry(FileType.DIRECTORY, "" if prefix else ".", mode=0o755),
        entry(FileType.DIRECTORY, "etc", mode=0o2750, uid=3, gid=4),
        entry(FileType.REGULAR, "etc/passwd", b"root", mode=0o4755, xattrs=(("user.x", b"\0y"),)),
        entry(FileType.REGULAR, "etc/empty", mode=0o600),
        entry(FileType.SYMLINK, "etc/link", link="../../outside", mode=0o777),
        entry(FileType.CHARACTER, "etc/null", mode=0o666, major=1, minor=3),
        entry(FileType.FIFO, "etc/pipe", mode=0o644),
        Content(Entry(kind, FileType.HARDLINK, placed("etc/same"), link=placed("etc/passwd"))),
        entry(FileType.REGULAR, "srv-\udcff\u00e9", os.urandom(200_000), mode=0o644),
    ]


def tar(directory: Path, contents: Iterable[Content], strip: str = "") -> bytes:
    path = directory / "nested.tar"
    tree_tar(path, contents, strip=strip)
    return path.read_bytes()


def whole(directory: Path) -> Files:
    """All members, the nested archives too."""
    return checkpoint() | {
        "devshm-checkpoint.tar": tar(directory, [Content(Entry(Kind.STATE, FileType.DIRECTORY, ".", mode=0o1777))]),
        "rootfs-diff.tar": tar(directory, tree(Kind.ROOTFS)),
        "deleted.files": json.dumps(["/usr/share/gone", "/etc/issue"]).encode(),
        "volumes/data.tar": tar(directory, tree(Kind.VOLUME, "data"), "data"),
        "volumes/empty.tar": tar(
            directory, [Content(Entry(Kind.VOLUME, FileType.DIRECTORY, "empty", mode=0o700, uid=9))], "empty"
        ),
    }


def written(path: Path, files: Mapping[str, bytes], compression: str = "none") -> Path:
    with ArchiveWriter(path, compression) as archive:
        archive.add_directory("checkpoint")
        for name, data in files.items():
            archive.add_bytes(name, data)
    return path


def read(path: Path) -> dict[str, Any]:
    """Members and their content; of nested archives what they hold."""
    found: dict[str, Any] = {}
    for member in members(path):
        if member.type is FileType.DIRECTORY:
            continue
        if member.name.endswith(".tar"):
            found[member.name] = [
                (content.entry, content.open().read() if content.open else b"")
                for content in tree_contents(nested(member.stream), Kind.ROOTFS)
            ]
        else:
            found[member.name] = member.stream.read()
    return found


def sent(path: Path, tmp_path: Path, tag: str = "x") -> str:
    ref = f"oci:{tmp_path / 'layout'}:{tag}"
    push(str(path), ref)
    return ref


ALLOW = ("seccomp=unconfined", *(f"unmask={path}" for path in sorted(defaults.MASKED | defaults.READONLY)))
"""What the containers of these archives ask for: their specifications say hardly anything."""


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
def test_there_and_back(tmp_path: Path, compression: str) -> None:
    files = whole(tmp_path)
    files["deleted.files"] = json.dumps(["/etc/issue", "/usr/share/gone"]).encode()
    ref = sent(written(tmp_path / "in.tar", files, compression), tmp_path)
    pulled = pull(ref, output=tmp_path / "out.tar", allow=ALLOW)
    assert pulled.path == str(tmp_path / "out.tar")
    before, after = read(tmp_path / "in.tar"), read(tmp_path / "out.tar")
    assert set(after) == set(before)
    for name, content in before.items():
        if name in ("config.dump", "spec.dump"):  # podman gets to see of these what it is allowed to
            assert set(json.loads(content)) <= set(json.loads(after[name])), name
        else:
            assert after[name] == content, name
    assert sorted(each.name for each in tmp_path.iterdir() if each.name.startswith(".")) == []


def test_what_is_told_of_it(tmp_path: Path) -> None:
    ref = sent(written(tmp_path / "in.tar", whole(tmp_path)), tmp_path)
    found = catalog.inspect(ref, Access())
    told = found.description
    assert (told.container.name, told.container.id, told.runtime.name) == ("web", ID, "crun")
    assert (told.image.name, told.image.id, told.image.digest) == ("localhost/web:1", IMAGE, "")
    assert [(each.name, each.destination) for each in told.volumes] == [("data", "/data"), ("empty", "/empty")]
    assert told.security.images_lsm == "selinux"
    assert told.security.seccomp.mode == "filter"
    contents = dict(told.contents.items())
    assert contents[Kind.MEMORY].files == 3
    # Pages of zeros do not count, repeated ones do.
    assert contents[Kind.MEMORY].bytes == len(MEMORY) + len(SHARED) - PAGE
    assert contents[Kind.ROOTFS].files == len(tree(Kind.ROOTFS)) + 2
    schema.validate("checkpoint-config", told.to_json(), "config")
    document = json.loads(found.manifest.to_bytes())
    schema.validate("checkpoint-manifest", document, "manifest")
    titles = [layer["annotations"][names.ANNOTATION_TITLE] for layer in document["layers"]]
    assert titles == ["index", "boot-1.zst", "state-1.zst", "memory-1.zst", "rootfs-1.zst", "volume-1.zst"]


def asking(tmp_path: Path, **more: Any) -> str:
    """The reference of a checkpoint whose container would publish a port and be started again."""
    port = {"host_ip": "", "container_port": 80, "host_port": 8080, "range": 1, "protocol": "tcp"}
    config = CONFIG | {"newPortMappings": [port], "restart_policy": "always"} | more
    files = whole(tmp_path) | {"config.dump": json.dumps(config).encode()}
    return sent(written(tmp_path / "in.tar", files), tmp_path)


def test_what_it_asks_for_is_told_and_refused_in_the_same_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref, out = asking(tmp_path), tmp_path / "out.tar"
    asks = [each.option for each in catalog.inspect(ref, Access()).asks]
    assert asks[-2:] == ["port=8080", "restart=always"]
    assert {*asks[:-2]} <= {*ALLOW}
    with pytest.raises(PrerequisiteError) as raised:
        pull(ref, output=out)
    assert [shlex.split(line)[1] for line in raised.value.message.splitlines()[1:]] == asks
    with pytest.raises(PrerequisiteError) as raised:
        pull(ref, output=out, allow=asks[:-1])
    assert [line.split()[:2] for line in raised.value.message.splitlines()[1:]] == [["--allow", "restart=always"]]
    assert not out.exists()
    with pytest.raises(UsageError, match="--allow goes with -o"):
        pull(ref, allow=asks)

    # What the host always allows the repository counts as what the caller allows.
    host_config = tmp_path / "config.toml"
    monkeypatch.setattr(config, "PATH", host_config)
    host_config.write_text(f'[[allow]]\nrepository = "oci:{tmp_path}"\nasks = ["restart=always", "port=8080"]\n')
    assert pull(ref, output=out, allow=ALLOW).path == str(out)
    out.unlink()
    host_config.write_text(f'[[allow]]\nrepository = "oci:{tmp_path}x"\nasks = ["restart=always", "port=8080"]\n')
    with pytest.raises(PrerequisiteError, match="--allow port=8080"):
        pull(ref, output=out, allow=ALLOW)
    host_config.write_text(f'[[allow]]\nrepository = "oci:{tmp_path}"\nasks = ["anything"]\n')
    with pytest.raises(PrerequisiteError, match="'anything' says nothing that can be allowed"):
        pull(ref, output=out, allow=asks)
    with pytest.raises(UsageError, match="'anything' says nothing"):
        pull(ref, output=out, allow=["anything"])
    assert not out.exists()


class Told(Silent):
    """Remembers what was noted."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def pulled(tmp_path: Path, saved: Extras) -> tuple[dict[str, Any], list[str]]:
    """The archive that a checkpoint with these extras becomes, and what is said of it."""
    ref = sent(written(tmp_path / "in.tar", whole(tmp_path) | {extras.NAME: saved.to_bytes()}), tmp_path)
    told, out = Told(), tmp_path / "out.tar"
    pull(ref, output=out, allow=(*ALLOW, "volume-opt=data:type=none,device=/srv/x,o=bind"), progress=told)
    return read(out), [note for note in told.notes if not note.startswith("the container gets what others do not")]


def test_podman_needs_to_be_told_nothing_of_plain_volumes(tmp_path: Path) -> None:
    found, notes = pulled(tmp_path, extras.NONE)
    assert {"volumes/data.tar", "volumes/empty.tar"} <= found.keys()
    assert notes == []


def test_what_podman_does_not_do_with_an_archive_is_told(tmp_path: Path) -> None:
    """It fills all volumes, and wants none of them to be there, or none."""
    found, notes = pulled(
        tmp_path,
        Extras(
            threads=(Thread(1, "2"),),
            files=(File("/etc/hosts", b"1.2.3.4 x\n"),),
            volumes=(VolumeOptions("data", "none", "/srv/x", "bind"), VolumeOptions("empty", "tmpfs", "tmpfs")),
        ),
    )
    assert "volumes/empty.tar" in found
    assert "volumes/data.tar" not in found
    assert extras.NAME not in found
    tar = f"tar -xOf {tmp_path}/out.tar volumes/empty.tar"
    assert notes == [
        "podman makes data a plain volume, unless `podman volume create --opt=type=none --opt=device=/srv/x"
        " --opt=o=bind data` did it before",
        "podman makes empty a plain volume",
        "`podman container restore` needs --ignore-volumes, for there is no content of data in it; then it fills no"
        " other either",
        f"`podman volume create empty` and `{tar} | podman volume import empty -` before bring back empty",
        "podman gives nothing back of what is unusual about its threads, its changes to /etc/hosts: `ocickpt restore`"
        " does",
    ]


def test_what_no_restore_takes_can_be_looked_at(tmp_path: Path) -> None:
    found = catalog.inspect(asking(tmp_path, restart_policy="sometimes"), Access())
    assert (found.asks, found.trouble) == ((), "'sometimes' is not a restart policy")
    assert found.description.container.name == "web"


@pytest.mark.parametrize(
    ("core", "arch"),
    [
        (b'[{"mtype": "X86_64"}]', "amd64"),
        (b'[{"mtype": "PPC64"}]', "ppc64le"),
        (b'[{"mtype": 8}]', "riscv64"),
        (b'[{"mtype": "UNKNOWN"}]', ""),
        (b"[{}]", ""),
        (None, ""),
    ],
)
def test_nothing_is_told_of_this_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, core: bytes | None, arch: str
) -> None:
    """Who pushes an archive may be on another host than who made it."""
    for name in ("facts", "podman_version", "runtime_version"):
        monkeypatch.setattr(host, name, lambda *_: pytest.fail("it says nothing of what the archive is of"))
    files = whole(tmp_path)
    files.pop("checkpoint/core-1.img")
    if core is not None:
        files["checkpoint/core-1.img"] = core
    told = catalog.inspect(sent(written(tmp_path / "in.tar", files), tmp_path), Access()).description
    assert told.host == HostInfo(arch, "", "", (), PAGE, "")
    assert (told.engine, told.runtime, told.criu) == (Engine("podman", ""), Runtime("crun", ""), Criu(""))
    schema.validate("checkpoint-config", told.to_json(), "config")


def test_the_same_archive_makes_the_same_packs(tmp_path: Path) -> None:
    files = whole(tmp_path)
    layers = []
    for number, compression in enumerate(("none", "zstd")):
        path = written(tmp_path / f"{number}.tar", files, compression)
        ref = f"oci:{tmp_path / str(number)}:x"
        push(str(path), ref)
        layers.append(catalog.inspect(ref, Access()).manifest.layers)
    assert layers[0] == layers[1]


def test_the_next_one_builds_upon_it(tmp_path: Path) -> None:
    path = written(tmp_path / "in.tar", whole(tmp_path))
    first = push(str(path), f"oci:{tmp_path / 'layout'}:x")
    second = push(str(path), f"oci:{tmp_path / 'layout'}:x")
    assert first.present == 0
    assert second.present > 0
    assert catalog.inspect(second.reference, Access()).description.parent == first.digest
    pull(f"oci:{tmp_path / 'layout'}:x", output=tmp_path / "out.tar", allow=ALLOW)
    assert read(tmp_path / "out.tar")["checkpoint/pages-7.img"] == MEMORY


def test_through_the_local_store(tmp_path: Path) -> None:
    pushed = push(str(written(tmp_path / "in.tar", whole(tmp_path))), "web:1")
    away = push("web:1", f"oci:{tmp_path / 'layout'}:x")
    assert away.digest == pushed.digest
    assert [each.name for each in catalog.list_checkpoints(None, Access())] == ["web:1"]
    pulled = pull(f"oci:{tmp_path / 'layout'}:x")
    assert pulled.reference == "layout:x"
    assert {each.name for each in catalog.list_checkpoints(None, Access())} == {"web:1", "layout:x"}
    assert catalog.remove("web:1", Access(), Silent()).freed == 0
    assert catalog.remove("layout:x", Access(), Silent()).freed == pushed.size
    assert catalog.list_checkpoints(None, Access()) == []


@pytest.mark.parametrize("lazy", [False, True])
def test_pages_alone(tmp_path: Path, lazy: bool) -> None:
    """What a restore through the shim writes; lazily only what must be there before the first instruction."""
    ref = Reference.parse(sent(written(tmp_path / "in.tar", whole(tmp_path)), tmp_path))
    with closing(open_store(ref)) as store:
        index = artifact.load_index(store, artifact.open(store, ref).manifest)
        rebuilder = Rebuilder(index, store, Silent())
        (tmp_path / "pages").mkdir()
        rebuilder.pages(tmp_path / "pages", lazy=lazy)
        rebuilder.skeleton(tmp_path / "skeleton.tar", {"config.dump": b"mine", "checkpoint/marker": b"k"}, tmp_path)
    found = {path.name: path.read_bytes() for path in (tmp_path / "pages").iterdir()}
    eager = bytes(2 * PAGE) + MEMORY[2 * PAGE : 3 * PAGE] + bytes(3 * PAGE)
    assert found == {"pages-7.img": eager if lazy else MEMORY, "pages-8.img": SHARED, "pages-9.img": b""}
    skeleton = read(tmp_path / "skeleton.tar")
    assert skeleton["config.dump"] == b"mine"
    assert skeleton["checkpoint/marker"] == b"k"
    assert not [name for name in skeleton if "pages-" in name or name.startswith(("volumes", "rootfs", "deleted"))]


def test_what_is_replaced_is_in_all_that_is_written(tmp_path: Path) -> None:
    """In place of an image, or besides: in archives, and where CRIU reads images."""
    ref = Reference.parse(sent(written(tmp_path / "in.tar", whole(tmp_path)), tmp_path))
    with closing(open_store(ref)) as store:
        rebuilder = Rebuilder(artifact.load_index(store, artifact.open(store, ref).manifest), store, Silent())
        held = rebuilder.file("checkpoint/inventory.img")
        inside = b"mine"
        rebuilder.replace({"checkpoint/inventory.img": inside})
        rebuilder.replace({"checkpoint/seccomp.img": b"more"})
        assert rebuilder.file("checkpoint/inventory.img") == held != rebuilder.written("checkpoint/inventory.img")
        assert "checkpoint/seccomp.img" in rebuilder.small_files()
        for name in ("images", "over", "skeleton", "whole"):
            (tmp_path / name).mkdir()
        rebuilder.images(tmp_path / "images")
        (tmp_path / "over" / "inventory.img").write_bytes(b"a longer one")
        rebuilder.replaced_images(tmp_path / "over")
        rebuilder.skeleton(tmp_path / "skeleton.tar", {"config.dump": b"config"}, tmp_path / "skeleton")
        rebuilder.whole(tmp_path / "whole.tar", {"config.dump": b"config"}, tmp_path / "whole")
    for directory in ("images", "over"):
        assert (tmp_path / directory / "inventory.img").read_bytes() == inside
        assert (tmp_path / directory / "seccomp.img").read_bytes() == b"more"
    assert {path.name for path in (tmp_path / "over").iterdir()} == {"inventory.img", "seccomp.img"}
    for written_anew in ("skeleton.tar", "whole.tar"):
        found = read(tmp_path / written_anew)
        assert found["checkpoint/inventory.img"] == inside
        assert found["checkpoint/seccomp.img"] == b"more"
        assert found["config.dump"] == b"config"


def test_what_is_in_a_volume_of_the_host_is_not_taken(tmp_path: Path) -> None:
    """Without the shim podman exports all volumes: who pulls the checkpoint would have a directory of the host's."""
    path = written(tmp_path / "in.tar", whole(tmp_path))
    saved = Extras(volumes=(VolumeOptions("data", "none", "/srv", "bind"), VolumeOptions("empty", "tmpfs", "tmpfs")))
    (tmp_path / extras.NAME).write_bytes(saved.to_bytes())
    parts = Parts(path, extras=tmp_path / extras.NAME)
    assert {each.entry.path for each in parts if each.entry.kind is Kind.VOLUME} == {"empty"}


@needs_root
def test_what_the_shim_set_aside(tmp_path: Path) -> None:
    """The small export and the captured trees make the same checkpoint as a whole archive."""
    files = checkpoint()
    aside, lower = tmp_path / "aside", tmp_path / "lower"
    (aside / "volumes" / "data").mkdir(parents=True)
    (lower / "opaque").mkdir(parents=True)
    (lower / "opaque" / "hidden").touch()
    for name in [name for name in files if "/pages-" in name]:
        (aside / name.rpartition("/")[2]).write_bytes(files.pop(name))
    upper = aside / "rootfs"
    (upper / "opaque").mkdir(parents=True)
    os.setxattr(upper / "opaque", "trusted.overlay.opaque", b"y")
    (upper / "file").write_text("changed")
    os.mknod(upper / "gone", 0o020000, os.makedev(0, 0))
    (aside / "volumes" / "data" / "kept").write_text("volume")
    (upper / "link").symlink_to("x" * 300)  # no name is that long
    parts = Parts(written(tmp_path / "export.tar", files), aside, [str(lower), str(tmp_path / "no")])
    assert parts.size() > (tmp_path / "export.tar").stat().st_size
    contents = list(parts)
    rootfs = {(each.entry.type, each.entry.path) for each in contents if each.entry.kind is Kind.ROOTFS}
    assert rootfs == {
        (FileType.DIRECTORY, "."),
        (FileType.REGULAR, "file"),
        (FileType.SYMLINK, "link"),
        (FileType.WHITEOUT, "gone"),
        (FileType.OPAQUE, "opaque"),
        (FileType.WHITEOUT, "opaque/hidden"),
    }
    volume = [each.entry.path for each in contents if each.entry.kind is Kind.VOLUME]
    assert volume == ["data", "data/kept"]
    memory: dict[tuple[Kind, str], bytes] = {}
    for content in contents:
        if content.entry.type is FileType.PAGES and content.open:
            with content.open() as stream:
                memory[content.entry.kind, content.entry.path] = stream.read()
    eager = MEMORY[2 * PAGE : 3 * PAGE]
    assert memory[Kind.BOOT, f"{names.EAGER}checkpoint/pagemap-1.img"] == eager
    assert memory[Kind.MEMORY, "checkpoint/pagemap-1.img"] == MEMORY[: 2 * PAGE] + MEMORY[3 * PAGE :]


def test_memory_that_criu_takes_for_a_stack_may_follow(tmp_path: Path) -> None:
    """A pagemap without lazy pages gets them from the mappings; one that has some is left as it is."""
    entries = (0x10000, 2), (0x12000, 1), (0x20000, 3)
    vma = {"start": 0x11000, "end": 0x13000, "flags": 0x22, "status": 0x201}
    mappings = {"checkpoint/mm-1.img": json.dumps([{"vmas": [vma]}]).encode()}
    unmarked = image(*(new(*entry, PE_PRESENT) for entry in entries))
    for pagemap, lazy in ((unmarked, 2 * PAGE), (checkpoint()["checkpoint/pagemap-1.img"], 5 * PAGE)):
        files = mappings | checkpoint() | {"checkpoint/pagemap-1.img": pagemap}
        contents = Parts(written(tmp_path / "export.tar", files))
        path, regular = "checkpoint/pagemap-1.img", FileType.REGULAR
        (found,) = (each for each in contents if (each.entry.path, each.entry.type) == (path, regular))
        assert found.open
        with found.open() as stream:
            assert PageMap.parse(data := stream.read()).lazy_bytes == lazy
        assert len(data) == found.entry.size


def without(name: str) -> Files:
    files = checkpoint()
    del files[name]
    return files


BROKEN: dict[str, tuple[Files, str]] = {
    "no configuration": (without("config.dump"), "has no config.dump"),
    "no specification": (without("spec.dump"), "has no spec.dump"),
    "no inventory": (without("checkpoint/inventory.img"), "has no checkpoint/inventory.img"),
    "no pages": (without("checkpoint/pages-7.img"), "without their pages"),
    "no pagemap": (without("checkpoint/pagemap-1.img"), "without its pagemap"),
    "pages that end early": (checkpoint() | {"checkpoint/pages-7.img": MEMORY[:-PAGE]}, "pagemap"),
    "pages that go on": (checkpoint() | {"checkpoint/pages-7.img": MEMORY + bytes(PAGE)}, "pagemap"),
    "pages of two": (
        {"checkpoint/pagemap-3.img": image(new(0x10000, 1, LAZY))} | checkpoint(),
        "claims the pages of another",
    ),
    "a pagemap that is none": (checkpoint() | {"checkpoint/pagemap-1.img": b"x" * 100}, "pagemap"),
    "a configuration that is none": (checkpoint() | {"config.dump": b"[]"}, "not a JSON object"),
    "a specification that is none": (checkpoint() | {"spec.dump": b"{"}, "not JSON"),
    "deleted files that are none": (checkpoint() | {"deleted.files": b'{"a": 1}'}, "not a list of paths"),
    "deleted files elsewhere": (checkpoint() | {"deleted.files": b'["/../../etc/passwd"]'}, "path"),
    "the root deleted": (checkpoint() | {"deleted.files": b'["/"]'}, "path"),
    "a rootfs that is no archive": (checkpoint() | {"rootfs-diff.tar": b"x" * 2000}, "archive"),
    "a file nobody knows": (checkpoint() | {"checkpoint/parent/pages-1.img": b"x"}, "no part of a checkpoint"),
    "another engine's file": (checkpoint() | {"bind.mounts": b"[]"}, "no part of a checkpoint"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_is_no_checkpoint_is_not_pushed(tmp_path: Path, what: str) -> None:
    files, reason = BROKEN[what]
    path = written(tmp_path / "in.tar", files)
    with pytest.raises((IntegrityError, UnsupportedError), match=reason):
        sent(path, tmp_path)
    assert catalog.list_checkpoints(f"oci:{tmp_path / 'layout'}", Access()) == []


def test_an_incremental_dump_is_refused(tmp_path: Path) -> None:
    with ArchiveWriter(tmp_path / "in.tar") as archive:
        for name, data in checkpoint().items():
            archive.add_bytes(name, data)
        archive.add_entry(Entry(Kind.STATE, FileType.SYMLINK, "checkpoint/parent", link="../pre-checkpoint"))
    with pytest.raises(IntegrityError, match="incremental"):
        sent(tmp_path / "in.tar", tmp_path)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 0.999])
@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
def test_a_truncated_archive_is_not_pushed(tmp_path: Path, share: float, compression: str) -> None:
    path = written(tmp_path / "in.tar", whole(tmp_path), compression)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(IntegrityError):
        sent(path, tmp_path)
    assert catalog.list_checkpoints(f"oci:{tmp_path / 'layout'}", Access()) == []


def test_what_a_push_needs(tmp_path: Path) -> None:
    path = written(tmp_path / "in.tar", checkpoint())
    with pytest.raises(UsageError, match="digest"):
        push(str(path), f"oci:{tmp_path / 'layout'}@sha256:{'0' * 64}")
    with pytest.raises(NotFoundError, match="no file"):
        push(str(tmp_path / "none.tar"), f"oci:{tmp_path / 'layout'}:x")
    with pytest.raises(NotFoundError):
        push("none:1", f"oci:{tmp_path / 'layout'}:x")
    with pytest.raises(OcickptError):
        push(str(tmp_path), f"oci:{tmp_path / 'layout'}:x")


def test_what_a_pull_leaves_alone(tmp_path: Path) -> None:
    ref = sent(written(tmp_path / "in.tar", checkpoint()), tmp_path)
    out = tmp_path / "out.tar"
    out.write_text("mine")
    with pytest.raises(ExistsError):
        pull(ref, output=out, allow=ALLOW)
    assert out.read_text() == "mine"
    out.unlink()
    # The pack with the memory is damaged: no file appears, and nothing is left beside it.
    (blob,) = [each for each in catalog.inspect(ref, Access()).manifest.layers if "memory" in each.media_type]
    pack = tmp_path / "layout" / "blobs" / "sha256" / blob.digest.removeprefix("sha256:")
    data = bytearray(pack.read_bytes())
    data[len(data) // 2] ^= 1
    pack.chmod(0o644)
    pack.write_bytes(data)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(IntegrityError):
        pull(ref, output=out, allow=ALLOW)
    with pytest.raises(NotFoundError):
        pull(f"oci:{tmp_path / 'layout'}:none", output=out, allow=ALLOW)
    assert sorted(tmp_path.iterdir()) == before


def _iterated(contents: Parts) -> Iterator[Content]:
    """Contents can be read while they are iterated only."""
    for content in contents:
        if content.open:
            with content.open() as stream:
                stream.read()
        yield content


def test_contents_count_what_they_gave(tmp_path: Path) -> None:
    contents = Parts(written(tmp_path / "in.tar", whole(tmp_path)))
    found = list(_iterated(contents))
    assert sum(contents.files.values()) == len(found)
    assert contents.files[Kind.VOLUME] == len(tree(Kind.VOLUME)) + 1
    assert set(contents.kept) == {"config.dump", "spec.dump", "checkpoint/inventory.img"}
    assert contents.size() == (tmp_path / "in.tar").stat().st_size
    state = {each.entry.path for each in found if each.entry.kind is Kind.STATE}
    assert state == {"checkpoint/tmpfs-dev-73.tar.gz.img"}, "what is too large for the boot pack"
