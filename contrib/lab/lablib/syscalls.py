"""What Python 3.11's standard library lacks of the kernel: unshare(2), mount(2), pivot_root(2), umount2(2)."""

import ctypes
import os

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18

_MNT_DETACH = 2
_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def unshare(flags: int) -> None:
    """Move this process (for CLONE_NEWPID: its next child) into new namespaces."""
    _check(_libc.unshare(flags), f"unshare {flags:#x}")


def mount(source: str, target: str, fstype: str = "", flags: int = 0, data: str = "") -> None:
    """mount(2); a read-only bind mount needs a second call with MS_REMOUNT, see `bind`."""
    done = _libc.mount(source.encode(), target.encode(), fstype.encode(), ctypes.c_ulong(flags), data.encode())
    _check(done, f"mount {fstype or source} on {target}")


def bind(source: str, target: str, *, read_only: bool = False) -> None:
    """Show the file or directory `source` at `target`, which must exist."""
    mount(source, target, flags=MS_BIND)
    if read_only:
        mount("", target, flags=MS_REMOUNT | MS_BIND | MS_RDONLY)


def unmount(target: str) -> None:
    """Take a mount away at once, though somebody may still be in it."""
    _check(_libc.umount2(target.encode(), _MNT_DETACH), f"umount {target}")


def private_mounts() -> None:
    """Give this process mounts of its own: none of what it mounts is ever seen on the machine."""
    unshare(CLONE_NEWNS)
    mount("", "/", flags=MS_REC | MS_PRIVATE)


def pivot_root(new_root: str) -> None:
    """Make the mount point `new_root` this process's root and let go of the old one.

    chroot(2) would not do: CRIU refuses a process whose root is not the root of its mount namespace.
    """
    os.chdir(new_root)
    # The form without a put_old directory, pivot_root(2) "pivot_root(".", ".")".
    _check(_libc.pivot_root(b".", b"."), f"pivot_root {new_root}")
    unmount(".")
    os.chdir("/")
