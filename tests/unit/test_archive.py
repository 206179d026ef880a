"""Archives: written ones are read back, by us and by others; hostile and damaged ones are refused."""

from __future__ import annotations

import functools
import io
import os
import random
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ocickpt.engine.files import libtar
from ocickpt.engine.files.archive import ArchiveWriter, Member, TreeTar, members, nested, tree_contents, tree_tar
from ocickpt.engine.files.tree import TreeWriter, walk
from ocickpt.errors import IntegrityError, OcickptError, PrerequisiteError, StorageError, UnsupportedError
from ocickpt.model import Content, Entry, FileType, Kind, Run

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="owners and devices need root")
needs_tar = pytest.mark.skipif(not shutil.which("tar"), reason="GNU tar is not installed")
COMPRESSIONS = ["none", "gzip", "zstd"]


def header(name: bytes, size: int = 0, kind: bytes = b"0", link: bytes = b"") -> bytes:
    """A ustar header (POSIX pax(1), "ustar Interchange Format")."""
    fields = name.ljust(100, b"\0") + b"0000644\0" + b"0000000\0" * 2 + b"%011o\0" % size + b"%011o\0" % 0
    rest = kind + link.ljust(100, b"\0") + b"ustar\x0000" + bytes(64) + b"0000000\0" * 2 + bytes(167)
    return fields + b"%06o\0 " % sum(fields + b" " * 8 + rest) + rest


def tar(*parts: bytes) -> bytes:
    return b"".join(part + bytes(-len(part) % 512) for part in parts) + bytes(1024)


def saved(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def listed(path: Path) -> dict[str, tuple[Member, bytes]]:
    return {member.name: (member, member.stream.read()) for member in members(path)}


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_what_is_written_is_read(tmp_path: Path, compression: str) -> None:
    pages = random.Random(1).randbytes(3_000_000)
    saved(tmp_path / "pages", pages)
    path = tmp_path / "checkpoint.tar"
    with ArchiveWriter(path, compression) as archive:
        archive.add_bytes("config.dump", b"{}")
        archive.add_directory("checkpoint")
        archive.add_bytes("checkpoint/empty.img", b"", mode=0o644)
        archive.add_file("checkpoint/pages-1.img", tmp_path / "pages")
        archive.add_stream("checkpoint/pages-2.img", 2_000_000, iter([bytes(1_500_000), bytes(500_000)]))
        assert not path.exists()
    found = listed(path)
    assert list(found) == [
        "config.dump",
        "checkpoint",
        "checkpoint/empty.img",
        "checkpoint/pages-1.img",
        "checkpoint/pages-2.img",
    ]
    assert found["config.dump"][1] == b"{}"
    assert found["config.dump"][0].mode == 0o600
    assert found["checkpoint"][0].type is FileType.DIRECTORY
    assert found["checkpoint/pages-1.img"][1] == pages
    assert found["checkpoint/pages-2.img"][1] == bytes(2_000_000)
    assert [member.name for member in members(path)] == list(found)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_the_same_calls_make_the_same_bytes(tmp_path: Path, compression: str) -> None:
    for name in ("a", "b"):
        with ArchiveWriter(tmp_path / name, compression) as archive:
            archive.add_bytes("x", b"1")
            archive.add_entry(Entry(Kind.ROOTFS, FileType.FIFO, "ü", mtime=1, xattrs=(("user.x", b"\0"),)))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_nothing_is_left_after_an_error(tmp_path: Path, compression: str) -> None:
    saved(tmp_path / "there", b"before")

    def interrupted() -> Iterator[bytes]:
        yield bytes(1000)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), ArchiveWriter(tmp_path / "there", compression) as archive:
        archive.add_stream("a", 2000, interrupted())
    for chunks in ([bytes(1999)], [bytes(2001)], []):
        with pytest.raises(IntegrityError, match="2000 bytes"), ArchiveWriter(tmp_path / "there") as archive:
            archive.add_stream("a", 2000, chunks)
    with pytest.raises(StorageError, match="No such file"), ArchiveWriter(tmp_path / "no" / "where"):
        pass
    with pytest.raises(UnsupportedError):
        ArchiveWriter(tmp_path / "there", "lzma")
    assert not list(tmp_path.glob(".*"))
    assert (tmp_path / "there").read_bytes() == b"before"


def test_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="No space left") as raised, ArchiveWriter(tmp_path / "a") as archive:
        os.dup2(os.open("/dev/full", os.O_WRONLY), archive._descriptor)
        archive.add_bytes("a", bytes(5_000_000))
    assert raised.value.hint == "the disk is full"


