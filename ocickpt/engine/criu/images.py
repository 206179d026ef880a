"""What CRIU's images say about themselves."""

from __future__ import annotations

import io
import struct
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from ocickpt.errors import IntegrityError, PrerequisiteError

if TYPE_CHECKING:
    from ocickpt.description import ImagesLsm

_LSM: Final[dict[str | int, ImagesLsm]] = {
    "NO_LSM": "none", "SELINUX": "selinux", "APPARMOR": "apparmor", 0: "none", 1: "selinux", 2: "apparmor",
}  # fmt: skip
_MARCH: dict[str | int, str] = {
    name: goarch
    for number, (word, goarch) in enumerate(
        (
            ("X86_64", "amd64"), ("ARM", "arm"), ("AARCH64", "arm64"), ("PPC64", "ppc64le"), ("S390", "s390x"),
            ("MIPS", "mips64le"), ("LOONGARCH64", "loong64"), ("RISCV64", "riscv64"),
        ), 1,
    )
    for name in (word, number)
}  # fmt: skip
_PRIVATE, _NOT_LAZY = 0x22, 0x42000
"""MAP_PRIVATE and MAP_ANONYMOUS; MAP_LOCKED and MAP_HUGETLB (asm-generic/mman.h)."""
_KERNELS = 1 << 2 | 1 << 3 | 1 << 12
"""VMA_AREA_VSYSCALL, VMA_AREA_VDSO and VMA_AREA_VVAR (criu/include/image.h)."""
_EMPTY = 8
"""Bytes of an image that has no entries: two magic numbers (criu/image.c)."""
_NO_NETWORK_LOCK = bytes([11 << 3, 2])
"""``network_lock_method``, a varint: NETWORK_LOCK_SKIP (images/inventory.proto, criu/include/cr_options.h)."""


def images_lsm(inventory: bytes) -> ImagesLsm:
    """The security module whose labels CRIU wrote into its images, from inventory.img (images/inventory.proto).

    "none" on an SELinux host means a CRIU built without libselinux: what it restores runs unconfined.
    """
    entry = _entries(inventory, "inventory.img")[0]
    return _LSM.get(entry.get("lsmtype", "NO_LSM"), "unknown")


def architecture(core: bytes) -> str:
    """The architecture that a core image is of, by Go's name (images/core.proto: mtype); empty if unknown."""
    return _MARCH.get(_entries(core, "a core image")[0].get("mtype", 0), "")


def holds_locks(filelocks: bytes) -> bool:
    """Whether there are locks in filelocks.img: without --file-locks CRIU dumps no container that holds any, and
    restores none of those it has dumped (criu/file-lock.c)."""
    return len(filelocks) > _EMPTY


def without_network_lock(inventory: bytes) -> bytes:
    """inventory.img, changed so that CRIU restores without keeping packets from the container meanwhile.

    That protects connections alone (criu/image.c takes the method from the inventory), and costs it five runs of
    iptables. Appended to a message, a field replaces what was said before (protobuf's encoding guide).
    """
    magic, message = inventory[:4], inventory[8:]
    if inventory[4:8] != struct.pack("<I", len(message)):
        raise IntegrityError("inventory.img is damaged")
    message += _NO_NETWORK_LOCK
    return magic + struct.pack("<I", len(message)) + message


def mount_flags(images: Iterable[bytes]) -> dict[str, int]:
    """The flags of each mount point in mountpoints images, as mount(2) has them: those that all its mounts have."""
    flags: dict[str, int] = {}
    for image in images:
        for mount in _entries(image, "a mountpoints image"):
            path, value = mount.get("mountpoint"), mount.get("flags")
            if isinstance(path, str) and isinstance(value, int):
                flags[path] = value & flags.get(path, value)
    return flags


def lazy_areas(mm: bytes) -> list[tuple[int, int]]:
    """The (start, end) of each mapping in an mm image that CRIU can restore lazily; ascending.

    As vma_entry_can_be_lazy() in criu/include/vma.h.
    """
    areas = []
    try:
        for vma in _entries(mm, "an mm image")[0].get("vmas") or ():
            flags, status = int(vma["flags"]), int(vma["status"])
            if flags & (_PRIVATE | _NOT_LAZY) == _PRIVATE and not status & _KERNELS:
                areas.append((int(vma["start"]), int(vma["end"])))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise IntegrityError(f"an mm image cannot be read: {error}") from error
    return sorted(areas)


def processes(pstree: bytes) -> set[int]:
    """The pids of the processes that were dumped, from pstree.img (images/pstree.proto)."""
    return {int(entry.get("pid") or 0) for entry in _entries(pstree, "pstree.img")}


def pycriu_images() -> Any:
    """pycriu's decoder of images; PrerequisiteError without it."""
    try:
        from pycriu import images
    except Exception as error:  # a protobuf of another age raises whatever it likes
        reason = "is not installed" if isinstance(error, ImportError) else "cannot be imported"
        hint = "it comes with the distribution: python3-pycriu (Debian), python3-criu (Fedora)"
        if sys.prefix != sys.base_prefix:
            hint += "; a virtual environment sees it when made with --system-site-packages"
        raise PrerequisiteError(f"pycriu {reason}", hint=hint) from error
    return images


def _entries(image: bytes, what: str) -> list[dict[str, Any]]:
    images = pycriu_images()
    try:
        entries = images.load(io.BytesIO(image))["entries"]
    except Exception as error:
        raise IntegrityError(f"{what} cannot be read: {error}") from error
    if not entries or not all(isinstance(entry, dict) for entry in entries):
        raise IntegrityError(f"{what} is empty")
    return list(entries)
