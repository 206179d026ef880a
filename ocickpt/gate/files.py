"""What CRIU would open, connect and make for processes: files, sockets, terminals, device nodes, descriptors.

CRIU opens descriptors as root, before a runtime's device policy holds (crun), and makes what is missing.

Source: images/fdinfo.proto and the messages it has; criu/files-reg.c, sk-inet.c, sk-packet.c, files-ext.c,
namespaces.c, tty.c; runc criu_linux.go, crun criu.c (descriptors.json).
"""

from __future__ import annotations

import json
import os
import posixpath
import re
import stat
from collections.abc import Collection, Iterable, Mapping
from typing import Final

from ocickpt.engine import host
from ocickpt.errors import IntegrityError
from ocickpt.gate import reach
from ocickpt.gate.expected import Expected
from ocickpt.gate.images import FILESYSTEMS, Images, Message, encoded, text
from ocickpt.model import FileType

_REGULAR, _PACKET, _NAMESPACE, _TUN, _EXTERNAL, _BPF, _FANOTIFY, _INOTIFY = 1, 10, 14, 15, 16, 19, 12, 8
"""fd_types."""
_PARTS: Final = {
    1: "reg", 2: "pipe", 3: "fifo", 4: "isk", 5: "usk", 6: "efd", 7: "epfd", 8: "ify", 9: "sgfd", 10: "psk",
    11: "tty", 12: "ffy", 13: "nlsk", 14: "nsf", 15: "tunf", 16: "ext", 17: "tfd", 18: "memfd", 19: "bpf", 20: "pidfd",
}  # fmt: skip
"""The field of a file_entry by fd_types."""
_TAKES: Final = {
    _PACKET: (("NET_RAW",), "a packet socket"),
    _TUN: (("NET_ADMIN",), "a network tunnel"),
    _BPF: (("BPF", "SYS_ADMIN"), "a BPF map"),
    _FANOTIFY: (("SYS_ADMIN",), "filesystems watched with fanotify"),
}
"""What takes one of these capabilities."""
_RAW: Final = 3
"""SOCK_RAW."""
_INET_TYPES: Final = (1, 2, 3)
_INET: Final = 2
_FAMILIES: Final = (_INET, 10)
"""AF_INET, AF_INET6."""
_UNIX_OUTSIDE: Final = 0b1001
"""USK_EXTERN and USK_INHERIT (criu/sk-unix.c)."""
_TERMINALS: Final = (1, 2, 4, 5)
"""PTY, CONSOLE, CTTY, EXT_TTY; not the host's virtual and serial ones."""
_NAMESPACE_FIELDS: Final = (
    "pid_ns_id", "net_ns_id", "ipc_ns_id", "uts_ns_id", "mnt_ns_id", "user_ns_id", "cgroup_ns_id", "time_ns_id",
)  # fmt: skip
_MOST_DESCRIPTORS: Final = 3
_PROC: Final = 1
"""fstype."""
_NO_MOUNT: Final = 0xFFFFFFFF
_WITH_NODES: Final = (5, 6)
"""tmpfs, whose nodes are looked at, and devpts (fstype)."""
_LINKED: Final = 0
"""remap_type of a file that has another name."""
_GHOSTS: Final = (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK)
_MAGIC: Final = re.compile(r"/(?:\d+|self|thread-self)(?:/task/\d+)?/(?:(?:root|cwd|exe)(?:/|$)|(?:fd|map_files|ns)/)")
"""Links of /proc that lead to what a process has open (proc(5)): when CRIU opens them, it is CRIU that has it. Of what
a process has open through one the kernel tells the file's own path."""


def without_sizes(images: Images, paths: Collection[str]) -> dict[str, bytes]:
    """The image of open files in which those at `paths` may have any size, if one of them is open: else CRIU restores
    only what has a file of the size that it had (validate_file in criu/files-reg.c)."""
    found, changed = images.changeables("files"), False
    for file in found:
        if file.type == _REGULAR and file.reg.HasField("size") and text(file.reg.name) in paths:
            file.reg.ClearField("size")
            changed = True
    return {"files.img": encoded("files", *found)} if changed else {}


