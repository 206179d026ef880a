"""Facts about this host: its kernel, its programs and their versions.

A fact that cannot be found out is an empty string (or an empty tuple), never an error: what follows
from that is for the caller to say.
"""

from __future__ import annotations

import importlib
import mmap
import os
import platform
import re
import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ocickpt import proc
from ocickpt.errors import OcickptError

if TYPE_CHECKING:
    from ocickpt.description import Cgroup

_PATIENCE = 30.0
_CPUINFO = Path("/proc/cpuinfo")
_OWN_CGROUPS = Path("/proc/self/cgroup")
_FIRST_FREE_PORT = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
_MOUNTS = Path("/proc/self/mounts")
_LSM = Path("/sys/kernel/security/lsm")
_MODULES = Path("/sys/module")
_SELINUXFS = Path("/sys/fs/selinux/enforce")
# criu and the runtimes live there, and it is not on everybody's PATH.
_SYSTEM_PATH = "/usr/local/sbin:/usr/sbin:/sbin"

# What Go calls an architecture, which is what OCI means by one (image-spec, image-index.md).
_GOARCH = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "i386": "386",
    "i686": "386",
    "armv6l": "arm",
    "armv7l": "arm",
    "armv8l": "arm",
    "loongarch64": "loong64",
}


@dataclass(frozen=True, slots=True)
class Host:
    """This host, as far as it matters to a checkpoint."""

    arch: str
    """GOARCH: "amd64", "arm64", …"""
    kernel: str
    """`uname -r`."""
    cgroup: Cgroup
    """"v2", "v1", or nothing."""
    cpu_features: tuple[str, ...]
    """The flags of the first CPU in /proc/cpuinfo, sorted."""
    page_size: int
    criu: str
    lsm: str
    """"selinux", "apparmor" or "none": the security module that labels processes."""
    euid: int
    distribution: str
    """``ID VERSION_ID`` of os-release(5)."""


def facts() -> Host:
    """Everything about this host; asks CRIU for its version."""
    return Host(
        arch=arch(),
        kernel=kernel(),
        cgroup=cgroup(),
        cpu_features=cpu_features(),
        page_size=page_size(),
        criu=criu_version(),
        lsm=lsm(),
        euid=os.geteuid(),
        distribution=distribution(),
    )


def arch() -> str:
    """The architecture by Go's name."""
    machine = platform.machine()
    return _GOARCH.get(machine, machine)


def kernel() -> str:
    """The kernel's release."""
    return platform.release()


def page_size() -> int:
    """Bytes of a page of memory."""
    return os.sysconf("SC_PAGE_SIZE")


def cpu_features() -> tuple[str, ...]:
    """What the first CPU can do: "flags" on x86, "Features" on arm, "features" on s390."""
    found = re.search(r"^(?:flags|[Ff]eatures)\s*:(.*)$", _read(_CPUINFO), re.MULTILINE)
    return tuple(sorted(set(found[1].split()))) if found else ()


def cgroup() -> Cgroup:
    """ "v2" when /sys/fs/cgroup is the unified hierarchy, "v1" when it is anything else."""
    for line in _read(_MOUNTS).splitlines():
        fields = line.split()
        if len(fields) > 2 and fields[1] == "/sys/fs/cgroup":
            return "v2" if fields[2] == "cgroup2" else "v1"
    return ""


def v1_hierarchies() -> tuple[str, ...]:
    """The cgroup v1 hierarchies this process is in (cgroups(7)), seen by CRIU whether mounted here or not."""
    lines = (line.split(":", 2) for line in _read(_OWN_CGROUPS).splitlines())
    return tuple(fields[1] for fields in lines if len(fields) == 3 and fields[0] != "0")


def first_free_port() -> int:
    """The first port that takes no capability (ip_unprivileged_port_start in the kernel's ip-sysctl.rst)."""
    value = _read(_FIRST_FREE_PORT).strip()
    return int(value) if value.isdecimal() else 1024


