"""What processes have mapped: the memory that CRIU lays out for them, and which of its own ways it takes to do so.

CRIU finds room for its own code between the mappings that an image lists, and runs there as root until credentials and
filters are in force: so none is where another one is.

Source: images/mm.proto, vma.proto; criu/include/image.h (VMA_AREA status), mem.c, pie/restorer.c, proc_parse.c.
"""

from __future__ import annotations

from typing import Final

from ocickpt.errors import IntegrityError, UnsupportedError
from ocickpt.gate.expected import Expected
from ocickpt.gate.images import Images, Message

_FOREIGN: Final = 1 << 17 | 1 << 27 | 1 << 31
"""VMA_AREA_UPROBES, VMA_EXT_PLUGIN, VMA_UNSUPP."""
_CONTENT: Final = 0xF << 6
"""VMA_FILE_PRIVATE, VMA_FILE_SHARED, VMA_ANON_SHARED, VMA_ANON_PRIVATE."""
_VSYSCALL, _SOCKET, _GUARD = 1 << 2, 1 << 11, 1 << 16
_KINDS: Final = _CONTENT | _VSYSCALL | 1 << 3 | 0x1F << 10 | _GUARD
"""What says where a mapping comes from: besides these VDSO, SYSVIPC, SOCKET, VVAR, AIORING, MEMFD."""
_PAGE: Final = 4096
"""The smallest that there is."""


def check_mappings(images: Images, expected: Expected) -> None:
    """Refuse memory that no process of a container as `expected` has. IntegrityError, UnsupportedError."""
    for number, found in images.numbered("mm").items():
        for each in found:
            if any(vma.status & _FOREIGN for vma in each.vmas):
                raise UnsupportedError("the checkpoint has memory that CRIU cannot restore by itself")
            if problem := _layout(each) or _kinds(each, expected):
                raise IntegrityError(f"process {number} of the checkpoint {problem}")


def _layout(memory: Message) -> str:
    end = 0
    for vma in memory.vmas:
        if vma.start >= vma.end or (vma.start | vma.end) % _PAGE:
            return f"has memory from {vma.start:#x} to {vma.end:#x}, which is no range of pages"
        if vma.status & _GUARD:  # a part of another one (MADV_GUARD_INSTALL); CRIU lists these last
            continue
        if vma.start < end:
            return f"has memory at {vma.start:#x} where it has other memory"
        end = vma.end
    return ""


def _kinds(memory: Message, expected: Expected) -> str:
    for vma in memory.vmas:
        content = vma.status & _CONTENT
        if not vma.status & _KINDS or content & (content - 1):
            return f"has memory of the unknown kind {vma.status:#x}"
        if vma.status & _SOCKET and not expected.may("NET_RAW"):
            return "has mapped the memory of a packet socket, which takes CAP_NET_RAW"
    return ""