@pytest.mark.parametrize("name", ["/a", "../a", "a/../b", "", "a\0b", "a" * 5000])
def test_names_that_lead_elsewhere_are_not_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(IntegrityError), ArchiveWriter(tmp_path / "a") as archive:
        archive.add_bytes(name, b"")
    with pytest.raises(IntegrityError), ArchiveWriter(tmp_path / "a") as archive:
        archive.add_entry(Entry(Kind.ROOTFS, FileType.HARDLINK, "a", link=name))


@pytest.mark.parametrize("name", [b"/etc/passwd", b"../x", b"a/../../x", b"..", b"a/.."])
def test_names_that_lead_elsewhere_are_not_read(tmp_path: Path, name: bytes) -> None:
    for data in (tar(header(name)), tar(header(b"a"), header(b"b", kind=b"1", link=name))):
        with pytest.raises(IntegrityError, match="leads outside"):
            listed(saved(tmp_path / "a", data))


def test_names_are_normalised_and_come_once(tmp_path: Path) -> None:
    data = tar(header(b"./", kind=b"5"), header(b"./a//b/", kind=b"5"), header(b"c", kind=b"1", link=b"./a/./d"))
    found = listed(saved(tmp_path / "a", data))
    assert list(found) == [".", "a/b", "c"]
    assert found["c"][0].link == "a/d"
    with pytest.raises(IntegrityError, match="twice"):
        listed(saved(tmp_path / "b", tar(header(b"config.dump", 1), b"1", header(b"./config.dump", 1), b"2")))


def test_a_symlinks_text_is_nobodys_business(tmp_path: Path) -> None:
    ((member, _),) = listed(saved(tmp_path / "a", tar(header(b"a", kind=b"2", link=b"../../etc/passwd")))).values()
    assert (member.type, member.link) == (FileType.SYMLINK, "../../etc/passwd")


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("read", [True, False])
def test_truncated_anywhere(tmp_path: Path, compression: str, read: bool) -> None:
    dice = random.Random(2)
    whole = tmp_path / "whole"
    with ArchiveWriter(whole, compression) as archive:
        for number in range(4):
            archive.add_bytes(f"file-{number}", dice.randbytes(20_000) + bytes(5_000))
    data = whole.read_bytes()
    sizes = {0, 1, 511, 512, 513, 1024, 25_600, 26_112, 52_224, len(data) // 2, len(data) - 1024}
    for size in sizes & set(range(len(data) - 512)):
        with pytest.raises(IntegrityError, match=r"truncated|damaged"):
            for member in members(saved(tmp_path / "cut", data[:size])):
                if read:
                    member.stream.read()


@pytest.mark.parametrize("data", [b"", b"x", b"{}" * 5000, b"PK\x03\x04" + bytes(5000), bytes(512), bytes(10240)])
def test_what_is_no_archive(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(IntegrityError, match=r"truncated|damaged"):
        list(members(saved(tmp_path / "a", data)))


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="No such file"):
        list(members(tmp_path / "a"))


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 3000), st.binary(min_size=1, max_size=40))
def test_nothing_but_our_errors_comes_out(tmp_path: Path, at: int, junk: bytes) -> None:
    data = bytearray(tar(header(b"a", 700), b"1" * 700, header(b"d/", kind=b"5"), header(b"d/b", 10), b"2" * 10))
    data[at : at + len(junk)] = junk
    try:
        listed(saved(tmp_path / "a", bytes(data)))
        list(nested(io.BytesIO(data)))
    except OcickptError:
        pass


def test_nested_archives_are_read_out_of_the_outer_one(tmp_path: Path) -> None:
    content = random.Random(3).randbytes(700_000)
    inner = tar(header(b"./", kind=b"5"), header(b"./f", len(content)), content, header(b"./l", kind=b"1", link=b"./f"))
    with ArchiveWriter(tmp_path / "outer", "zstd") as archive:
        archive.add_bytes("volumes/data.tar", inner)
        archive.add_bytes("after", b"yes")
    found: list[object] = []
    for member in members(tmp_path / "outer"):
        if member.name == "after":
            found.append(member.stream.read())
            continue
        for each in tree_contents(nested(member.stream), Kind.VOLUME, "data"):
            found.append((each.entry.path, each.entry.type, each.entry.link))
            if each.open:
                assert list(each.runs) == [Run(0, 700_000)]
                assert each.open().read() == content
    assert found == [
        ("data", FileType.DIRECTORY, ""),
        ("data/f", FileType.REGULAR, ""),
        ("data/l", FileType.HARDLINK, "data/f"),
        b"yes",
    ]


