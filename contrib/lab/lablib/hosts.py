"""Brings the hosts of a lab up, and takes them down again without a trace.

Coming up is a matter of what is missing: a host that runs is left alone, one that died is started again on its
disk as after a power cut, one that was never finished starts over. Two labs never come up or go down at once.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

from lablib import boot, cgroups, doctor, enter, images, locks, machine, network, sysctls
from lablib.layout import HERE, HOSTS, REPOSITORY, Host, Lab, LabError
from lablib.processes import Records

SWITCH = "switch"
_FILES = HERE / "hostfiles"


@dataclass(frozen=True)
class Status:
    """What `lab status` tells of a host."""

    host: Host
    pid: int | None


def status() -> list[Status]:
    """All hosts, up or not."""
    return [Status(host, enter.running(host.name)) for host in HOSTS]


def up(lab: Lab, names: list[str]) -> None:
    """Bring up the hosts called `names`. Raises LabError, also for a machine that cannot carry a lab."""
    if any(enter.running(name) is None for name in names):
        doctor.insist(lab)
    cached = images.ensure(lab)
    records = Records(lab.state)
    with locks.held(_lock(lab)):
        lab.state.mkdir(exist_ok=True)
        lab.share.mkdir(parents=True, exist_ok=True)
        lab.share.chmod(0o1777)
        sysctls.borrow(_note(lab))
        if enter.running(SWITCH) is None:
            # Cables to a switch that is gone lead nowhere: its hosts went down with it.
            for name in records.names():
                records.kill(name)
            _start_switch(records)
        for name in names:
            if enter.running(name) is None:
                _start(lab, records, cached, name)
            machine.run([str(HERE / "lab"), "exec", name, "/etc/rc.local"])


def down(lab: Lab) -> None:
    """Kill all that this lab started and remove all it made, but for the cache. Raises LabError."""
    records = Records(lab.state)
    with locks.held(_lock(lab)):
        for name in records.names():
            records.kill(name)
        if lab.state.is_dir():
            cgroups.remove(str(lab.state), [lab.cgroup(name) for name in _all_names()])
            shutil.rmtree(lab.state)
        if lab.disks.exists():
            shutil.rmtree(lab.disks)
        if lab.disks.parent.exists() and not any(lab.disks.parent.iterdir()):
            lab.disks.parent.rmdir()
        if not _others(lab):
            sysctls.give_back(_note(lab))
            _lock(lab).unlink()
            lab.machine_state.rmdir()


def purge(lab: Lab) -> None:
    """`down`, and the cache goes too. Raises LabError where another lab still uses it."""
    down(lab)
    if (lab.cache / "disks").exists():
        raise LabError(f"other labs still have their disks in {lab.cache}/disks: take them down first")
    if lab.cache.exists():
        with locks.held(lab.cache / "lock"):
            shutil.rmtree(lab.cache)


def _lock(lab: Lab) -> Path:
    return lab.machine_state / "lock"


def _note(lab: Lab) -> Path:
    return lab.machine_state / "sysctls.json"


def _others(lab: Lab) -> bool:
    return any(path.is_dir() for path in lab.machine_state.iterdir())


def _all_names() -> list[str]:
    return [*(host.name for host in HOSTS), images.BUILDER]


def _start_switch(records: Records) -> None:
    keeper = network.start_switch()
    try:
        records.write(SWITCH, keeper.pid, ready=False)
        network.make_bridge(keeper.pid)
        records.write(SWITCH, keeper.pid, ready=True)
    except BaseException:
        keeper.kill()
        keeper.wait()
        raise


def _start(lab: Lab, records: Records, cached: images.Cached, name: str) -> None:
    host = next(known for known in HOSTS if known.name == name)
    found = enter.record(name)
    records.kill(name)
    _prepare_disk(lab, cached, host, fresh=found is not None and not found[2])
    switch = enter.running(SWITCH)
    if switch is None:
        raise LabError("the lab's switch died")

    def prepare(pid: int) -> None:
        records.write(name, pid, ready=False)
        network.plug_in(switch, pid, host)

    try:
        pid = boot.start(_plan(lab, cached, host), prepare)
    except BaseException:
        records.kill(name)
        raise
    records.write(name, pid, ready=True)


def _prepare_disk(lab: Lab, cached: images.Cached, host: Host, *, fresh: bool) -> None:
    """Make the host's disk, unless it has one that goes with this root, and put the lab's files on it."""
    disk = lab.disk(host.name)
    base = disk.base.read_text(encoding="utf-8") if disk.base.exists() else ""
    if disk.path.exists() and (fresh or base != cached.root.name):
        shutil.rmtree(disk.path)
    for directory in (disk.upper, disk.work, *(disk.data(data) for data in ("containers", "ocickpt", "registry"))):
        directory.mkdir(parents=True, exist_ok=True)
    disk.base.write_text(cached.root.name, encoding="utf-8")
    for source in (_FILES / "all", _FILES / host.name):
        if source.is_dir():
            _copy(source, disk.upper)
    (disk.upper / "etc/hosts").write_text(network.hosts_file(host.name), encoding="ascii")
    (disk.upper / "etc/hostname").write_text(f"{host.name}\n", encoding="ascii")


def _copy(source: Path, target: Path) -> None:
    """Copy a tree of files so that it is root's and readable, whoever owns the checkout."""
    for path in sorted(source.rglob("*")):
        there = target / path.relative_to(source)
        if path.is_dir():
            there.mkdir(exist_ok=True)
            there.chmod(0o755)
        else:
            shutil.copyfile(path, there)
            there.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)


def _plan(lab: Lab, cached: images.Cached, host: Host) -> boot.Plan:
    disk = lab.disk(host.name)
    binds = [
        boot.Bind(disk.data("containers"), "/var/lib/containers"),
        boot.Bind(disk.data("ocickpt"), "/var/lib/ocickpt"),
        boot.Bind(disk.data("registry"), "/var/lib/docker-registry"),
        boot.Bind(cached.images, "/var/lib/lab-images", read_only=True),
        boot.Bind(REPOSITORY, "/usr/src/ocickpt", read_only=True),
        boot.Bind(lab.share, "/srv/share"),
    ]
    return boot.Plan(host.name, cached.root, disk, lab.cgroup(host.name), lab.state, tuple(binds), host.systemd)
