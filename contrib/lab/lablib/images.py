"""Fills the cache: the Debian root of the hosts, and the container images that all hosts share.

No image registry can be reached from here, so the images are made of Debian packages, by podman itself, in a
host that exists only for that. They lie in stores which the hosts mount read-only (`additionalimagestores`,
containers-storage.conf(5)): nothing is copied when a lab comes up, and an image has one ID everywhere.
"""

import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lablib import boot, cgroups, locks, machine
from lablib.layout import HERE, Disk, Lab
from lablib.processes import Records
from lablib.roots import HOST_TREE, IMAGE_TREE, LANGUAGE_TREE, Build

BUILDER = "builder"
STORES = ("all", "only-a")
_SOURCE = HERE / "images"


@dataclass(frozen=True)
class Cached:
    """What a lab is started from."""

    root: Path
    images: Path


def _hash_of_sources() -> str:
    digest = hashlib.sha256(IMAGE_TREE.key.encode())
    for path in sorted(path for path in _SOURCE.rglob("*") if path.is_file()):
        if "__pycache__" not in path.parts:
            digest.update(f"{path.relative_to(_SOURCE)}\0{path.stat().st_mode & 0o111}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def wanted(lab: Lab) -> Cached:
    """Where in the cache a lab of this checkout's recipe lies, whether it was built yet or not."""
    return Cached(lab.cache / f"root-{HOST_TREE.key}", lab.cache / f"images-{_hash_of_sources()}")


def built(lab: Lab) -> bool:
    """Whether the cache has it all."""
    target = wanted(lab)
    return target.root.is_dir() and target.images.is_dir()


@contextmanager
def unfinished(lab: Lab) -> Iterator[Path]:
    """A directory in the cache to build in, gone afterwards; what a killed build left behind goes too."""
    Records(lab.state).kill(BUILDER)
    for stale in lab.cache.glob("unfinished-*"):
        shutil.rmtree(stale)
    scratch = Path(tempfile.mkdtemp(prefix="unfinished-", dir=lab.cache))
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch)


def ensure(lab: Lab) -> Cached:
    """Build what the cache lacks. Raises LabError."""
    target = wanted(lab)
    if built(lab):
        return target
    with locks.held(lab.cache / "lock"):
        if built(lab):
            return target
        machine.install_missing()
        with unfinished(lab) as scratch:
            _build(lab, target, scratch)
    return target


def languages(lab: Lab) -> Path:
    """The file system with a JVM and node, as a tar file; made when the cache does not have it. Raises LabError."""
    target = lab.cache / f"languages-{LANGUAGE_TREE.key}.tar"
    with locks.held(lab.cache / "lock"):
        if not target.exists():
            machine.install_missing()
            with unfinished(lab) as scratch:
                build = Build(LANGUAGE_TREE, scratch / "languages.tar", scratch)
                try:
                    build.finish().rename(target)
                finally:
                    build.cancel()
    return target


def _build(lab: Lab, target: Cached, scratch: Path) -> None:
    builds: list[Build] = []
    try:
        if not target.root.is_dir():
            builds.append(Build(HOST_TREE, scratch / "root", scratch))
        if not target.images.is_dir():
            builds.append(Build(IMAGE_TREE, scratch / "base.tar", scratch))
        for build in builds:
            build.finish()
    finally:
        for build in builds:
            build.cancel()
    if not target.root.is_dir():
        (scratch / "root").rename(target.root)
    if not target.images.is_dir():
        _make_images(lab, target.root, scratch)
        (scratch / "stores").rename(target.images)


def _make_images(lab: Lab, root: Path, scratch: Path) -> None:
    """Run images/make in a host of its own."""
    disk = Disk(scratch / "disk")
    for directory in (disk.upper, disk.work, disk.data("tmp"), *(scratch / "stores" / store for store in STORES)):
        directory.mkdir(parents=True)
    (disk.upper / "mnt").mkdir()
    (scratch / "base.tar").rename(disk.upper / "mnt" / "base.tar")
    shutil.copytree(HERE / "hostfiles/all", disk.upper, dirs_exist_ok=True)
    (disk.upper / "etc/containers/storage.conf").unlink()
    records = Records(lab.state)
    lab.state.mkdir(parents=True, exist_ok=True)
    plan = boot.Plan(
        hostname=BUILDER,
        root=root,
        disk=disk,
        cgroup=lab.cgroup(BUILDER),
        scratch=lab.state,
        binds=(
            boot.Bind(scratch / "stores", "/mnt/stores"),
            boot.Bind(disk.data("tmp"), "/var/tmp"),
            boot.Bind(_SOURCE, "/mnt/images", read_only=True),
        ),
    )
    try:
        pid = boot.start(plan, lambda pid: records.write(BUILDER, pid, ready=False))
        records.write(BUILDER, pid, ready=True)
        machine.run([str(HERE / "lab"), "exec", BUILDER, "/mnt/images/make"])
    finally:
        records.kill(BUILDER)
        cgroups.remove(str(lab.state), [lab.cgroup(BUILDER)])
        _leave(lab.state)


def _leave(state: Path) -> None:
    """Remove the directory of a lab that has nothing on record."""
    for directory in (state, state.parent):
        try:
            directory.rmdir()
        except OSError:
            return