def test_errors_of_the_outer_stream_come_out_of_the_inner_archive() -> None:
    class Failing(io.RawIOBase):
        data = io.BytesIO(tar(header(b"a", 2_000_000)))

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: bytearray, /) -> int:  # type: ignore[override]
            found = self.data.readinto(buffer)
            if not found:
                raise StorageError("the disk is broken")
            return found

    with pytest.raises(StorageError, match="the disk is broken"):
        for member in nested(cast(io.BufferedReader, Failing())):
            member.stream.read()
    Failing.data = io.BytesIO()
    with pytest.raises(StorageError, match="the disk is broken"):
        list(nested(cast(io.BufferedReader, Failing())))
    with pytest.raises(IntegrityError):
        list(nested(io.BytesIO(b"nothing of the kind" * 100)))


def test_a_stream_is_good_only_for_its_member(tmp_path: Path) -> None:
    path = saved(tmp_path / "a", tar(header(b"a", 3), b"aaa", header(b"b", 3), b"bbb"))
    found = list(members(path))
    for member in found:
        with pytest.raises(StorageError, match="too late"):
            member.stream.read()
    walking = members(path)
    first = next(walking)
    walking.close()  # type: ignore[attr-defined]
    with pytest.raises(StorageError, match="too late"):
        first.stream.read(1)


def test_whiteouts_of_containerd_and_files_of_podman() -> None:
    data = tar(
        header(b"d/", kind=b"5"),
        header(b"d/.wh..wh..opq"),
        header(b"d/.wh.gone"),
        header(b"e/", kind=b"5"),
        header(b"f"),
        header(b".wh.top"),
    )
    found = [(c.entry.path, c.entry.type) for c in tree_contents(nested(io.BytesIO(data)), Kind.ROOTFS, whiteouts=True)]
    assert found == [
        ("d", FileType.OPAQUE),
        ("d/gone", FileType.WHITEOUT),
        ("e", FileType.DIRECTORY),
        ("f", FileType.REGULAR),
        ("top", FileType.WHITEOUT),
    ]
    plain = [c.entry.path for c in tree_contents(nested(io.BytesIO(data)), Kind.ROOTFS)]
    assert plain == ["d", "d/.wh..wh..opq", "d/.wh.gone", "e", "f", ".wh.top"]
    late = tar(header(b"d/", kind=b"5"), header(b"d/x"), header(b"d/.wh..wh..opq"))
    with pytest.raises(IntegrityError, match="does not follow"):
        list(tree_contents(nested(io.BytesIO(late)), Kind.ROOTFS, whiteouts=True))


ENTRIES = [
    Entry(Kind.VOLUME, FileType.DIRECTORY, ".", mode=0o1777, mtime=5),
    Entry(Kind.VOLUME, FileType.REGULAR, "a", 0o4755, 1000, 2000, 1_600_000_000_123_456_789, 70_000),
    Entry(Kind.VOLUME, FileType.REGULAR, "\udcff\udcfe", 0o600, 1 << 31, 1 << 30, -5_000_000_001, 1),
    Entry(Kind.VOLUME, FileType.DIRECTORY, "ünïcode" * 20, 0o700),
    Entry(Kind.VOLUME, FileType.REGULAR, "ünïcode" * 20 + "/" + "x" * 255, 0o700),
    Entry(Kind.VOLUME, FileType.SYMLINK, "s", 0o777, link="/ä" * 300),
    Entry(Kind.VOLUME, FileType.HARDLINK, "h", link="\udcff\udcfe"),
    Entry(Kind.VOLUME, FileType.CHARACTER, "c", 0o666, major=1, minor=3),
    Entry(Kind.VOLUME, FileType.BLOCK, "b", 0o660, major=300, minor=70_000),
    Entry(Kind.VOLUME, FileType.FIFO, "p", 0o644),
    Entry(
        Kind.VOLUME,
        FileType.REGULAR,
        "x",
        0o644,
        xattrs=(
            ("security.capability", bytes(20)),
            ("system.posix_acl_access", b"\2\0\0\0\1\0\6\0\xff\xff\xff\xff"),
            ("trusted.t", b""),
            ("user.bin", bytes(range(256))),
        ),
    ),
]


def contents() -> Iterator[Content]:
    for entry in ENTRIES:
        zeros = functools.partial(io.BytesIO, bytes(entry.size))
        yield Content(entry, (Run(0, entry.size),), zeros) if entry.size else Content(entry)


