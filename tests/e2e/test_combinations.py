"""What `checkpoint` accepts `restore` brings back, here and on another host; what it refuses goes on running.

Over options of `podman run`, combined so that every two of different kinds meet in one container (all of them in a long
run, ten drawn by a seed otherwise). What a container can say of itself is the same before and after, how it is confined
among it (test_options.py has the options one by one).
"""

from __future__ import annotations

import json
import random

import pytest

from ocickpt.errors import PrerequisiteError, UnsupportedError
from tests.e2e.conftest import LONG, SEED, Host, Start
from tests.e2e.covering import Pair, covering
from tests.e2e.test_options import confinement

FACTORS: dict[str, tuple[str, ...]] = {
    "user": ("", "--user 33:33", "--user 1000 --group-add 42", "--passwd=false", "--passwd-entry x:x:0:0::/:/bin/sh"),
    "capabilities": (
        "",
        "--cap-add net_admin",
        "--cap-drop all",
        "--cap-drop net_raw --cap-drop chown",
        "--privileged",
    ),
    "new privileges": ("", "--security-opt no-new-privileges"),
    "seccomp": ("", "--security-opt seccomp=unconfined"),
    "label": ("", "--security-opt label=disable", "--security-opt apparmor=unconfined"),
    "paths": (
        "",
        "--security-opt mask=/proc/version",
        "--security-opt unmask=ALL",
        "--security-opt unmask=/proc/kcore",
    ),
    "root": ("", "--read-only", "--read-only --read-only-tmpfs=false"),
    "tmpfs": (
        "",
        "--tmpfs /scratch",
        "--tmpfs /scratch:size=8m,mode=1777,noexec",
        "--mount type=tmpfs,destination=/t,tmpfs-size=4m",
    ),
    "volume": (
        "",
        "--volume data:/data",
        "--volume data:/data:ro",
        "--volume data:/data:exec",
        "--volume /anonymous",
        "--mount type=volume,source=held,destination=/v",
    ),
    "bind": (
        "",
        "--volume /srv/share:/host:ro",
        "--volume /srv/share:/host:rbind,rslave",
        "--mount type=bind,source=/etc/os-release,destination=/release,ro",
    ),
    "environment": ("", "--env A=b", "--unsetenv TERM", "--tz UTC", "--http-proxy=false"),
    "name": ("", "--hostname box", "--uts host"),
    "hosts": ("", "--add-host other:10.0.0.9", "--no-hosts"),
    "names": ("", "--dns 10.0.0.1 --dns-search example.org", "--dns-option ndots:2"),
    "network": ("", "--network none", "--network host", "--ip 10.88.7.7", "--mac-address 92:d0:c6:0a:29:33"),
    "ports": ("", "--publish 18080:80", "--publish 127.0.0.1:18081:81/udp", "--expose 99"),
    "ipc": ("", "--ipc private", "--ipc shareable", "--shm-size 8m"),
    "cgroup": ("", "--cgroupns private", "--cgroupns host", "--cgroup-parent /somewhere"),
    "limits": ("", "--ulimit nofile=100:200", "--ulimit core=0", "--ulimit nproc=500:600", "--ulimit host"),
    "sysctl": ("", "--sysctl net.ipv4.ip_forward=1", "--sysctl kernel.shmmax=1048576"),
    "directory": ("", "--workdir /tmp", "--umask 077"),
    "labels": ("", "--label a=b", "--annotation a=b"),
    "init": ("", "--init", "--systemd=always"),
    "terminal": ("", "--tty", "--interactive"),
    "stop": ("", "--stop-signal INT --stop-timeout 1", "--timeout 600"),
    "restart": ("", "--restart on-failure:3", "--rm"),
    "log": ("", "--log-driver json-file", "--log-opt max-size=1mb"),
    "device": ("", "--device /dev/fuse", "--device /dev/zero:/dev/nothing:r"),
    "score": ("", "--oom-score-adj 500"),
    "secret": ("", "--secret key", "--secret key,type=env,target=KEY"),
    "health": ("", "--health-cmd true --health-interval 5s", "--no-healthcheck"),
    "notify": ("", "--sdnotify ignore", "--sdnotify conmon"),
}
# What podman itself does not take together; runc makes no place to mount at in a root that is only read.
_APART = (
    ("root", "--read-only", "secret", "--secret key"),
    ("root", "--read-only --read-only-tmpfs=false", "secret", "--secret key"),
    ("root", "--read-only", "init", "--init"),
    ("root", "--read-only --read-only-tmpfs=false", "init", "--init"),
    ("network", "--network none", "names", "--dns 10.0.0.1 --dns-search example.org"),
    ("network", "--network none", "names", "--dns-option ndots:2"),
    ("network", "--network host", "sysctl", "--sysctl net.ipv4.ip_forward=1"),
    ("network", "--network host", "ports", "--publish 18080:80"),
    ("network", "--network host", "ports", "--publish 127.0.0.1:18081:81/udp"),
    ("network", "--network none", "ports", "--publish 18080:80"),
    ("network", "--network none", "ports", "--publish 127.0.0.1:18081:81/udp"),
)
EXCLUDED: frozenset[Pair] = frozenset(frozenset({(a, b), (c, d)}) for a, b, c, d in _APART)
ROWS = covering(FACTORS, EXCLUDED, seed=1)
RUNTIMES = ("runc", "crun")
PLAYED = [(number, runtime) for number in range(len(ROWS)) for runtime in RUNTIMES]
if not LONG:
    PLAYED = random.Random(SEED).sample(PLAYED, 10)


@pytest.mark.parametrize(("number", "runtime"), PLAYED)
def test_what_is_taken_comes_back(hosts: tuple[Host, Host], start: Start, ref: str, number: int) -> None:
    a, _ = hosts
    for host in hosts:
        host.run("podman", "secret", "create", "--replace", "key", "-", stdin="x")
    options = " ".join(filter(None, ROWS[number].values())).split()
    start("it", *options, "localhost/busybox", "/counter.sh")
    a.wait("sh", "-c", "podman logs it 2>&1 | grep -q 2")
    before = confinement(a)
    done = a.ocickpt("checkpoint", "--format", "json", "it", ref, check=False)
    if done.returncode in (UnsupportedError.exit_code, PrerequisiteError.exit_code):
        assert a.inspect("it")["State"]["Status"] == "running", done.stderr
        assert confinement(a) == before
        return
    assert done.returncode == 0, done.stderr
    published = json.loads(done.stdout)["reference"]
    a.clean()
    for host in hosts:
        restored = host.ocickpt("restore", published, check=False)
        if restored.returncode == PrerequisiteError.exit_code:
            restored = host.ocickpt("restore", *host.refused("restore", published), published, check=False)
        assert restored.returncode == 0, restored.stderr
        assert confinement(host) == before
        host.clean()
