"""Walking, copying and writing trees: what comes out is what went in."""

from __future__ import annotations

import os
import random
import shutil
import socket
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ocickpt.engine.files import capture as capture_module
from ocickpt.engine.files import treewriter
from ocickpt.engine.files.tree import TreeWriter, capture, hidden_by, walk
from ocickpt.errors import StorageError, UnsupportedError
from ocickpt.model import Content, FileType, Kind, Run

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="owners, devices and trusted attributes need root")
SHORT = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def apply(contents: list[Content], target: Path, strip: str = "") -> TreeWriter:
    """Write `contents` into `target`, as a restore does."""
    with TreeWriter(target) as writer:
        writer.prepare([(number, content.entry) for number, content in enumerate(contents)], strip=strip)
        for number, content in enumerate(contents):
            if content.open:
                with content.open() as stream:
                    for run in content.runs:
                        writer.write(number, run.offset, memoryview(stream.read(run.length)))
        writer.finish()
    return writer


def read(content: Content) -> bytes:
    assert content.open
    with content.open() as stream:
        return stream.read()


def described(root: Path, kind: Kind = Kind.VOLUME, *, overlay: bool = False) -> list[tuple[object, ...]]:
    """All that a tree is, to be compared with another."""
    return [
        (content.entry, tuple(content.runs), read(content) if content.open else b"")
        for content in walk(root, kind, overlay=overlay)
    ]


