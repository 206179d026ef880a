"""Builds the disk that the virtual machines boot from, once, into the lab's cache.

The tree is Debian's as the lab's hosts have it (`lablib/roots.py`), with a kernel, systemd and the two security
modules' packages. It knows nothing of ocickpt's code, which comes in with each job, so it is built again only when
its recipe changes.
"""

import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lablib import images, locks, machine, roots
from lablib.layout import Lab
from lablib.roots import Build, Tree

HERE = Path(__file__).resolve().parent.parent
FILES = HERE / "guestfiles"
EMULATOR = "qemu-system-x86_64"
TOOLS = {**machine.TOOLS, EMULATOR: "qemu-system-x86", "mke2fs": "e2fsprogs"}
_SIZE = "6G"
"""Of the file system; the file is sparse."""

PACKAGES = (
    *roots.CONTAINERS,
    *roots.PYTHON,
    "python3-pytest",
    *("skopeo", "docker-registry"),
    *("linux-image-cloud-amd64", "systemd-sysv", "dbus", "udev", "kmod"),
    *("apparmor", "selinux-policy-default", "policycoreutils"),
    *("iproute2", "procps", "busybox-static", "ca-certificates"),
)

# What the kernel would need a relabelling boot for is done in the tree: setfiles(8) sets the labels, which mke2fs
# takes along. Permissive, since Debian's policy confines no such host well enough to boot it enforcing.
LABELS = """\
set -eu
cat > "$1/etc/selinux/config" <<'EOF'
SELINUX=permissive
SELINUXTYPE=default
EOF
chroot "$1" setfiles -F -e /proc -e /sys -e /dev /etc/selinux/default/contexts/files/file_contexts /
"""

# Every start is a first one, and must wait for nothing: no presets (machine-id(5)), no updates
# (systemd-update-done(8)), no timers, none of Debian's hundred AppArmor profiles, which take a minute to compile.
# A unit of ours runs the job.
START = """\
set -eu
rm "$1/usr/sbin/policy-rc.d"
echo vm > "$1/etc/hostname"
echo '127.0.0.1 localhost vm' > "$1/etc/hosts"
tr -d - < /proc/sys/kernel/random/uuid > "$1/etc/machine-id"
cp -R {files}/. "$1/"
chroot "$1" chown -R root:root /usr/local /etc/systemd/system /etc/containers
for unit in {masked}; do ln -sf /dev/null "$1/etc/systemd/system/$unit"; done
mkdir -p "$1/etc/systemd/system/multi-user.target.wants"
ln -sf ../job.service "$1/etc/systemd/system/multi-user.target.wants/job.service"
touch "$1/etc/.updated" "$1/var/.updated"
""".format(
    files=FILES,
    masked="apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer fstrim.timer e2scrub_all.timer "
    "selinux-autorelabel-mark.service apparmor.service docker-registry.service",
)

# Little else than the disk is found before the root is mounted.
INITRD = """\
set -eu
mkdir -p "$1/etc/initramfs-tools/conf.d"
echo MODULES=list > "$1/etc/initramfs-tools/conf.d/vm"
printf 'virtio_pci\\nvirtio_blk\\next4\\n' > "$1/etc/initramfs-tools/modules"
"""

TREE = Tree("vm", "apt", PACKAGES, roots.NO_SERVICES + INITRD, START + LABELS, newer=True)


@dataclass(frozen=True)
class Image:
    """What a machine boots."""

    directory: Path

    @property
    def disk(self) -> Path:
        """An ext4 file system, whole."""
        return self.directory / "disk"

    @property
    def kernel(self) -> Path:
        """The kernel of that disk."""
        return self.directory / "vmlinuz"

    @property
    def initrd(self) -> Path:
        """What the kernel starts from."""
        return self.directory / "initrd"


def _key() -> str:
    digest = hashlib.sha256(TREE.key.encode())
    for path in _files():
        digest.update(f"{path.relative_to(FILES)}\0{path.stat().st_mode & 0o111}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def _files() -> Iterator[Path]:
    yield from sorted(path for path in FILES.rglob("*") if path.is_file())


def wanted(lab: Lab) -> Image:
    """Where in the cache this recipe's image lies, whether it was built yet or not."""
    return Image(lab.cache / f"vm-{_key()}")


def ensure(lab: Lab) -> Image:
    """Build the image if the cache lacks it. Raises LabError."""
    image = wanted(lab)
    if not image.directory.is_dir():
        with locks.held(lab.cache / "lock"):
            if not image.directory.is_dir():
                with images.unfinished(lab) as scratch:
                    _build(image, scratch)
    return image


def _build(image: Image, scratch: Path) -> None:
    build = Build(TREE, scratch / "root", scratch)
    try:
        tree = build.finish()
    finally:
        build.cancel()
    made = Image(scratch / "image")
    made.directory.mkdir()
    for link, target in (("vmlinuz", made.kernel), ("initrd.img", made.initrd)):
        shutil.copyfile((tree / link).resolve(), target)
    machine.run(["mke2fs", "-q", "-t", "ext4", "-m", "0", "-d", str(tree), str(made.disk), _SIZE])
    made.directory.rename(image.directory)