def test_every_kind_of_entry_survives_a_tar(tmp_path: Path) -> None:
    assert tree_tar(tmp_path / "t", contents()) == TreeTar([], [])
    with (tmp_path / "t").open("rb") as file:
        found = []
        for content in tree_contents(nested(file), Kind.VOLUME):
            found.append(content.entry)
            if content.open:
                assert content.open().read() == bytes(content.entry.size)
    assert [entry.path for entry in found] == [entry.path for entry in ENTRIES]
    for ours, theirs in zip(ENTRIES, found, strict=True):
        assert theirs == ours


@needs_tar
@needs_root
def test_gnu_tar_reads_it(tmp_path: Path) -> None:
    tree_tar(tmp_path / "t", contents())
    (tmp_path / "out").mkdir()
    argv = ["tar", "-x", "-p", "--numeric-owner", "--xattrs", "--xattrs-include=*", "-f", str(tmp_path / "t")]
    subprocess.run([*argv, "-C", str(tmp_path / "out")], check=True, capture_output=True)
    found = {content.entry.path: content.entry for content in walk(tmp_path / "out", Kind.VOLUME)}
    for entry in ENTRIES:
        if entry.type not in (FileType.HARDLINK, FileType.DIRECTORY) and entry.path not in ("\udcff\udcfe", "x"):
            assert found[entry.path] == entry
    assert dict(found["x"].xattrs)["user.bin"] == bytes(range(256))


@needs_tar
def test_gnu_tars_archives_are_read(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "d").mkdir(parents=True)
    (source / "d" / ("n" * 200)).write_bytes(b"long")
    (source / "d" / "l").hardlink_to(source / "d" / ("n" * 200))
    for format_ in ("gnu", "pax"):
        subprocess.run(["tar", "-c", f"--format={format_}", "-f", tmp_path / format_, "-C", source, "."], check=True)
        found = listed(tmp_path / format_)
        assert sorted(found) == [".", "d", "d/l", "d/" + "n" * 200]
        assert b"long" in {data for _, data in found.values()}


def test_a_link_has_what_its_file_has(tmp_path: Path) -> None:
    """podman gives the file that both are the owner that the link has."""
    first = Entry(Kind.VOLUME, FileType.FIFO, "v/a", mode=0o640, uid=7, gid=8, mtime=9_000_000_001)
    tree_tar(
        tmp_path / "t", [Content(first), Content(Entry(Kind.VOLUME, FileType.HARDLINK, "v/b", link="v/a"))], strip="v"
    )
    _, link = members(tmp_path / "t")
    assert (link.link, link.mode, link.uid, link.gid, link.mtime) == ("a", 0o640, 7, 8, first.mtime)


@needs_root
def test_a_tree_through_a_tar_and_back(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "d").mkdir(parents=True)
    target.mkdir()
    (source / "d" / "f").write_bytes(b"data" * 1000)
    (source / "d" / "g").hardlink_to(source / "d" / "f")
    with (source / "sparse").open("wb") as file:
        file.seek(1 << 20)
        file.write(b"end")
    os.mknod(source / "gone", stat.S_IFCHR, 0)
    os.setxattr(source / "d", "trusted.overlay.opaque", b"y")
    result = tree_tar(tmp_path / "t", walk(source, Kind.ROOTFS, "v", overlay=True), strip="v")
    assert result == TreeTar(["gone"], ["d"])
    with (tmp_path / "t").open("rb") as file, TreeWriter(target) as writer:
        numbered, data = [], []
        for number, content in enumerate(tree_contents(nested(file), Kind.ROOTFS)):
            numbered.append((number, content.entry))
            data.append(content.open().read() if content.open else b"")
        writer.prepare(numbered)
        for number, chunk in enumerate(data):
            if chunk:
                writer.write(number, 0, chunk)
        writer.finish()
    status = source.stat()
    (source / "gone").unlink()
    os.utime(source, ns=(status.st_atime_ns, status.st_mtime_ns))
    ours = [content.entry for content in walk(source, Kind.ROOTFS)]
    assert [content.entry for content in walk(target, Kind.ROOTFS)] == ours
    assert (target / "sparse").read_bytes() == (source / "sparse").read_bytes()
    with pytest.raises(IntegrityError, match="is not in other"):
        tree_tar(tmp_path / "t", walk(source, Kind.ROOTFS, "v"), strip="other")


def test_without_libarchive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    libtar.load.cache_clear()
    monkeypatch.setitem(__import__("sys").modules, "libarchive", None)
    with pytest.raises(PrerequisiteError, match="libarchive"):
        list(members(tmp_path / "a"))
    monkeypatch.undo()
    libtar.load.cache_clear()
