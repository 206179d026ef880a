"""Changes its container's files, and what is in the volume /volume, in every way there is; then answers on 8080.

`/ghost`, `/mapped`, `/fifo` and `/log` tell of files that it keeps open: one without a name
any more, one mapped into memory, a fifo with something in it, a log that it writes the request to.
"""

import mmap
import os
import shutil
import socket
import stat
import struct
from pathlib import Path

import web  # type: ignore[import-not-found]  # it is in the image

MADE = Path("/made")
USED = MADE / "used"
VOLUME = Path("/volume")
CAPABILITY = struct.pack("<5I", 0x02000001, 1 << 10, 0, 0, 0)  # linux/capability.h: cap_net_bind_service=ep
ACL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", *entry)  # linux/posix_acl_xattr.h
    for entry in ((1, 7, 0xFFFFFFFF), (2, 4, 1000), (4, 5, 0xFFFFFFFF), (16, 5, 0xFFFFFFFF), (32, 0, 0xFFFFFFFF))
)


def make(top: Path) -> None:
    """One of each in the directory `top`."""
    (top / "empty").touch()
    (top / "small").write_bytes(b"content\n")
    (top / "large").write_bytes(os.urandom(5 << 20))
    with (top / "sparse").open("wb") as file:
        file.seek(3 << 20)
        file.write(b"after a hole")
        file.truncate(8 << 20)
    (top / "suid").write_bytes(b"#!")
    (top / "suid").chmod(0o6751)
    os.chown(top / "small", 1234, 5678)
    (top / "small").chmod(0o604)

    (top / "first").write_bytes(b"one inode")
    (top / "directory").mkdir()
    os.link(top / "first", top / "directory" / "second")
    os.link(top / "first", top / "zeroth")
    (top / "dangling").symlink_to("/nowhere/at all")
    (top / "absolute").symlink_to("/etc/passwd")
    (top / "outward").symlink_to("../" * 40 + "etc")
    os.lchown(top / "dangling", 7, 8)
    os.link(top / "dangling", top / "dangling too", follow_symlinks=False)
    os.mkfifo(top / "fifo")
    os.mknod(top / "null", stat.S_IFCHR, os.makedev(1, 3))
    for name in ("fifo", "null"):
        (top / name).chmod(0o620)

    for odd in (
        b"new\nline",
        b"\xff\xfe not UTF-8",
        b"-rf *",
        b"n" * 255,
        b".wh.odd",
        b".wh..wh..opq",
        b'\xc3\xa4 \\ "',
    ):
        (top / os.fsdecode(odd)).write_bytes(odd)
    deep = top / "/".join(["deep"] * 20)
    deep.mkdir(parents=True)
    (deep / "file").write_text("here")

    os.setxattr(top / "small", "user.note", b"\0binary\xff")
    os.setxattr(top / "small", "user.empty", b"")
    os.setxattr(top / "large", "trusted.note", b"trusted")
    os.setxattr(top / "large", "security.capability", CAPABILITY)
    os.setxattr(top / "first", "system.posix_acl_access", ACL)
    os.setxattr(top / "directory", "system.posix_acl_default", ACL)
    os.setxattr(top / "directory", "user.note", b"of a directory")
    os.setxattr(top / "dangling", "trusted.note", b"of a symlink", follow_symlinks=False)

    (top / "private").mkdir()
    (top / "private" / "inner").mkdir()
    (top / "private").chmod(0o1710)
    os.chown(top / "private", 33, 44)
    for name, time in (("empty", 1), ("small", 4102444800_123456789), ("directory", 981173106_000000001), ("fifo", 7)):
        os.utime(top / name, ns=(time, time))
    os.utime(top / "dangling", ns=(5, 1_000_000_005), follow_symlinks=False)


def change_image() -> None:
    """Change what came with the image: at paths that a host does not have, too."""
    with Path("/counter.py").open("a") as file:
        file.write("# changed\n")
    Path("/memory.py").unlink()
    shutil.rmtree("/etc/nginx")
    shutil.rmtree("/etc/redis")
    Path("/etc/redis").mkdir(0o750)
    (Path("/etc/redis") / "own").write_text("hides the image's")
    Path("/var/www").chmod(0o2711)
    os.chown("/var/www", 33, 44)
    os.setxattr("/var/www", "user.note", b"only the directory changed")
    Path("/threads.py").unlink()
    Path("/threads.py").mkdir()
    (Path("/threads.py") / "inner").write_text("was a file")
    shutil.rmtree("/usr/share/zoneinfo/Antarctica")
    Path("/usr/share/zoneinfo/Antarctica").write_text("was a directory")
    shutil.rmtree("/usr/share/zoneinfo/Arctic")
    Path("/usr/share/zoneinfo/Arctic").symlink_to("Europe")
    os.chown("/workers.py", 3, 4)
    os.link("/web.py", "/linked.py")
    Path("/usr/share/zoneinfo/UTC").rename("/usr/share/zoneinfo/renamed")
    Path("/").chmod(0o751)
    os.setxattr("/", "user.note", b"of the root")


USED.mkdir(parents=True)
change_image()
make(MADE)
make(VOLUME)
VOLUME.chmod(0o3775)
os.chown(VOLUME, 1001, 1002)
os.setxattr(VOLUME, "user.note", b"of a volume")

ghost = (USED / "ghost").open("w+b")
ghost.write(b"a ghost")
ghost.flush()
(USED / "ghost").unlink()
fifo = os.open(MADE / "fifo", os.O_RDWR)
os.write(fifo, b"in the fifo")
log = (VOLUME / "log").open("a")
maps = []
for top in (MADE, VOLUME):
    with (top / "mapped").open("w+b") as file:
        file.truncate(mmap.PAGESIZE)
        maps.append(mmap.mmap(file.fileno(), mmap.PAGESIZE))
    maps[-1][:5] = b"first"
listener = socket.socket(socket.AF_UNIX)
listener.bind(str(USED / "socket"))
listener.listen()


def answer(path: str) -> str | None:
    """What `GET path` says."""
    if path == "/ghost":
        ghost.seek(0)
        return ghost.read().decode()
    if path == "/fifo":
        text = os.read(fifo, 100)
        os.write(fifo, text)
        return text.decode()
    if path.startswith("/log"):
        log.write(path + "\n")
        log.flush()
        return (VOLUME / "log").read_text()
    if path.startswith("/mapped"):
        for each in maps:
            each[: len(path)] = path.encode()
        return " ".join((top / "mapped").read_bytes().rstrip(b"\0").decode() for top in (MADE, VOLUME))
    if path == "/socket":
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(USED / "socket"))
        return "connected"
    return None


web.serve(answer)