def check_files(images: Images, expected: Expected) -> None:
    """Refuse files, sockets and nodes that a container as `expected` cannot have. IntegrityError, UnsupportedError."""
    mounts = {mount.mnt_id: mount for found in images.numbered("mountpoints").values() for mount in found}
    ids = [each for found in images.numbered("ids").values() for each in found]
    own = {getattr(each, field) for each in ids for field in _NAMESPACE_FIELDS}
    roots = images.one("inventory").root_ids
    shared = {getattr(roots, field) for field in _NAMESPACE_FIELDS if not _has(field, expected)}
    numbers = [each.id for each in images.messages("files")]
    if len(set(numbers)) != len(numbers):
        raise IntegrityError("the checkpoint has two open files under one id")
    links = {each.remap_id for each in images.messages("remap-fpath") if each.remap_type == _LINKED}
    for file in images.messages("files"):
        problem = _owner(file, expected) or _file(file, expected, mounts, own | shared)
        if not problem and file.type == _REGULAR and not (file.reg.HasField("mode") or file.id in links):
            # CRIU writes it of all that it opens, and holds the file against it.
            problem = f"does not say what kind of file {text(file.reg.name)[:200]!r} is"
        if problem:
            raise IntegrityError(f"the checkpoint {problem}")
    for entry in (each for found in images.numbered("fdinfo").values() for each in found):
        _check_descriptor(entry, expected)
    for memory in images.messages("memfd"):
        if problem := _memory_file(memory, expected):
            raise IntegrityError(f"the checkpoint {problem}")
    for terminal in images.messages("tty-info"):
        if terminal.type not in _TERMINALS:
            raise IntegrityError("the checkpoint opens a terminal of the host")
    for name in images.names(r"ghost-file-[0-9a-f]+"):
        for ghost in images.messages(name)[:1]:
            if problem := _ghost(ghost, expected):
                raise IntegrityError(f"the checkpoint's {name}.img {problem}")
            _check_node(f"a deleted file ({name})", ghost.mode, os.major(ghost.rdev), os.minor(ghost.rdev), expected)


def check_nodes(images: Images, expected: Expected) -> None:
    """Refuse device nodes in the container's own filesystems in memory, which CRIU unpacks as root."""
    for name in images.names(FILESYSTEMS):
        for member in images.filesystem(name):
            mode = {FileType.CHARACTER: stat.S_IFCHR, FileType.BLOCK: stat.S_IFBLK}.get(member.type, 0)
            _check_node(repr(member.path[:200]), mode, member.major, member.minor, expected)


def check_descriptors(data: bytes) -> None:
    """Refuse a descriptors.json with more than stdin, stdout, stderr: by it runc hands CRIU descriptors of its own."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise IntegrityError(f"the checkpoint's descriptors.json is not JSON: {error}") from error
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise IntegrityError("the checkpoint's descriptors.json is not a list of names")
    if len(found) > _MOST_DESCRIPTORS:
        raise IntegrityError(
            f"the checkpoint's descriptors.json has {len(found)} descriptors: more than stdin, stdout and stderr"
            " would be the runtime's own"
        )


def _has(field: str, expected: Expected) -> bool:
    kinds = {"net_ns_id": "network", "mnt_ns_id": "mount"}
    return kinds.get(field, field.partition("_")[0]) in expected.namespaces


def _file(file: Message, expected: Expected, mounts: Mapping[int, Message], namespaces: set[int]) -> str:
    """What is wrong with an entry of files.img; nothing if it can be the container's."""
    kind = file.type
    if problem := _form(file):
        return problem
    if kind == _EXTERNAL or (kind == _REGULAR and file.reg.ext):
        return "opens a file that only a plugin of CRIU's could open"
    if kind == _NAMESPACE and file.nsf.ns_id not in namespaces:
        return "holds a namespace of the host open"
    if kind in _TAKES and not any(map(expected.may, _TAKES[kind][0])):
        return f"has {_TAKES[kind][1]}, which takes CAP_{_TAKES[kind][0][0]}"
    if kind == _REGULAR:
        return _regular(file.reg, expected, mounts)
    if kind == _INOTIFY:
        return _watch(file.ify, mounts)
    if file.HasField("isk"):
        return _internet(file.isk, expected, namespaces)
    if file.HasField("usk"):
        return _local(file.usk, expected, mounts, namespaces)
    if file.nlsk.groups and file.nlsk.protocol not in reach.OPEN_PROTOCOLS and not expected.may("NET_ADMIN"):
        return f"listens to the netlink protocol {file.nlsk.protocol}, which takes CAP_NET_ADMIN"
    for socket in (file.nlsk, file.psk):
        if socket.ns_id and socket.ns_id not in namespaces:
            return "has a socket in a network of the host"
    return ""


