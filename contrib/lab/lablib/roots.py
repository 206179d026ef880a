"""Builds Debian trees with mmdebstrap, once, into the cache.

Two of them: the root of the hosts, and a smaller one that the container images are made of. Each lies in the
cache under a hash of everything it was built from; it is built under a temporary name and renamed when it is
whole, so what has its final name is never half of something.

The hosts are Debian 13 with the checkpoint tools of Debian 14: Debian 13's criu cannot dump a TCP socket on
Linux ≥ 6.16, and criu 4.3 changes the image format, so criu is held to one version (PINS).
"""

import hashlib
import os
import re
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

from lablib import machine, mirror
from lablib.layout import HERE, LabError

CRIU = "4.2.1"

CONTAINERS = (
    *("podman", "conmon", "netavark", "aardvark-dns", "catatonit", "runc", "crun"),
    *("nftables", "iptables"),  # netavark speaks the first; CRIU locks a network with the second
    *("criu", "libcriu2", "libcompel1", "python3-pycriu", "checkpointctl"),
)
"""Containers, and what CRIU needs around them."""
PYTHON = (
    *("python3", "python3-urllib3", "python3-zstandard", "python3-jsonschema", "python3-click", "python3-rich"),
    *("python3-cryptography", "python3-jwcrypto", "python3-numpy", "python3-libarchive-c", "python3-podman"),
    "python3-msgspec",
)
"""ocickpt's own dependencies."""
HOST_PACKAGES = (
    *CONTAINERS,
    "tcc",  # for limits.c
    *("bats", "jq", "socat", "ncat", "openssl"),  # for podman's own tests (contrib/podman-tests)
    # registries
    *("skopeo", "docker-registry", "oras", "cosign", "apache2-utils"),
    # ocickpt, and what tests it
    *PYTHON,
    *("python3-pytest", "python3-pytest-xdist", "python3-hypothesis"),
    *("python3-pip", "python3-setuptools", "python3-wheel", "python3-venv", "pipx"),
    # what one wants at hand on a host
    *("iproute2", "procps", "psmisc", "curl", "wget", "openssh-client", "openssh-server", "busybox-static"),
    *("attr", "acl", "zstd", "util-linux", "less", "ca-certificates"),
)
IMAGE_PACKAGES = ("python3", "redis-server", "postgresql", "nginx-light", "sudo")
LANGUAGE_PACKAGES = ("openjdk-21-jdk-headless", "nodejs")

PINS = f"""\
Package: *
Pin: release n=forky
Pin-Priority: 50

Package: criu libcriu2 libcompel1 python3-pycriu
Pin: version {CRIU}*
Pin-Priority: 900

Package: runc crun libblake3-0 libnl-3-200 libnl-route-3-200 libnl-genl-3-200 libjson-c5
Pin: release n=forky
Pin-Priority: 900
"""

# A key pair that every host accepts and every host has: `ssh b` just works, and works nowhere else.
SSH = """\
set -eu
mkdir -p -m 700 "$1/root/.ssh"
ssh="$1/root/.ssh"
chroot "$1" ssh-keygen -q -t ed25519 -N '' -C lab -f /root/.ssh/id_ed25519
cp "$ssh/id_ed25519.pub" "$ssh/authorized_keys"
sed 's/^/* /' "$1/etc/ssh/ssh_host_ed25519_key.pub" > "$ssh/known_hosts"
"""

# Put limits.c, which says why, between criu and the kernel.
LIMITS = """\
set -eu
cat > "$1/usr/src/limits.c" <<'EOF'
{source}
EOF
chroot "$1" tcc -shared -nostdlib -o /usr/lib/criu-limits.so /usr/src/limits.c
chroot "$1" dpkg-divert --quiet --local --rename --divert /usr/sbin/criu.distrib --add /usr/sbin/criu
cat > "$1/usr/sbin/criu" <<'EOF'
#!/bin/sh
LD_PRELOAD=/usr/lib/criu-limits.so exec /usr/sbin/criu.distrib "$@"
EOF
chmod 755 "$1/usr/sbin/criu"
""".replace("{source}", (HERE / "limits.c").read_text(encoding="utf-8"))

