"""Whether a process is confined as a checkpoint says, by what the kernel says of it (proc(5))."""

from __future__ import annotations

from pathlib import Path

from ocickpt.description import Security
from ocickpt.errors import NotFoundError

_SELINUX, _APPARMOR = Path("/sys/fs/selinux"), Path("/sys/module/apparmor/parameters/enabled")
# linux/capability.h, in the order of the bits.
_CAPABILITIES = (
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
    "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER",
    "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE",
    "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
    "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF",
    "CHECKPOINT_RESTORE",
)  # fmt: skip


def unconfined(pid: int, security: Security, proc: Path = Path("/proc")) -> str:
    """What process `pid` may do that `security` does not allow it; nothing when all is in force.

    Raises NotFoundError when there is no such process.
    """
    try:
        status = (proc / str(pid) / "status").read_text("ascii", "replace")
    except OSError as error:
        raise NotFoundError(
            f"the restored container's process {pid} is gone", hint="`podman logs` may tell why"
        ) from error
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    if security.seccomp.mode == "filter" and fields.get("Seccomp", "").strip() != "2":
        return "its seccomp filter is not in force"
    if security.no_new_privileges and fields.get("NoNewPrivs", "").strip() != "1":
        return "no_new_privs is not in force"
    extra = int(fields.get("CapBnd", "0"), 16) & ~capability_mask(security.capabilities.bounding)
    if extra:
        return f"it may have the capabilities {' '.join(capability_names(extra))}"
    return _label(proc / str(pid) / "attr", security)


_BITS = {name: 1 << bit for bit, name in enumerate(_CAPABILITIES)}


def capability_mask(names: tuple[str, ...]) -> int:
    """The bits of capabilities by name, with or without ``CAP_``; unknown names allow nothing."""
    # Each bit once, however often and in whatever spelling it is named.
    return sum({_BITS.get(name.upper().removeprefix("CAP_"), 0) for name in names})


def capability_names(mask: int) -> tuple[str, ...]:
    """The names of the bits of `mask`, without ``CAP_``; the number of one that has none."""
    names = dict(enumerate(_CAPABILITIES))
    return tuple(names.get(bit, str(bit)) for bit in range(mask.bit_length()) if mask >> bit & 1)


def _label(attributes: Path, security: Security) -> str:
    if _SELINUX.is_dir():
        wanted, attribute = security.selinux.process, attributes / "current"
    elif _is_on(_APPARMOR):
        # Another module may have the first word in attr/current.
        wanted, attribute = security.apparmor, attributes / "apparmor/current"
    else:
        return ""
    try:
        label = attribute.read_text("utf-8", "replace").strip("\0\n").partition(" (")[0]
    except OSError:
        label = ""
    # The categories are the copy's own; user, role and type are what confines.
    if wanted and label.split(":")[:3] != wanted.split(":")[:3]:
        return f"it runs as {label or 'nothing'} instead of {wanted}"
    return ""


def _is_on(parameter: Path) -> bool:
    try:
        return parameter.read_text("ascii").strip() == "Y"
    except FileNotFoundError:
        return False
