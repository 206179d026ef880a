"""What CRIU would open, connect and make for processes: files, sockets, terminals, device nodes, descriptors.

CRIU opens descriptors as root, before a runtime's device policy holds (crun), and makes what is missing.

Source: images/fdinfo.proto and the messages it has; criu/files-reg.c, sk-inet.c, sk-packet.c, files-ext.c,
namespaces.c, tty.c; runc criu_linux.go, crun criu.c (descriptors.json).
"""

from __future__ import annotations

import io
import json
import os
import stat
from collections.abc import Iterable, Mapping
from typing import Final

from ocickpt.engine.files import archive
from ocickpt.errors import IntegrityError, UnsupportedError
from ocickpt.gate.expected import Expected
from ocickpt.gate.images import Images, Message, text
from ocickpt.model import FileType

_REGULAR, _PACKET, _NAMESPACE, _TUN, _EXTERNAL, _BPF, _FANOTIFY = 1, 10, 14, 15, 16, 19, 12
"""fd_types."""
_RAW: Final = 3
"""SOCK_RAW."""
_INET_TYPES: Final = (1, 2, 3)
_FAMILIES: Final = (2, 10)
"""AF_INET, AF_INET6."""
_UNIX_OUTSIDE: Final = 0b1001
"""USK_EXTERN and USK_INHERIT (criu/sk-unix.c)."""
_OPEN_PROTOCOLS: Final = (0, 7, 15, 16)
"""NETLINK_ROUTE, SELINUX, KOBJECT_UEVENT, GENERIC: everybody may listen to these (NL_CFG_F_NONROOT_RECV)."""
_TERMINALS: Final = (1, 2, 4, 5)
"""PTY, CONSOLE, CTTY, EXT_TTY; not the host's virtual and serial ones."""
_NAMESPACE_FIELDS: Final = (
    "pid_ns_id", "net_ns_id", "ipc_ns_id", "uts_ns_id", "mnt_ns_id", "user_ns_id", "cgroup_ns_id", "time_ns_id",
)  # fmt: skip
_MOST_DESCRIPTORS: Final = 3
_WITH_NODES: Final = (5, 6)
"""tmpfs, whose nodes are looked at, and devpts (fstype)."""
_VMA_FOREIGN: Final = 1 << 17 | 1 << 27 | 1 << 31
"""VMA_AREA_UPROBES, VMA_EXT_PLUGIN, VMA_UNSUPP (criu/include/image.h)."""


def check_files(images: Images, expected: Expected) -> None:
    """Refuse files, sockets and nodes that a container as `expected` cannot have. IntegrityError, UnsupportedError."""
    mounts = {mount.mnt_id: mount for found in images.numbered("mountpoints").values() for mount in found}
    ids = [each for found in images.numbered("ids").values() for each in found]
    own = {getattr(each, field) for each in ids for field in _NAMESPACE_FIELDS}
    roots = images.one("inventory").root_ids
    shared = {getattr(roots, field) for field in _NAMESPACE_FIELDS if not _has(field, expected)}
    for file in images.messages("files"):
        if problem := _file(file, expected, mounts, own | shared):
            raise IntegrityError(f"the checkpoint {problem}")
    for terminal in images.messages("tty-info"):
        if terminal.type not in _TERMINALS:
            raise IntegrityError("the checkpoint opens a terminal of the host")
    for name in images.names(r"ghost-file-[0-9a-f]+"):
        for ghost in images.messages(name):
            _check_node(f"a deleted file ({name})", ghost.mode, os.major(ghost.rdev), os.minor(ghost.rdev), expected)
            if ghost.symlnk_target and not stat.S_ISLNK(ghost.mode):
                raise IntegrityError(f"the checkpoint's {name}.img gives a target to a file that is not a symlink")
    for mappings in images.numbered("mm").values():
        if any(vma.status & _VMA_FOREIGN for each in mappings for vma in each.vmas):
            raise UnsupportedError("the checkpoint has memory that CRIU cannot restore by itself")


