"""CRIU's images, by name and by message: what is not listed here CRIU does not get to read.

A file is decoded as the messages that its name stands for, whole, and must be nothing but that: a field or value which
this pycriu does not know would be one that nothing was held against. What each field may be is in `fields`.

Source: criu/image-desc.c, criu/include/magic.h and images/*.proto of CRIU 4.2.1.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from ocickpt.engine import criu
from ocickpt.errors import IntegrityError, UnsupportedError
from ocickpt.gate import contents, tars
from ocickpt.gate.contents import Message
from ocickpt.gate.expected import Expected
from ocickpt.gate.fields.walk import check_message
from ocickpt.gate.tars import Member

__all__ = ["Images", "Message", "text"]

DECODED: Final = {
    r"inventory": "INVENTORY",
    r"pstree": "PSTREE",
    r"core-\d+": "CORE",
    r"ids-\d+": "IDS",
    r"mm-\d+": "MM",
    r"fs-\d+": "FS",
    r"fdinfo-\d+": "FDINFO",
    r"files": "FILES",
    r"remap-fpath": "REMAP_FPATH",
    r"filelocks": "FILE_LOCKS",
    r"tty-info": "TTY_INFO",
    r"tty-data": "TTY_DATA",
    r"memfd": "MEMFD_INODE",
    r"cgroup": "CGROUP",
    r"seccomp": "SECCOMP",
    r"mountpoints-\d+": "MNTS",
    r"netns-\d+": "NETNS",
    r"netdev-\d+": "NETDEV",
    r"utsns-\d+": "UTSNS",
    r"timens-\d+": "TIMENS",
    r"ipcns-var-\d+": "IPC_VAR",
}
"""Images that consist of messages alone, and CRIU's name for the kind."""

FOLLOWED: Final = {
    r"ghost-file-[0-9a-f]+": ("GHOST_FILE", contents.check_ghost),
    r"pipes-data": ("PIPES_DATA", contents.pipes),
    r"fifo-data": ("FIFO_DATA", contents.pipes),
    r"sk-queues": ("SK_QUEUES", contents.check_queues),
    r"tcp-stream-[0-9a-f]+": ("TCP_STREAM", contents.tcp),
    r"ipcns-shm-\d+": ("IPCNS_SHM", contents.shared_memory),
    r"ipcns-msg-\d+": ("IPCNS_MSG", contents.queues_of_messages),
    r"ipcns-sem-\d+": ("IPCNS_SEM", contents.semaphores),
}
"""Images of messages that are followed by what processes held, CRIU's name for the kind, and what reads them."""

PAGEMAPS: Final = r"pagemap-(shmem-)?\d+"
FILESYSTEMS: Final = r"tmpfs-(dev-)?\d+\.tar\.gz"
OTHERS: Final = (PAGEMAPS, FILESYSTEMS)
"""Images that are no messages of pycriu's: which pages are where, and archives of filesystems in memory."""

REFUSED: Final = {
    r"creds-\d+|rlimit-\d+|itimers-\d+|posix-timers-\d+|sigacts-\d+|vmas-\d+|signal-[sp]-\d+"
    r"|reg-files|ext-files|ns-files|eventfd|eventpoll(-tfd)?|signalfd|inotify(-wd)?|fanotify(-mark)?"
    r"|pipes|fifo|unixsk|inetsk|packetsk|netlinksk|tty|tunfile|timerfd|pidfd|pages-shmem-.*": (
        "is an image of an old format, which CRIU reads beside the new ones"
    ),
    r"ifaddr-\d+|route6?-\d+|rule-\d+|iptables-\d+|ip6tables-\d+|nftables-\d+": (
        "would have root's tools set up a network; podman makes that itself"
    ),
    r"netns-(ct|exp)-\d+": "would set up connection tracking",
    r"apparmor": "brings AppArmor policies to be loaded",
    r"userns-\d+|pidns-\d+": "is of a namespace that no container podman restores has",
    r"binfmt-misc(-\d+)?": "would register an interpreter with the kernel",
    r"autofs-\d+": "would mount an automounter's directory",
    r"bpfmap-(file|data)": "would load BPF maps into the kernel",
}  # fmt: skip
"""What CRIU would act on, and why no checkpoint of a podman container has it."""

_KINDS: Final = {**{pattern: (kind, contents.plain) for pattern, kind in DECODED.items()}, **FOLLOWED}
_LISTED: Final = re.compile("|".join(_KINDS), re.ASCII)
_IS_PAGEMAP: Final = re.compile(PAGEMAPS, re.ASCII)
_IS_KNOWN: Final = re.compile("|".join((*_KINDS, *OTHERS)), re.ASCII)
_IS_REFUSED: Final = re.compile("|".join(REFUSED), re.ASCII)
_COMMON: Final = 0x54564319
"""IMG_COMMON_MAGIC: begins every image but the inventory (criu/include/magic.h)."""


