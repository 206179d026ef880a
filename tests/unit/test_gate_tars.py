"""Archives of filesystems in memory: what GNU tar writes is read as it is, and anything else is refused."""

from __future__ import annotations

import gzip
import io
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocickpt.errors import IntegrityError
from ocickpt.gate.tars import members
from ocickpt.model import FileType
from tests.hostile.changing import info, node, tree

WORDS = ("--create", "--gzip", "--no-unquote", "--no-wildcards", "--one-file-system", "--check-links")
MORE = ("--preserve-permissions", "--sparse", "--numeric-owner", "--directory")


def paths(data: bytes) -> list[str]:
    return [member.path for member in members(data, "x")]


def refuse(data: bytes, said: str) -> None:
    with pytest.raises(IntegrityError, match=said):
        list(members(data, "x"))


@pytest.mark.skipif(not shutil.which("tar"), reason="there is no tar")
def test_what_tar_writes(tmp_path: Path) -> None:
    """With the words that CRIU calls it with (criu/filesystems.c)."""
    root = tmp_path / "root"
    (root / "a" / "b").mkdir(parents=True)
    (root / "a" / "plain").write_bytes(b"x" * 1000)
    (root / "a" / "again").hardlink_to(root / "a" / "plain")
    (root / "way").symlink_to("/proc/self/fd")
    deep = root / "long" / ("n" * 200)
    deep.mkdir(parents=True)
    (deep / ("f" * 255)).symlink_to("t" * 300)
    (root / "odd\nname \udcff").write_bytes(b"")
    with (root / "holes").open("wb") as file:
        for position in range(0, 200 << 20, 1 << 20):
            file.seek(position)
            file.write(b"y")
    (root / "holes").chmod(0o4755)
    done = subprocess.run(["tar", *WORDS, *MORE, str(root), "."], check=True, capture_output=True)
    found = {member.path: member for member in members(done.stdout, "x")}
    assert set(found) == {".", *(str(path.relative_to(root)) for path in root.rglob("*"))}
    for path, member in found.items():
        status = (root / path).lstat()
        assert (member.mode, member.uid, member.gid) == (status.st_mode & 0o7777, status.st_uid, status.st_gid)
    assert found["way"].link == "/proc/self/fd"
    assert {found["a/plain"].type, found["a/again"].type} == {FileType.REGULAR, FileType.HARDLINK}
    assert {len(member.link) for member in found.values() if member.path.startswith("long/n")} == {0, 300}


def test_the_archive_of_nothing() -> None:
    assert paths(tree()) == ["."]
    assert paths(tree(root=False)) == []


def test_nodes() -> None:
    (_, found) = members(tree(node("./disk", tarfile.BLKTYPE, 8, 1)), "x")
    assert (found.type, found.major, found.minor) == (FileType.BLOCK, 8, 1)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("/etc/x", "leads outside"),
        ("x", "leads outside"),
        ("./", "leads outside"),
        ("./..", "leads outside"),
        ("./a/../x", "leads outside"),
        ("./a//x", "leads outside"),
        ("./x/", "leads outside"),
        ("./a/x", "in no directory of its own"),
    ],
)
def test_a_name_that_leads_elsewhere(name: str, said: str) -> None:
    refuse(tree(info(name)), said)


@pytest.mark.parametrize("kind", [b"V", b"M", b"D", b"N", b"7", b"x", b"g", b"\0"])
def test_kinds_that_criu_has_none_of(kind: bytes) -> None:
    refuse(tree(info("./x", kind)), "of the type|no archive of CRIU's tar")


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT])
def test_other_formats(form: int) -> None:
    refuse(tree(form=form), "no archive of CRIU's tar")


def test_content_for_what_is_no_file() -> None:
    refuse(tree(info("./x", tarfile.SYMTYPE, linkname="y", size=512)), "content for what is no file")


def test_what_is_behind_the_end() -> None:
    whole = gzip.decompress(tree())
    assert paths(gzip.compress(whole + bytes(1 << 20))) == ["."]
    refuse(gzip.compress(whole + b"x"), "behind the end")
    refuse(gzip.compress(whole + bytes(1 << 20) + b"x"), "behind the end")
    refuse(gzip.compress(whole) + b"\0", "behind its end")
    refuse(gzip.compress(whole) + gzip.compress(whole), "behind its end")
    lone = whole[:512] + bytes(512) + whole[:512] + bytes(10240)
    refuse(gzip.compress(lone), "behind the end of its members")


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_byte_that_is_changed_is_refused_or_seen_by_tarfile_alike(data: st.DataObject) -> None:
    """What is still read has the names that another reader gives it."""
    plain = gzip.decompress(
        tree(info("./a", tarfile.DIRTYPE), info("./a/b"), info("./c", tarfile.SYMTYPE, linkname="a"))
    )
    at = data.draw(st.integers(0, 4 * 512 - 1))
    changed = plain[:at] + bytes([data.draw(st.integers(0, 255))]) + plain[at + 1 :]
    try:
        found = paths(gzip.compress(changed))
    except IntegrityError:
        return
    with tarfile.open(fileobj=io.BytesIO(changed)) as tar:
        assert found == [name.removeprefix("./") for name in tar.getnames()]


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=3000))
def test_any_bytes_are_an_archive_or_refused(raw: bytes) -> None:
    for each in (raw, gzip.compress(raw)):
        with pytest.raises(IntegrityError):
            list(members(each, "x"))
