"""What is found out about a restored container's mounts and network, and how crun is brought to compile a filter."""

from __future__ import annotations

import json
import os
import sys
import types
from pathlib import Path

import pytest

from ocickpt.engine import criu, namespaces
from ocickpt.engine.runtime import crun, table
from ocickpt.errors import NotFoundError

MOUNTINFO = """\
193 62 0:160 / / rw,relatime - overlay overlay rw,lowerdir=/x
197 193 0:171 / /sys ro,nosuid,nodev,noexec,relatime - sysfs sysfs rw
366 197 0:96 /crun/.empty-directory /sys/firmware rw,nosuid,nodev,relatime shared:7 - tmpfs tmpfs rw,mode=755
367 193 0:97 / /with\\040space rw,nosymfollow - tmpfs tmpfs rw
"""


def test_mounts_that_lost_a_flag(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "mountinfo").write_text(MOUNTINFO)
    wanted = {"/": 0, "/sys": 15, "/sys/firmware": 7, "/with space": 1, "/gone": 1}
    relatime, nosymfollow = 1 << 21, 256
    assert namespaces.loose(7, wanted, tmp_path) == {"/sys/firmware": 7 | relatime, "/with space": 1 | nosymfollow}
    with pytest.raises(OSError, match="mountinfo"):
        namespaces.loose(8, wanted, tmp_path)


def test_what_a_process_sees_of_the_kernel() -> None:
    """A list of mounts does not say it: one may lie below another."""
    hidden = ("/proc/version", "/sys/fs/cgroup", "/proc/of-another-kernel", "/dev/null")
    found = namespaces.seen(os.getpid(), hidden, ())
    assert found == {"/proc/version"}, "another filesystem is at /sys/fs/cgroup"
    writable = {"/proc"} if not os.statvfs("/proc/self").f_flag & os.ST_RDONLY else set()
    assert {path.rpartition("/")[0] for path in namespaces.seen(os.getpid(), (), ("/proc/self",))} == writable
    with pytest.raises(OSError, match="mountinfo"):
        namespaces.seen(1 << 22, hidden, ())


def test_settings_of_a_network_of_its_own(tmp_path: Path) -> None:
    for process, network in (("self", "net:[1]"), ("7", "net:[2]"), ("8", "net:[1]")):
        (tmp_path / process / "ns").mkdir(parents=True)
        (tmp_path / process / "ns" / "net").symlink_to(network)
    values = {"net.ipv4.ip_forward": "1", "kernel.shmmax": "1", "net...x": "1", "net.ipv4/../..": "1", "net.a.b": "0 0"}
    assert namespaces.network_settings(7, values, tmp_path) == {"net.ipv4.ip_forward": "1", "net.a.b": "0 0"}
    assert namespaces.network_settings(7, {"kernel.shmmax": "1"}, tmp_path) == {}
    assert namespaces.network_settings(8, values, tmp_path) == {}, "the host's network is not the container's to set"
    with pytest.raises(OSError, match="net"):
        namespaces.network_settings(9, values, tmp_path)


def test_flags_of_images(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("pycriu")
    module.images = types.SimpleNamespace(load=lambda file: {"entries": json.load(file)})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pycriu", module)
    entries = [{"mountpoint": "/a", "flags": 7}, {"mountpoint": "/a", "flags": 1}, {"mountpoint": "/b", "flags": 2}]
    nested = [{"mountpoint": "/b", "flags": 3}, {"mountpoint": "/c"}]
    assert criu.mount_flags(json.dumps(each).encode() for each in (entries, nested)) == {"/a": 1, "/b": 2}


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The state directory of a restored container, as crun has one."""
    monkeypatch.setattr(crun, "_STATES", (str(tmp_path / "none"), str(tmp_path / "states")))
    state = tmp_path / "states" / "ctr"
    state.mkdir(parents=True)
    (state / "status").touch()
    return state


def test_a_filter_for_what_exec_starts(state: Path) -> None:
    table.RUNTIMES["crun"].keep_filter("ctr", b"filter")
    assert (state / crun.FILTER).read_bytes() == b"filter"
    assert [each.name for each in state.iterdir() if each.name.endswith(".new")] == []
    table.RUNTIMES["crun"].keep_filter("ctr", b"another")
    assert (state / crun.FILTER).read_bytes() == b"filter", "the runtime's own is not replaced"
    with pytest.raises(NotFoundError, match="other"):
        table.RUNTIMES["crun"].keep_filter("other", b"filter")