class Images:
    """The images of one checkpoint. `names` are those of its files, `read` gives the content of one.

    UnsupportedError for a file that CRIU must not read.
    """

    def __init__(self, names: Iterable[str], read: Callable[[str], bytes]) -> None:
        self._names = sorted(names)
        self._read = read
        self._found: dict[str, list[Message]] = {}
        for name in self._names:
            _check_name(name)

    def names(self, pattern: str) -> list[str]:
        """The names that match, without ``.img``."""
        whole = re.compile(pattern + r"\.img", re.ASCII)
        return [name.removesuffix(".img") for name in self._names if whole.fullmatch(name)]

    def numbered(self, prefix: str) -> dict[int, list[Message]]:
        """The messages of each image ``PREFIX-N``, by N; IntegrityError when one is not what its name says."""
        return {int(name.rpartition("-")[2]): self.messages(name) for name in self.names(prefix + r"-\d+")}

    def messages(self, name: str) -> list[Message]:
        """The messages of one image; none when it is not there."""
        if name not in self._found:
            there = f"{name}.img" in self._names
            self._found[name] = _decode(name, self.raw(name)) if there else []
        return self._found[name]

    def one(self, name: str) -> Message:
        """The one message of an image; IntegrityError when there is another number of them."""
        found = self.messages(name)
        if len(found) != 1:
            raise IntegrityError(f"the checkpoint's {name}.img has {len(found)} messages instead of one")
        return found[0]

    def changeable(self, name: str) -> Message:
        """A copy of the one message of an image, to be changed and `encoded`; an empty one when it is not there."""
        message = _empty(_kind(name)[0])
        if f"{name}.img" in self._names:
            message.CopyFrom(self.one(name))
        return message

    def changeables(self, name: str) -> list[Message]:
        """Copies of the messages of an image, likewise."""
        copies = []
        for message in self.messages(name):
            copies.append(_empty(_kind(name)[0]))
            copies[-1].CopyFrom(message)
        return copies

    def raw(self, name: str) -> bytes:
        """The bytes of an image."""
        return self._read(f"{name}.img")

    def filesystem(self, name: str) -> Iterator[Member]:
        """What a filesystem in memory holds; nothing when it is not there. IntegrityError."""
        there = f"{name}.img" in self._names
        return tars.members(self.raw(name), f"the checkpoint's {name}.img") if there else iter(())

    def check_fields(self, expected: Expected) -> None:
        """Read all there is, and refuse what the table of fields has not. IntegrityError, UnsupportedError."""
        for name in (each.removesuffix(".img") for each in self._names):
            if _LISTED.fullmatch(name):
                for message in self.messages(name):
                    check_message(name, message, expected.may)
            elif _IS_PAGEMAP.fullmatch(name):
                contents.check_pagemap(self.raw(name))


def encoded(name: str, *messages: Message) -> bytes:
    """The image of that name which consists of these messages."""
    made = [_head(_kind(name)[0])]
    for each in messages:
        data = each.SerializeToString()
        made += [struct.pack("<I", len(data)), bytes(data)]
    return b"".join(made)


def text(value: Any) -> str:
    """A string of a message: where it is no UTF-8 (the name of a file need not be), with what is wrong escaped."""
    return value if isinstance(value, str) else bytes(value).decode("utf-8", "surrogateescape")


def _check_name(name: str) -> None:
    stem = name.removesuffix(".img")
    # CRIU writes numbers without zeros in front: two names of one number would be two images to us, and one to CRIU.
    if stem == name or re.search(r"-0[0-9a-f]", stem, re.IGNORECASE):
        raise UnsupportedError(f"{name[:200]!r} is no image of CRIU")
    if _IS_REFUSED.fullmatch(stem):
        reason = next(reason for pattern, reason in REFUSED.items() if re.fullmatch(pattern, stem, re.ASCII))
        raise UnsupportedError(f"the checkpoint's {name} {reason}")
    if not _IS_KNOWN.fullmatch(stem):
        raise UnsupportedError(f"the checkpoint has an image of an unknown kind, {name[:200]!r}")


def _decode(name: str, data: bytes) -> list[Message]:
    kind, read = _kind(name)
    head = _head(kind)
    if not data.startswith(head):
        raise IntegrityError(f"the checkpoint's {name}.img is of another kind than its name says")
    reader = contents.Reader(name, data, len(head), lambda inner, code: _message(name, _empty(kind, inner), code))
    found = list(read(reader))
    reader.end()
    return found


def _kind(name: str) -> tuple[str, Callable[[contents.Reader], Iterator[Message]]]:
    """CRIU's name for the kind of an image, and what reads its messages."""
    return next(found for pattern, found in _KINDS.items() if re.fullmatch(pattern, name, re.ASCII))


def _head(kind: str) -> bytes:
    """With what an image of that kind begins."""
    head = struct.pack("<I", criu.pycriu_images().magic.by_name[kind])
    return head if kind == "INVENTORY" else struct.pack("<I", _COMMON) + head


def _empty(kind: str, inner: str = "") -> Message:
    """A message of images of that kind; `inner` names one that is not its usual one."""
    images = criu.pycriu_images()
    return (getattr(images.pb, inner) if inner else images.handlers[kind].payload)()


def _message(name: str, message: Message, data: bytes) -> Message:
    try:
        message.ParseFromString(data)
        message.DiscardUnknownFields()
        known = message.SerializeToString()
    except Exception as error:  # of protobuf, whose versions differ in what they raise
        raise IntegrityError(f"the checkpoint's {name}.img cannot be read: {error}") from error
    if known != data:
        raise UnsupportedError(
            f"the checkpoint's {name}.img has fields or values that this host's pycriu does not know",
            hint="install the version of criu and pycriu here that the checkpoint was made with",
        )
    return message
