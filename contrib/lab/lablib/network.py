"""The switch that all hosts of a lab are plugged into.

It is a bridge in a network namespace of its own, so the machine's own network never learns of it: no link, no
route, no firewall rule, and every lab may use the same addresses. The namespace lives as long as the `sleep`
that was started in it; when that and the hosts are killed, nothing is left to clean up.
"""

import os
import subprocess

from lablib import enter, machine, syscalls
from lablib.layout import HOSTS, PREFIX, Host, LabError

_KEEPER = ["/bin/sleep", "infinity"]


def start_switch() -> subprocess.Popen[bytes]:
    """Start the process that keeps the switch's namespace, with the bridge in it. Raises LabError."""
    return subprocess.Popen(
        _KEEPER,
        preexec_fn=lambda: syscalls.unshare(syscalls.CLONE_NEWNET),  # noqa: PLW1509 - there are no threads
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _ip(pid: int, *commands: str) -> None:
    """Run ip(8) commands in the network namespace of process `pid`."""
    argv = [enter.NSENTER, f"--target={pid}", "--net", "ip", "-batch", "-"]
    try:
        machine.run(argv, stdin="\n".join(commands) + "\n")
    except LabError as error:
        raise LabError(f"network: {error}") from None


def make_bridge(switch: int) -> None:
    """Put the bridge into the switch's namespace."""
    _ip(switch, "link add bridge type bridge", "link set bridge up")


def plug_in(switch: int, pid: int, host: Host) -> None:
    """Connect the host whose first process is `pid`: its end of the cable is eth0."""
    port = f"to-{host.name}"
    _ip(
        switch,
        f"link add {port} type veth peer name eth0 netns {pid}",
        f"link set {port} master bridge up",
    )
    _ip(
        pid,
        "link set lo up",
        f"addr add {host.address}/{PREFIX} dev eth0",
        "link set eth0 up",
    )


def hosts_file(name: str) -> str:
    """The /etc/hosts of the host called `name`: there is no name server in a lab."""
    lines = ["127.0.0.1 localhost", "::1 localhost ip6-localhost"]
    lines += [f"{host.address} {host.name}" for host in HOSTS]
    if name not in (host.name for host in HOSTS):
        lines.append(f"127.0.1.1 {name}")
    return os.linesep.join(lines) + os.linesep
