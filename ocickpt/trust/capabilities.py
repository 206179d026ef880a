"""Capabilities by name and by bit (capabilities(7))."""

from __future__ import annotations

# linux/capability.h, in the order of the bits.
_CAPABILITIES = (
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
    "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER",
    "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE",
    "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
    "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF",
    "CHECKPOINT_RESTORE",
)  # fmt: skip


_BITS = {name: 1 << bit for bit, name in enumerate(_CAPABILITIES)}


def capability_mask(names: tuple[str, ...]) -> int:
    """The bits of capabilities by name, with or without ``CAP_``; unknown names allow nothing."""
    # Each bit once, however often and in whatever spelling it is named.
    return sum({_BITS.get(name.upper().removeprefix("CAP_"), 0) for name in names})


def capability_names(mask: int) -> tuple[str, ...]:
    """The names of the bits of `mask`, without ``CAP_``; the number of one that has none."""
    names = dict(enumerate(_CAPABILITIES))
    return tuple(names.get(bit, str(bit)) for bit in range(mask.bit_length()) if mask >> bit & 1)