def lsm() -> str:
    """The security module that labels processes here."""
    names = _read(_LSM).strip().split(",")
    for name in ("selinux", "apparmor"):
        # Without securityfs, AppArmor's own switch tells; SELinux has no module parameters to look at.
        switch = _read(_MODULES / name / "parameters" / "enabled").strip()
        if name in names or switch == "Y" or (name == "selinux" and _SELINUXFS.exists()):
            return name
    return "none"


def distribution() -> str:
    """``debian 13``, from os-release(5)."""
    try:
        found = platform.freedesktop_os_release()
    except OSError:
        return ""
    return f"{found.get('ID', '')} {found.get('VERSION_ID', '')}".strip()


def program(name: str) -> str:
    """The absolute path of a program, on PATH or among the system's; empty when it is not installed."""
    path = os.environ.get("PATH", os.defpath)
    return shutil.which(name, path=f"{path}:{_SYSTEM_PATH}" if _SYSTEM_PATH else path) or ""


def podman_version() -> str:
    """Version of the podman on PATH."""
    return _version(["podman", "--version"])


def criu_version() -> str:
    """Version of the criu on PATH."""
    return _version(["criu", "--version"])


def skopeo_version() -> str:
    """Version of the skopeo on PATH."""
    return _version(["skopeo", "--version"])


def runtime_version(runtime: str) -> str:
    """Version of a runtime, by name or path."""
    return _version([runtime, "--version"])


def runtime_path(name: str) -> str:
    """The program that podman runs for the runtime `name`, as podman itself finds it; empty when it finds none."""
    return _asked(["podman", "--runtime", name, "info", "--format", "{{.Host.OCIRuntime.Path}}"])[1].strip()


def runtime_checkpoints(runtime: str) -> bool:
    """Whether a runtime was built with checkpoint and restore, by the probe podman uses (crutils.go)."""
    return _asked([runtime, "checkpoint", "--help"])[0] == 0


def pycriu_version() -> str:
    """Version of pycriu; "unknown" when it does not say; empty when it cannot be imported."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what its generated code is warned of is not our user's concern
            found = importlib.import_module("pycriu")
    except Exception:  # noqa: BLE001 - a protobuf of another age raises whatever it likes
        return ""
    return str(getattr(found, "__version__", "")) or "unknown"


def criu_check(*arguments: str) -> str:
    """What `criu check` objects to: empty when nothing, else its last error."""
    status, output = _asked(["criu", "check", *arguments], both=True)
    if status == 0:
        return ""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith(("Error", "Warn"))] or lines or ["it said nothing"]
    return re.sub(r"^(?:Error|Warn)\s*\([^)]*\):\s*", "", errors[-1])


def criu_knows_selinux() -> bool | None:
    """Whether criu is linked with libselinux; None when its file is no ELF program that can be looked into."""
    try:
        with Path(program("criu")).open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as content:
            return content.find(b"libselinux.so") >= 0 if content[:4] == b"\x7fELF" else None
    except (OSError, ValueError):
        return None


def _version(argv: list[str]) -> str:
    """The first word with a number and a dot in what a program answers to ``--version``."""
    found = re.search(r"\bv?(\d+\.\d[^\s,]*)", _asked(argv)[1])
    return found[1] if found else ""


def _asked(argv: list[str], *, both: bool = False) -> tuple[int, str]:
    """Exit status and stdout (with `both`, stderr too) of a program; (127, "") when it is missing or hangs."""
    path = program(argv[0])
    if not path:
        return 127, ""
    try:
        done = proc.run([path, *argv[1:]], check=False, timeout=_PATIENCE)
    except OcickptError:
        return 127, ""
    return done.returncode, done.stdout + (done.stderr if both else "")


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""


def free_memory() -> int:
    """Bytes of memory that can be had without swapping (proc_meminfo(5), MemAvailable)."""
    found = re.search(r"^MemAvailable:\s*(\d+) kB$", Path("/proc/meminfo").read_text("ascii"), re.MULTILINE)
    return int(found[1]) << 10 if found else 0
