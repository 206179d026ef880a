"""What people give `podman run` comes through a checkpoint and a restore, and confines as it did.

One option each (`make test-options`); a test run plays every tenth. Where the restore refuses what podman would not
give unasked, it is allowed in the words of the refusal.
"""

from __future__ import annotations

import json
import re

import pytest

from ocickpt.errors import PrerequisiteError, UnsupportedError
from tests.e2e.conftest import LONG, Host, Start

OPTIONS = (
    "--user 33:33",
    "--user 1000",
    "--group-add 42",
    "--cap-add net_admin",
    "--cap-add sys_ptrace --cap-add sys_nice",
    "--cap-drop all",
    "--cap-drop net_raw --cap-drop chown",
    "--security-opt no-new-privileges",
    "--security-opt no-new-privileges --user 33:33",
    "--security-opt seccomp=unconfined",
    "--security-opt mask=/proc/version",
    "--security-opt unmask=/proc/kcore",
    "--security-opt unmask=ALL",
    "--privileged",
    "--read-only",
    "--read-only --tmpfs /scratch",
    "--tmpfs /scratch",
    "--tmpfs /scratch:size=8m,mode=1777,noexec",
    "--volume data:/data",
    "--volume data:/data:ro",
    "--volume data:/data:exec",
    "--volume /srv/share:/host:ro",
    "--volume /srv/share:/host",
    "--volume /srv/share:/host:rbind,rslave",
    "--mount type=tmpfs,destination=/t,tmpfs-size=4m",
    "--mount type=bind,source=/etc/os-release,destination=/release,ro",
    "--mount type=volume,source=held,destination=/v",
    "--env A=b",
    "--unsetenv TERM",
    "--hostname box",
    "--add-host other:10.0.0.9",
    "--dns 10.0.0.1 --dns-search example.org",
    "--no-hosts",
    "--network none",
    "--network host",
    "--publish 18080:80",
    "--publish 127.0.0.1:18081:81/udp",
    "--expose 99",
    "--ipc private",
    "--ipc shareable",
    "--uts host",
    "--cgroupns private",
    "--ulimit nofile=100:200",
    "--ulimit core=0",
    "--ulimit nproc=500:600",
    "--sysctl net.ipv4.ip_forward=1",
    "--sysctl kernel.shmmax=1048576",
    "--shm-size 8m",
    "--workdir /tmp",
    "--entrypoint /counter.sh",
    "--label a=b",
    "--annotation a=b",
    "--init",
    "--stop-signal INT --stop-timeout 1",
    "--restart on-failure:3",
    "--log-driver json-file",
    "--device /dev/fuse",
    "--device /dev/zero:/dev/nothing:r",
    "--oom-score-adj 500",
    "--umask 077",
    "--tz UTC",
    "--secret key",
    "--secret key,type=env,target=KEY",
    "--cgroup-parent /somewhere",
    "--tty",
    "--interactive",
    "--rm",
    "--systemd=always",
    "--passwd=false",
    "--http-proxy=false",
)
# What a process can be, and what it sees of its filesystems; ids of mounts and devices are its host's.
SEEN = "grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp)' /proc/1/status; cat /proc/1/limits /proc/1/oom_score_adj"
MOUNTED = "while read -r _ _ _ _ where options rest; do echo $where $options ${rest##*- }; done </proc/1/mountinfo"
REFUSED = ("--security-opt unmask=ALL", "--systemd=always")
"""Of which the lab's hosts, where CRIU leaves cgroups alone, take no checkpoint."""
PLAYED = OPTIONS if LONG else OPTIONS[::10]


def confinement(host: Host) -> str:
    """What the container's first process may do, and its mounts with their flags."""
    mounted = host.execute("it", "sh", "-c", MOUNTED).splitlines()
    places = sorted(" ".join(line.split()[:3]) for line in mounted if not re.match(r"/(proc|sys)/", line))
    return "\n".join([host.execute("it", "sh", "-c", SEEN), *places])


@pytest.mark.parametrize("options", PLAYED)
def test_it_comes_back_as_it_was(hosts: tuple[Host, Host], start: Start, ref: str, options: str) -> None:
    a, b = hosts
    for host in hosts:
        host.run("podman", "secret", "create", "--replace", "key", "-", stdin="x")
    start("it", *options.split(), "localhost/busybox", *([] if "--entrypoint" in options else ["/counter.sh"]))
    a.wait("podman", "logs", "it")
    a.wait("sh", "-c", "podman logs it 2>&1 | grep -q 2")
    before = confinement(a)
    done = a.ocickpt("checkpoint", "--format", "json", "it", ref, check=False)
    if options in REFUSED:
        assert done.returncode == UnsupportedError.exit_code, done.stderr
        assert "may write to its cgroups" in done.stderr
        assert confinement(a) == before
        return
    published = json.loads(done.stdout)["reference"]
    a.run("podman", "rm", "--force", "--time", "0", "--ignore", "it")
    restored = b.ocickpt("restore", published, check=False)
    if restored.returncode == PrerequisiteError.exit_code:
        restored = b.ocickpt("restore", *b.refused("restore", published), published, check=False)
    assert restored.returncode == 0, restored.stderr
    assert confinement(b) == before
    b.wait("sh", "-c", "podman logs it 2>&1 | grep -q .")