def fill(root: Path) -> None:
    """One of everything."""
    (root / "plain").write_bytes(b"hello")
    (root / "plain").chmod(0o640)
    os.chown(root / "plain", 1000, 2000)
    (root / "empty").touch()
    (root / "setuid").write_bytes(b"#!")
    (root / "setuid").chmod(0o4755)
    os.setxattr(root / "setuid", "user.note", b"\0binary\xff")
    os.setxattr(root / "setuid", "security.capability", b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0")
    (root / "dir").mkdir(mode=0o700)
    (root / "dir" / "deep").mkdir()
    os.setxattr(root / "dir", "trusted.note", b"t")
    (root / "dir" / "deep" / "\udcff\udcfename").write_text("bytes that are not UTF-8")
    (root / "dir" / "link").hardlink_to(root / "plain")
    (root / "a symlink").symlink_to("../../etc/passwd")
    os.chown(root / "a symlink", 7, 8, follow_symlinks=False)
    os.mkfifo(root / "fifo")
    os.mknod(root / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(root / "block", stat.S_IFBLK | 0o600, os.makedev(300, 70000))
    with (root / "sparse").open("wb") as file:
        file.truncate(10 << 20)
        file.seek(1 << 20)
        file.write(b"x" * 65536)
        file.seek(5 << 20)
        file.write(b"y" * 4096)
    (root / "dir" / "sticky").mkdir()
    (root / "dir" / "sticky").chmod(0o1777)
    for path in (root / "plain", root / "dir", root / "dir" / "deep", root / "a symlink", root):
        os.utime(path, ns=(0, 1_234_567_890_123_456_789), follow_symlinks=False)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    root.mkdir()
    fill(root)
    return root


@needs_root
def test_walking_gives_everything_sorted_with_parents_first(tree: Path) -> None:
    contents = list(walk(tree, Kind.VOLUME, "data"))
    entries = {content.entry.path: content.entry for content in contents}
    paths = list(entries)
    assert paths[0] == "data"
    assert paths == sorted(paths, key=lambda path: path.split("/"))
    assert entries["data/a symlink"].link == "../../etc/passwd"
    assert (entries["data/a symlink"].uid, entries["data/a symlink"].gid) == (7, 8)
    assert entries["data/dir"].mode == 0o700
    assert entries["data/dir"].xattrs == (("trusted.note", b"t"),)
    assert entries["data/setuid"].mode == 0o4755
    assert [name for name, _ in entries["data/setuid"].xattrs] == ["security.capability", "user.note"]
    assert (entries["data/block"].type, entries["data/block"].major, entries["data/block"].minor) == (
        FileType.BLOCK,
        300,
        70000,
    )
    assert entries["data/dir/link"].type is FileType.REGULAR
    assert entries["data/plain"].type is FileType.HARDLINK
    assert entries["data/plain"].link == "data/dir/link"
    assert entries["data/dir/link"].mtime == 1_234_567_890_123_456_789
    assert entries["data/dir/deep/\udcff\udcfename"].size == 24
    assert {entry.kind for entry in entries.values()} == {Kind.VOLUME}


@needs_root
def test_holes_are_no_runs_and_are_not_read(tree: Path) -> None:
    sparse = next(content for content in walk(tree, Kind.ROOTFS) if content.entry.path == "sparse")
    assert list(sparse.runs) == [Run(1 << 20, 65536), Run(5 << 20, 4096)]
    assert read(sparse) == b"x" * 65536 + b"y" * 4096
    assert sparse.entry.size == 10 << 20


@needs_root
def test_writing_a_walked_tree_gives_the_same_tree(tree: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    writer = apply(list(walk(tree, Kind.VOLUME, "data")), target, strip="data")
    assert writer.refused == []
    assert described(target) == described(tree)
    assert (target / "plain").stat().st_ino == (target / "dir" / "link").stat().st_ino
    assert (target / "sparse").stat().st_blocks < 1000


@needs_root
def test_capturing_gives_the_same_tree(tree: Path, tmp_path: Path) -> None:
    os.setxattr(tree / "dir", "trusted.overlay.opaque", b"y")
    os.mknod(tree / "gone", stat.S_IFCHR, 0)
    copied = capture(tree, tmp_path / "copy")
    assert copied == 5 + 2 + 24 + 65536 + 4096
    assert described(tmp_path / "copy") == described(tree)
    assert described(tmp_path / "copy", overlay=True) == described(tree, overlay=True)
    assert os.getxattr(tmp_path / "copy" / "dir", "trusted.overlay.opaque") == b"y"
    assert (tmp_path / "copy" / "sparse").stat().st_blocks < 1000


@needs_root
@pytest.mark.parametrize("call", ["fcntl.ioctl", "os.copy_file_range"])
def test_capturing_without_what_this_filesystem_offers(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def refuse(*args: object) -> int:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(call, refuse)
    capture(tree, tmp_path / "copy")
    monkeypatch.undo()
    assert described(tmp_path / "copy") == described(tree)


@needs_root
def test_sockets_are_left_out(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = described(tree)
    monkeypatch.chdir(tree / "dir" / "deep")
    with socket.socket(socket.AF_UNIX) as made:
        made.bind("socket")
    os.utime(tree / "dir" / "deep", ns=(0, 1_234_567_890_123_456_789))
    assert described(tree) == before
    capture(tree, tmp_path / "copy")
    assert not (tmp_path / "copy" / "dir" / "deep" / "socket").exists()


def test_a_file_that_changes_is_an_error_and_not_a_mixture(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"1" * 5000)
    (content,) = [found for found in walk(tmp_path, Kind.VOLUME) if found.open]
    assert read(content) == b"1" * 5000
    (tmp_path / "log").write_bytes(b"2" * 6000)
    with pytest.raises(StorageError, match="log changed"):
        read(content)
    (tmp_path / "log").unlink()
    with pytest.raises(StorageError, match="log: No such file"):
        read(content)
    (tmp_path / "log").symlink_to("/etc/passwd")
    with pytest.raises(StorageError, match="log: "):
        read(content)


def test_a_directory_that_becomes_a_symlink_is_not_followed(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    (root / "dir").mkdir(parents=True)
    (root / "dir" / "file").write_bytes(b"inside")
    outside.mkdir()
    (outside / "file").write_bytes(b"secret")
    contents = list(walk(root, Kind.VOLUME))
    (root / "dir").rename(root / "was")
    (root / "dir").symlink_to(outside)
    with pytest.raises(StorageError):
        read(contents[-1])
    walking = walk(root, Kind.VOLUME)
    assert not any("secret" in str(read(content)) for content in walking if content.open)


def test_what_cannot_be_walked_or_copied(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="No such file"):
        list(walk(tmp_path / "missing", Kind.VOLUME))
    with pytest.raises(StorageError, match="No such file"):
        capture(tmp_path / "missing", tmp_path / "copy")
    with pytest.raises(StorageError, match="File exists"):
        capture(tmp_path, tmp_path)
    with pytest.raises(StorageError, match="No such file"):
        TreeWriter(tmp_path / "missing")


def test_nesting_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "source" / "/".join("d" * 12)).mkdir(parents=True)
    monkeypatch.setattr(capture_module, "MAX_DEPTH", 12)
    capture(tmp_path / "source", tmp_path / "copy")
    monkeypatch.setattr(capture_module, "MAX_DEPTH", 11)
    with pytest.raises(UnsupportedError, match="nested deeper"):
        capture(tmp_path / "source", tmp_path / "again")


def test_what_no_index_holds_is_not_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / ("n" * 200)).touch()
    (source / "long").symlink_to("x" * 300)
    capture(source, tmp_path / "copy")
    assert str((tmp_path / "copy" / "long").readlink()) == "x" * 300
    monkeypatch.setattr(capture_module, "_LONGEST", 200)
    with pytest.raises(UnsupportedError, match="n… has a path of more than 194 bytes"):
        capture(source, tmp_path / "again")
    monkeypatch.undo()
    monkeypatch.setattr(capture_module, "_LATEST", time.time_ns() - (1 << 40))
    with pytest.raises(UnsupportedError, match="is of a year after 2262"):
        capture(source, tmp_path / "later")


def test_a_path_that_cannot_be_named_whole(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    opened = os.open(source, os.O_RDONLY)
    for _ in range(25):
        os.mkdir("d" * 200, dir_fd=opened)
        inner = os.open("d" * 200, os.O_RDONLY, dir_fd=opened)
        os.close(opened)
        opened = inner
    os.close(opened)
    with pytest.raises(UnsupportedError, match="has a path of more than 4090 bytes"):
        capture(source, tmp_path / "copy")
    shutil.rmtree(source)  # pytest does not get that far
    shutil.rmtree(tmp_path / "copy")


@needs_root
def test_content_in_another_layer_is_taken_where_the_overlay_shows_it(tmp_path: Path) -> None:
    """As if the overlay was mounted: what is marked comes from there, and the copy has no marks but "opaque"."""
    upper, merged = tmp_path / "upper", tmp_path / "merged"
    for root, content in ((upper, b"\0" * 7), (merged, b"content")):
        (root / "moved").mkdir(parents=True)
        (root / "changed").write_bytes(content)
    (merged / "moved" / "below").write_bytes(b"of the image")
    (upper / "changed").chmod(0o600)
    os.setxattr(upper / "changed", "trusted.overlay.metacopy", b"")
    os.setxattr(upper / "changed", "trusted.overlay.redirect", b"/was")
    os.setxattr(upper / "moved", "trusted.overlay.redirect", b"/image")
    capture(upper, tmp_path / "copy", merged)
    found = {content.entry.path: content for content in walk(tmp_path / "copy", Kind.ROOTFS, overlay=True)}
    assert {path: content.entry.type for path, content in found.items()} == {
        ".": FileType.DIRECTORY,
        "changed": FileType.REGULAR,
        "moved": FileType.OPAQUE,
        "moved/below": FileType.REGULAR,
    }
    assert read(found["changed"]) == b"content"
    assert found["changed"].entry.mode == 0o600
    assert read(found["moved/below"]) == b"of the image"
    # Where it is not mounted nothing is lost in silence.
    (merged / "changed").unlink()
    with pytest.raises(StorageError, match="cannot copy changed: No such file"):
        capture(upper, tmp_path / "again", merged)
    (merged / "changed").symlink_to("/etc/passwd")
    with pytest.raises(StorageError, match="cannot copy changed: Too many levels of symbolic links"):
        capture(upper, tmp_path / "never", merged)


@needs_root
def test_marks_of_an_upper_directory(tmp_path: Path) -> None:
    upper = tmp_path / "upper"
    (upper / "opaque").mkdir(parents=True)
    os.setxattr(upper / "opaque", "trusted.overlay.opaque", b"y")
    (upper / "holder").mkdir()
    os.setxattr(upper / "holder", "trusted.overlay.opaque", b"x")
    (upper / "holder" / "gone").touch()
    os.setxattr(upper / "holder" / "gone", "trusted.overlay.whiteout", b"")
    os.mknod(upper / "deleted", stat.S_IFCHR, 0)
    (upper / "deleted2").hardlink_to(upper / "deleted")
    found = {content.entry.path: content.entry for content in walk(upper, Kind.ROOTFS, overlay=True)}
    assert {path: entry.type for path, entry in found.items()} == {
        ".": FileType.DIRECTORY,
        "deleted": FileType.WHITEOUT,
        "deleted2": FileType.WHITEOUT,
        "holder": FileType.DIRECTORY,
        "holder/gone": FileType.WHITEOUT,
        "opaque": FileType.OPAQUE,
    }
    assert not any(entry.xattrs for entry in found.values())
    for name in ("redirect", "metacopy"):
        os.setxattr(upper / "opaque", f"trusted.overlay.{name}", b"/x")
        with pytest.raises(UnsupportedError, match=f"opaque .*{name}"):
            list(walk(upper, Kind.ROOTFS, overlay=True))
        os.removexattr(upper / "opaque", f"trusted.overlay.{name}")


class Overlay:
    """An overlay mounted below a temporary directory."""

    def __init__(self, base: Path, name: str, lower: Path, metacopy: str = "off") -> None:
        self.upper, self.merged = base / name / "upper", base / name / "merged"
        for directory in (self.upper, self.merged, base / name / "work"):
            directory.mkdir(parents=True)
        options = f"lowerdir={lower},upperdir={self.upper},workdir={base / name / 'work'}"
        options += f",redirect_dir={metacopy},metacopy={metacopy},index=off"
        subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, self.merged], check=True)

    def unmount(self) -> None:
        subprocess.run(["umount", self.merged], check=True)


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[..., Overlay]]:
    """Overlays over one and the same image."""
    lower, mounted = tmp_path / "lower", list[Overlay]()
    for directory in ("etc/conf.d", "usr/bin", "var/log", "opt/app"):
        (lower / directory).mkdir(parents=True)
    for name in ("etc/conf.d/a", "etc/conf.d/b", "usr/bin/tool", "var/log/old", "opt/app/x", "etc/passwd"):
        (lower / name).write_text(name)
    (lower / "bin").symlink_to("usr/bin")

    def make(name: str, metacopy: str = "off") -> Overlay:
        mounted.append(Overlay(tmp_path, name, lower, metacopy))
        return mounted[-1]

    yield make
    for overlay in mounted:
        overlay.unmount()


@pytest.mark.lab
def test_an_upper_directory_applied_to_another_container_of_the_image(
    mount: Callable[..., Overlay], tmp_path: Path
) -> None:
    """The real thing: what a container did, with whiteouts and opaque directories made by the kernel."""
    first, second = mount("first"), mount("second")
    merged = first.merged
    (merged / "etc/passwd").write_text("changed")
    (merged / "etc/passwd").chmod(0o600)
    (merged / "var/log/old").unlink()
    subprocess.run(["rm", "-r", merged / "opt/app", merged / "etc/conf.d"], check=True)
    (merged / "etc/conf.d").mkdir(mode=0o750)
    (merged / "etc/conf.d/b").write_text("new b")
    (merged / "usr/bin/tool").unlink()
    (merged / "usr/bin/tool").mkdir()
    (merged / "usr/bin/tool/inside").hardlink_to(merged / "etc/passwd")
    (merged / "bin").unlink()
    (merged / "bin").mkdir()
    (merged / "bin/sh").write_text("sh")
    (merged / "var").chmod(0o711)
    capture(first.upper, tmp_path / "captured")
    contents = list(walk(tmp_path / "captured", Kind.ROOTFS, overlay=True))
    types = {content.entry.path: content.entry.type for content in contents}
    assert types["var/log/old"] is FileType.WHITEOUT
    assert types["opt/app"] is FileType.WHITEOUT
    assert types["etc/conf.d"] is FileType.OPAQUE

    (second.merged / "etc/conf.d/stale").write_text("made by the runtime before the restore")
    apply(contents, second.merged)
    assert described(second.merged) == described(first.merged)
    assert hidden_by(first.upper, [tmp_path / "lower"], "etc/conf.d") == ["a"]
    assert not (second.merged / "etc/conf.d/a").exists()


@pytest.mark.lab
def test_an_upper_directory_whose_content_is_in_the_image(mount: Callable[..., Overlay], tmp_path: Path) -> None:
    """What the kernel makes of changed modes and moved directories with metacopy=on."""
    first, second = mount("first", "on"), mount("second")
    merged = first.merged
    (merged / "etc/passwd").chmod(0o600)
    (merged / "usr/bin/tool").rename(merged / "usr/tool")
    (merged / "opt/app").rename(merged / "srv")
    (merged / "srv/x").chmod(0o700)
    (merged / "srv/new").write_text("new")
    (merged / "etc/conf.d").rename(merged / "srv/conf.d")
    (merged / "srv/conf.d/a").unlink()
    marks = subprocess.run(
        ["getfattr", "-Rhdm", "trusted.overlay", first.upper], check=True, capture_output=True, text=True
    ).stdout
    assert "metacopy" in marks
    assert "redirect" in marks
    capture(first.upper, tmp_path / "captured", merged)
    apply(list(walk(tmp_path / "captured", Kind.ROOTFS, overlay=True)), second.merged)
    assert described(second.merged) == described(merged)


@needs_root
def test_what_an_opaque_directory_hides(tmp_path: Path) -> None:
    upper, top, middle, bottom = (tmp_path / name for name in ("upper", "top", "middle", "bottom"))
    for layer, names in ((upper, "own"), (top, "own one"), (middle, "two"), (bottom, "three gone")):
        (layer / "a" / "b").mkdir(parents=True)
        for name in names.split():
            (layer / "a" / "b" / name).touch()
    os.mknod(middle / "a" / "b" / "gone", stat.S_IFCHR, 0)
    assert hidden_by(upper, [top, middle, bottom], "a/b") == ["one", "three", "two"]
    os.setxattr(middle / "a", "trusted.overlay.opaque", b"y")
    assert hidden_by(upper, [top, middle, bottom], "a/b") == ["one", "two"]
    assert hidden_by(upper, [tmp_path / "upper", bottom], "a/b") == ["gone", "three"]
    (top / "c").symlink_to("/")
    (bottom / "c").mkdir()
    (bottom / "c" / "etc").mkdir()
    assert hidden_by(upper, [top, bottom], "c") == []


@needs_root
def test_writes_from_many_threads_share_a_bounded_number_of_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(treewriter, "_OPEN_FILES", 4)
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    for number in range(20):
        (source / f"{number}").write_bytes(random.randbytes(300_000))
    contents = list(walk(source, Kind.VOLUME))
    with TreeWriter(target) as writer:
        writer.prepare([(number, content.entry) for number, content in enumerate(contents)])
        jobs = [
            (number, offset, read(content)[offset : offset + 4096])
            for number, content in enumerate(contents)
            if content.open
            for offset in range(0, 300_000, 4096)
        ]
        random.shuffle(jobs)
        before = len(list(Path("/proc/self/fd").iterdir()))

        def work(share: int) -> None:
            for number, offset, data in jobs[share::4]:
                writer.write(number, offset, memoryview(data))

        threads = [threading.Thread(target=work, args=(share,)) for share in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(list(Path("/proc/self/fd").iterdir())) <= before + 8
        writer.finish()
    assert described(target) == described(source)


NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=20).filter(
    lambda name: name not in {".", ".."} and len(name.encode()) < 200
)
DATA = st.lists(st.tuples(st.integers(0, 40), st.binary(min_size=1, max_size=9000)), max_size=3)
FILES = st.tuples(st.just("file"), DATA)
LINKS = st.tuples(
    st.just("link"), st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1)
)
NODES = st.recursive(
    FILES | LINKS | st.tuples(st.just("fifo"), st.none()),
    lambda inner: st.tuples(st.just("dir"), st.dictionaries(NAMES, inner, max_size=4)),
    max_leaves=8,
)


def build(node: tuple[str, object], path: Path, dice: random.Random) -> None:
    kind, value = node
    if kind == "link":
        path.symlink_to(str(value)[:200])
    elif kind == "fifo":
        os.mkfifo(path)
    elif isinstance(value, dict):
        path.mkdir(exist_ok=True)
        for name, inner in value.items():
            build(inner, path / name, dice)
    elif isinstance(value, list):
        with path.open("wb") as file:
            for gap, data in value:
                file.seek(gap * 4096, os.SEEK_END)
                file.write(data)
            file.truncate(max(0, file.tell() + dice.choice((0, 0, 8192))))
        if dice.random() < 0.3:
            os.setxattr(path, "user.x", dice.randbytes(30))
    os.chown(path, dice.randrange(1 << 31), dice.randrange(1 << 31), follow_symlinks=False)
    if kind != "link":
        path.chmod(dice.randrange(0o10000))
    os.utime(path, ns=(0, dice.randrange(1 << 31) * 10**9 + dice.randrange(10**9)), follow_symlinks=False)


@needs_root
@SHORT
@given(inner=st.dictionaries(NAMES, NODES, max_size=5), seed=st.integers(0, 1 << 30))
def test_any_tree_survives(
    inner: dict[str, tuple[str, object]], seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    base = tmp_path_factory.mktemp("any")
    build(("dir", inner), base / "source", random.Random(seed))
    (base / "target").mkdir()
    before = described(base / "source")
    apply(list(walk(base / "source", Kind.VOLUME)), base / "target")
    capture(base / "source", base / "copy")
    assert described(base / "target") == before
    assert described(base / "copy") == before