def _form(file: Message) -> str:
    """An entry holds the one message of its type, under its own id: by that CRIU knows it (criu/files.c)."""
    parts = {field.name: part for field, part in file.ListFields() if field.message_type}
    wanted = _PARTS.get(file.type, "")
    if set(parts) != {wanted}:
        return f"has an open file of the type {file.type} that is described as {' '.join(sorted(parts)) or 'nothing'}"
    if parts[wanted].id != file.id:
        return f"has an open file with the ids {file.id} and {parts[wanted].id}"
    return ""


def _regular(file: Message, expected: Expected, mounts: Mapping[int, Message]) -> str:
    name = text(file.name)
    if ".." in name.split("/"):
        return f"opens {name[:200]!r}, which leads elsewhere"
    if file.mnt_id not in mounts:
        return f"opens {name[:200]!r} on no mount of its container"
    if is_magic(name, mounts.values()):
        return f"opens {name[:200]!r}, which is whatever CRIU has open there"
    # CRIU holds the mode against that of what it has opened.
    made = mounts[file.mnt_id].fstype in _WITH_NODES
    if stat.S_ISBLK(file.mode) and not any(kind == "b" for kind, _, _ in expected.devices):
        return f"opens the block device {name[:200]!r}, which its container has not"
    if stat.S_ISCHR(file.mode) and not (made or expected.may("MKNOD")):
        return f"opens a device at {name[:200]!r}, where its container has none"
    return ""


def is_magic(path: str, mounts: Iterable[Message]) -> bool:
    """Whether a path leads through a link of a /proc to what the process that follows it has open."""
    for mount in mounts:
        place = text(mount.mountpoint).rstrip("/")
        if mount.fstype == _PROC and path.startswith(f"{place}/"):
            inside = posixpath.normpath(f"/{text(mount.root)}/{path.removeprefix(place)}").replace("//", "/")
            if _MAGIC.match(inside):
                return True
    return False


def _owner(file: Message, expected: Expected) -> str:
    """Who is told by a signal that there is something to read (F_SETOWN_EX in fcntl(2)), and as whom."""
    for _, entry in file.ListFields():
        owner = getattr(entry, "fown", None)
        for uid in (owner.uid, owner.euid) if owner and owner.pid else ():
            if not expected.is_user(uid):
                return f"sends signals as user {uid}, which user {expected.uid} cannot become under no_new_privs"
    return ""


def _ghost(ghost: Message, expected: Expected) -> str:
    """A deleted file, which is there for a moment, on the host as well where it is on a volume."""
    if stat.S_IFMT(ghost.mode) not in _GHOSTS:
        return f"has a file of the unknown kind {stat.S_IFMT(ghost.mode):#o}"
    if ghost.symlnk_target and not stat.S_ISLNK(ghost.mode):
        return "gives a target to a file that is not a symlink"
    setid = ghost.mode & (stat.S_ISUID | stat.S_ISGID) and not stat.S_ISDIR(ghost.mode)
    if setid and not (expected.is_user(ghost.uid) and expected.is_in(ghost.gid)):
        return f"makes a program that runs as user {ghost.uid}, group {ghost.gid}, which its container cannot become"
    return ""


def _memory_file(file: Message, expected: Expected) -> str:
    """A file of memfd_create(2)."""
    name = text(file.name)
    if not (_may_own(file.uid, file.gid, expected)):
        return f"gives user {file.uid}, group {file.gid} the file in memory {name[:200]!r}"
    return ""


def _may_own(uid: int, gid: int, expected: Expected) -> bool:
    """Whether a process of the container can make a file that belongs to these."""
    return expected.may("CHOWN") or (expected.is_user(uid) and expected.is_in(gid))


