"""What a container did to its files, volumes and /dev/shm is there again, and is of the same instant as its memory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.e2e.conftest import Host, Move, Start, Tree, describe

PROGRAMS = Path(__file__).parent / "programs"
FILES = (PROGRAMS / "files.py").read_text()
LOCKSTEP = (PROGRAMS / "lockstep.py").read_text()


def differences(before: Tree, after: Tree) -> Tree:
    """What differs between two trees: path → attribute → both values."""
    return {
        path: {
            name: (before.get(path, {}).get(name, "-"), after.get(path, {}).get(name, "-"))
            for name in {*before.get(path, {}), *after.get(path, {})}
            if before.get(path, {}).get(name) != after.get(path, {}).get(name)
        }
        for path in sorted({*before, *after})
        if before.get(path) != after.get(path)
    }


def test_every_file_is_as_it_was(hosts: tuple[Host, Host], start: Start, move: Move) -> None:
    a, b = hosts
    volumes = ("--volume", "data:/volume", "--volume", "/anonymous")
    start("files", *volumes, "--cap-add", "SYS_ADMIN,MKNOD", "localhost/python", "python3", "-c", FILES)
    assert a.ask("files", "/ghost") == "a ghost"
    a.execute("files", "sh", "-c", "echo anonymous > /anonymous/file")
    before = describe(a, "files", "/", "/volume", "/anonymous")
    assert {"/made/deep", "/volume/deep", "/etc/redis/own", "/linked.py", "/anonymous/file"} <= {*before}
    assert not {"/memory.py", "/etc/nginx", "/etc/redis/redis.conf"} & {*before}

    move("files", asking=True)
    after = differences(before, describe(b, "files", "/", "/volume", "/anonymous"))
    # CRIU itself makes the ghost and the socket, and uses /tmp for a moment.
    touched = [after.pop(path, {}).keys() for path in ("/made/used", "/made/used/socket", "/tmp")]
    assert all(keys <= {"mtime"} for keys in touched)
    assert after == {}

    assert b.ask("files", "/ghost") == "a ghost"
    assert b.ask("files", "/fifo") == "in the fifo"
    assert b.ask("files", "/socket") == "connected"
    assert b.ask("files", "/log") == "/log"
    assert b.ask("files", "/mapped") == "/mapped /mapped"


def test_memory_and_files_are_of_the_same_instant(hosts: tuple[Host, Host], start: Start, ref: str) -> None:
    a, b = hosts
    files = ("/root/log", "/volume/log", "/dev/shm/log", "/scratch/log")
    options = ("--volume", "data:/volume", "--tmpfs", "/scratch", "--shm-size", "512m")
    start("lockstep", *options, "localhost/python", "python3", "-c", LOCKSTEP, *files)

    def ask(host: Host) -> int:
        told = json.loads(host.ask("lockstep"))
        assert told["differences"] == dict.fromkeys(files, 0)
        assert told["number"] > 0
        return int(told["number"])

    before = ask(a)
    a.ocickpt("checkpoint", "--leave-running", "lockstep", ref)
    between = ask(a)
    assert before < between < ask(a)
    a.run("podman", "rm", "--force", "--time", "0", "lockstep")

    b.ocickpt("restore", ref)
    restored = ask(b)
    assert before < restored < ask(b)


@pytest.mark.parametrize("runtime", ["crun"], indirect=True)
def test_files_and_volumes_can_be_left_out(hosts: tuple[Host, Host], start: Start, ref: str) -> None:
    """Of the checkpoint, or of the restore: the container runs on with those of its image, and of the host."""
    a, b = hosts
    start("plain", "--volume", "data:/data", "localhost/busybox")
    a.execute("plain", "sh", "-c", "touch /changed /data/changed")

    def saved(*options: str) -> str:
        return a.ocickpt("checkpoint", "-R", *options, "plain", ref).stdout.strip()

    def restored(reference: str, *options: str, name: str = "plain") -> list[str]:
        b.ocickpt("restore", *options, reference)
        found = b.execute(name, "sh", "-c", "ls -d /changed /data/* 2>/dev/null || true").split()
        b.sh(f"podman rm --force --time 0 {name}")
        return found

    everything = saved()
    assert restored(saved("--ignore-rootfs")) == ["/data/changed"]
    b.run("podman", "volume", "rm", "data")
    assert restored(everything, "--ignore-rootfs") == ["/data/changed"]
    b.run("podman", "volume", "rm", "data")
    assert restored(saved("--ignore-volumes")) == ["/changed"]

    # The volume, empty, is there now; it is used as it is when that is asked for.
    refused = b.ocickpt("restore", everything, check=False)
    assert refused.returncode == 4 and "--ignore-volumes" in refused.stderr
    b.run("podman", "run", "--rm", "--volume", "data:/data", "localhost/busybox", "touch", "/data/own")
    assert b.refused("restore", "--ignore-volumes", everything) == ["--allow", "volume=data"]
    shared = ("--ignore-volumes", "--allow", "volume=data")
    assert restored(everything, *shared) == ["/changed", "/data/own"]

    # A copy under another name would share it.
    refused = b.ocickpt("restore", "--name", "copy", everything, check=False)
    assert refused.returncode == 2 and "--ignore-volumes" in refused.stderr
    assert b.out("podman", "ps", "--all", "--quiet") == ""
    assert restored(everything, "--name", "copy", *shared, name="copy") == ["/changed", "/data/own"]