# No service starts while the packages are unpacked, and PostgreSQL's cluster is ours to make.
NO_SERVICES = """\
set -eu
mkdir -p "$1/usr/sbin" "$1/etc/postgresql-common"
printf '#!/bin/sh\\nexit 101\\n' > "$1/usr/sbin/policy-rc.d"
chmod 755 "$1/usr/sbin/policy-rc.d"
echo 'create_main_cluster = false' > "$1/etc/postgresql-common/createcluster.conf"
"""
# The JVM's package puts a link where manual pages would be.
MANUALS = """\
mkdir -p "$1/usr/share/man/man1"
"""
POSTGRES = """\
set -eu
chroot "$1" sh -c 'exec setpriv --reuid=postgres --regid=postgres --init-groups \\
    "$(echo /usr/lib/postgresql/*/bin/initdb)" -D /var/lib/postgresql/data -A trust --no-sync' >/dev/null
echo 'host all all all trust' >> "$1/var/lib/postgresql/data/pg_hba.conf"
ln -s "$(chroot "$1" sh -c 'echo /usr/lib/postgresql/*/bin/postgres')" "$1/usr/local/bin/postgres"
"""


@dataclass(frozen=True)
class Tree:
    """A Debian tree that the lab needs."""

    name: str
    variant: str
    packages: tuple[str, ...]
    setup: str
    customize: str
    newer: bool
    """Whether forky's packages are to be had too, as PINS says."""

    @property
    def key(self) -> str:
        """A hash of all it is built from."""
        words = "\0".join((repr(self), PINS, *OPTIONS))
        return hashlib.sha256(words.encode()).hexdigest()[:16]


OPTIONS = (
    # A mirror's forky can be past its date; its signatures are checked all the same.
    '--aptopt=Acquire::Check-Valid-Until "false"',
    '--aptopt=Acquire::Languages "none"',
    '--aptopt=APT::Install-Recommends "false"',
    "--dpkgopt=path-exclude=/usr/share/man/*",
    "--dpkgopt=path-exclude=/usr/share/locale/*",
    "--dpkgopt=path-exclude=/usr/share/doc/*",
    "--dpkgopt=force-unsafe-io",
)

HOST_TREE = Tree("root", "apt", HOST_PACKAGES, NO_SERVICES, SSH + LIMITS, newer=True)
IMAGE_TREE = Tree("base", "essential", IMAGE_PACKAGES, NO_SERVICES, POSTGRES, newer=False)
LANGUAGE_TREE = Tree("languages", "essential", LANGUAGE_PACKAGES, NO_SERVICES + MANUALS, "", newer=False)
"""A JVM and node, which few tests need: built when one asks for it (`lab build languages`)."""


def _argv(tree: Tree, target: Path, scratch: Path) -> list[str]:
    sources = ["trixie", "forky"] if tree.newer else ["trixie"]
    uri = mirror.address()
    hooks = []
    for stage, script in (("setup", tree.setup), ("customize", tree.customize)):
        path = scratch / f"{tree.name}.{stage}"
        path.write_text(f"#!/bin/sh\n{script}", encoding="utf-8")
        path.chmod(0o755)
        hooks.append(f"--{stage}-hook={path}")
    packages = list(tree.packages)
    if tree.newer:
        pins = scratch / "pins"
        pins.write_text(PINS, encoding="ascii")
        hooks.insert(0, f'--setup-hook=install -D -m 644 "{pins}" "$1/etc/apt/preferences.d/lab.pref"')
        packages[packages.index("criu")] = f"criu={CRIU}*"
    # Whatever mmdebstrap mounts and starts dies with it, and it dies with us.
    cage = ["setpriv", "--pdeathsig=KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    return [*cage, "mmdebstrap", "--mode=root", f"--variant={tree.variant}", f"--include={','.join(packages)}",
            *OPTIONS, *hooks, "trixie", str(target),
            *(f"deb [signed-by={machine.KEYRING}] {uri} {suite} main" for suite in sources)]  # fmt: skip


class Build:
    """mmdebstrap at work in the background, so that two trees can be built at once."""

    def __init__(self, tree: Tree, target: Path, scratch: Path) -> None:
        self.tree = tree
        self.target = target
        self._log = scratch / f"{tree.name}.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                _argv(tree, target, scratch),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "TMPDIR": str(scratch)},
            )

    def finish(self) -> Path:
        """Wait for the tree. Raises LabError with what stopped it."""
        if self._process.wait() != 0:
            raise LabError(self._explain(self._log.read_text(errors="replace")))
        return self.target

    def cancel(self) -> None:
        """Stop, if still at it."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()

    def _explain(self, log: str) -> str:
        if re.search(rf"Version '{re.escape(CRIU)}\S*' for 'criu' was not found", log):
            return (
                f"Debian forky no longer has criu {CRIU}, the newest whose images this lab's tools can read; "
                "the lab cannot be built from this mirror"
            )
        lines = log.splitlines()
        first = next((at for at, line in enumerate(lines) if line.startswith("E:")), len(lines))
        return f"mmdebstrap could not build {self.tree.name}: {' / '.join(lines[max(0, first - 3) : first + 1])}"