def check_nodes(images: Images, expected: Expected) -> None:
    """Refuse device nodes in the container's own filesystems in memory, which CRIU unpacks as root."""
    for name in images.names(r"tmpfs-(dev-)?\d+\.tar\.gz"):
        for member in archive.nested(io.BytesIO(images.raw(name)), f"{name}.img"):
            mode = {FileType.CHARACTER: stat.S_IFCHR, FileType.BLOCK: stat.S_IFBLK}.get(member.type, 0)
            _check_node(repr(member.name[:200]), mode, member.major, member.minor, expected)


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
    if kind == _EXTERNAL or (kind == _REGULAR and file.reg.ext):
        return "opens a file that only a plugin of CRIU's could open"
    if kind == _REGULAR:
        return _regular(file.reg, expected, mounts)
    if kind == _NAMESPACE and file.nsf.ns_id not in namespaces:
        return "holds a namespace of the host open"
    if kind == _PACKET and not expected.may("NET_RAW"):
        return "has a packet socket, which takes CAP_NET_RAW"
    if kind == _TUN and not expected.may("NET_ADMIN"):
        return "has a network tunnel, which takes CAP_NET_ADMIN"
    if kind == _BPF and not (expected.may("BPF") or expected.may("SYS_ADMIN")):
        return "has a BPF map, which takes CAP_BPF"
    if kind == _FANOTIFY and not expected.may("SYS_ADMIN"):
        return "watches filesystems with fanotify, which takes CAP_SYS_ADMIN"
    if file.HasField("isk"):
        return _internet(file.isk, expected, namespaces)
    if file.HasField("usk"):
        return _local(file.usk, mounts, namespaces)
    if file.nlsk.groups and file.nlsk.protocol not in _OPEN_PROTOCOLS and not expected.may("NET_ADMIN"):
        return f"listens to the netlink protocol {file.nlsk.protocol}, which takes CAP_NET_ADMIN"
    for socket in (file.nlsk, file.psk):
        if socket.ns_id and socket.ns_id not in namespaces:
            return "has a socket in a network of the host"
    return ""


def _regular(file: Message, expected: Expected, mounts: Mapping[int, Message]) -> str:
    name = text(file.name)
    if ".." in name.split("/"):
        return f"opens {name[:200]!r}, which leads elsewhere"
    if file.mnt_id not in mounts:
        return f"opens {name[:200]!r} on no mount of its container"
    # CRIU holds the mode against that of what it has opened.
    made = mounts[file.mnt_id].fstype in _WITH_NODES
    if stat.S_ISBLK(file.mode) and not any(kind == "b" for kind, _, _ in expected.devices):
        return f"opens the block device {name[:200]!r}, which its container has not"
    if stat.S_ISCHR(file.mode) and not (made or expected.may("MKNOD")):
        return f"opens a device at {name[:200]!r}, where its container has none"
    return ""


def _internet(socket: Message, expected: Expected, namespaces: set[int]) -> str:
    if socket.family not in _FAMILIES or socket.type not in _INET_TYPES:
        return f"has a socket of the family {socket.family} and the type {socket.type}, which is none of the internet's"
    if socket.type == _RAW and not expected.may("NET_RAW"):
        return "has a raw socket, which takes CAP_NET_RAW"
    if socket.opts.so_mark and not (expected.may("NET_ADMIN") or expected.may("NET_RAW")):
        return "has a socket that marks packets, which takes CAP_NET_ADMIN"
    if socket.ns_id and socket.ns_id not in namespaces:
        return "has a socket in a network of the host"
    return ""


def _local(socket: Message, mounts: Mapping[int, Message], namespaces: set[int]) -> str:
    if socket.uflags & _UNIX_OUTSIDE:
        return "has a unix socket that is connected to a process of the host"
    if ".." in text(socket.name_dir).split("/") or b".." in socket.name.split(b"/"):
        return f"has a unix socket at {socket.name[:200]!r}, which leads elsewhere"
    if socket.mnt_id not in {-1, *mounts} or (socket.ns_id and socket.ns_id not in namespaces):
        return "has a unix socket on no mount, or in no network, of its container"
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
