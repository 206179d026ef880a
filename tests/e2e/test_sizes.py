"""A checkpoint that was pushed before is hardly sent again: neither of a process that is idle, nor of the same dump."""

from __future__ import annotations

import json

from tests.e2e.conftest import Host, Start

MIB = 96


def test_the_second_push_is_small(hosts: tuple[Host, Host], start: Start, ref: str) -> None:
    a, b = hosts
    start("memory", "localhost/python", "python3", "/memory.py", str(MIB))
    known = a.ask("memory", "/hash")

    def sent(*arguments: str) -> int:
        published = json.loads(a.ocickpt(*arguments, ref, "--format", "json").stdout)
        assert published["sent"] + published["present"] >= MIB << 19, "half of it is random"
        return int(published["sent"])

    first = sent("checkpoint", "-R", "memory")
    assert first > MIB << 19
    a.ask("memory")
    assert sent("checkpoint", "-R", "memory") <= first * 0.05
    b.ocickpt("restore", ref)
    assert b.ask("memory", "/hash") == known
    b.run("podman", "rm", "--force", "--time", "0", "memory")

    # An archive of podman's own, compressed, under a tag that has nothing of it yet.
    archive, other = "/srv/share/memory.tar", ref.replace(":1", ":archive").replace("/t/", "/archive/")
    a.run("podman", "container", "checkpoint", "--export", archive, "memory")
    pushed = [json.loads(a.ocickpt("push", archive, other, "--format", "json").stdout)["sent"] for _ in range(2)]
    a.run("rm", archive)
    assert pushed[0] > MIB << 19
    assert pushed[1] <= pushed[0] * 0.01
    b.ocickpt("restore", other)
    assert b.ask("memory", "/hash") == known