def _watch(watches: Message, mounts: Mapping[int, Message]) -> str:
    """What inotify watches: a path, or a handle of the filesystem of one of the mounts (criu/fsnotify.c)."""
    devices = {mount.root_dev for mount in mounts.values()}
    for watch in watches.wd:
        handle = watch.f_handle
        path = text(handle.path)
        if path and (not path.startswith("/") or ".." in path.split("/") or is_magic(path, mounts.values())):
            return f"watches {path[:200]!r}, which leads elsewhere"
        if handle.HasField("mnt_id") and handle.mnt_id not in {*mounts, _NO_MOUNT}:
            return f"watches {path[:200]!r} on no mount of its container"
        if not path and watch.s_dev not in devices:
            return f"watches the file {watch.i_ino} of a filesystem that its container has not"
    return ""


def _check_descriptor(entry: Message, expected: Expected) -> None:
    """SELinux' label of a socket, which CRIU makes it with."""
    label = text(entry.xattr_security_selinux)
    if label and host.lsm() == "selinux" and label.split(":")[2:3] != expected.selinux.split(":")[2:3]:
        raise IntegrityError(f"the checkpoint's descriptor {entry.fd} has the label {label[:200]}")


def _internet(socket: Message, expected: Expected, namespaces: set[int]) -> str:
    if socket.family not in _FAMILIES or socket.type not in _INET_TYPES:
        return f"has a socket of the family {socket.family} and the type {socket.type}, which is none of the internet's"
    words = 1 if socket.family == _INET else 4
    if len(socket.src_addr) != words or len(socket.dst_addr) != words:
        return "has a socket whose addresses are not of its family"
    if socket.type != _RAW and not expected.may_bind(socket.src_port):
        return f"has a socket at the port {socket.src_port} of the host, which takes CAP_NET_BIND_SERVICE"
    if socket.type == _RAW and not expected.may("NET_RAW"):
        return "has a raw socket, which takes CAP_NET_RAW"
    if socket.ns_id and socket.ns_id not in namespaces:
        return "has a socket in a network of the host"
    return ""


def _local(socket: Message, expected: Expected, mounts: Mapping[int, Message], namespaces: set[int]) -> str:
    if socket.uflags & _UNIX_OUTSIDE:
        return "has a unix socket that is connected to a process of the host"
    if ".." in text(socket.name_dir).split("/") or b".." in socket.name.split(b"/"):
        return f"has a unix socket at {socket.name[:200]!r}, which leads elsewhere"
    if socket.mnt_id not in {-1, *mounts} or (socket.ns_id and socket.ns_id not in namespaces):
        return "has a unix socket on no mount, or in no network, of its container"
    path = posixpath.join(text(socket.name_dir) or "/", os.fsdecode(socket.name.rstrip(b"\0")))
    if socket.name[:1] != b"\0" and is_magic(path, mounts.values()):
        return f"has a unix socket at {path[:200]!r}, which is whatever CRIU has open there"
    owner = socket.file_perms
    if socket.HasField("file_perms") and not _may_own(owner.uid, owner.gid, expected):
        return f"gives user {owner.uid}, group {owner.gid} the unix socket {socket.name[:200]!r}"
    return ""


def _check_node(what: str, mode: int, major: int, minor: int, expected: Expected) -> None:
    if not (stat.S_ISCHR(mode) or stat.S_ISBLK(mode)) or expected.may("MKNOD"):
        return
    if ("b" if stat.S_ISBLK(mode) else "c", major, minor) not in expected.devices:
        kind = "block" if stat.S_ISBLK(mode) else "character"
        raise IntegrityError(f"the checkpoint makes {what} a {kind} device {major}:{minor} that its container has not")


def check_tree(nodes: Iterable[tuple[str, FileType, int, int]], expected: Expected) -> None:
    """Refuse device nodes (path, type, major, minor) among the files of the root filesystem and of volumes."""
    for path, kind, major, minor in nodes:
        mode = {FileType.CHARACTER: stat.S_IFCHR, FileType.BLOCK: stat.S_IFBLK}.get(kind, 0)
        if (major, minor) != (0, 0):
            _check_node(repr(path[:200]), mode, major, minor, expected)
