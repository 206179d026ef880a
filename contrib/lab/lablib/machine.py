"""Runs the machine's own programs, and installs those it lacks with apt."""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from lablib.layout import LabError

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
TOOLS = {
    "mmdebstrap": "mmdebstrap",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "unshare": "util-linux",
    "setpriv": "util-linux",
}


def run(argv: Sequence[str], *, stdin: str | None = None) -> str:
    """Run a program to its end and return its stdout. Raises LabError with its last words where it fails."""
    try:
        done = subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise LabError(f"{argv[0]} is not installed") from None
    if done.returncode != 0:
        last = " / ".join(done.stderr.strip().splitlines()[-3:])
        raise LabError(f"{' '.join(argv)}: exit code {done.returncode}: {last}")
    return done.stdout


def missing_packages(tools: Mapping[str, str] = TOOLS) -> list[str]:
    """Debian packages that building a root needs and this machine lacks; `tools` are programs and their packages."""
    missing = {package for tool, package in tools.items() if shutil.which(tool) is None}
    if not KEYRING.exists():
        missing.add("debian-archive-keyring")
    return sorted(missing)


def install_missing(tools: Mapping[str, str] = TOOLS) -> None:
    """Install what building needs, from the machine's own apt sources. Raises LabError."""
    packages = missing_packages(tools)
    if not packages:
        return
    os.environ["DEBIAN_FRONTEND"] = "noninteractive"
    run(["apt-get", "--quiet", "update"])
    run(["apt-get", "--quiet", "install", "--yes", "--no-install-recommends", *packages])
