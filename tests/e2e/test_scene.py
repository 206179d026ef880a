"""The scene the project grew from: a web service goes on counting on another host."""

from __future__ import annotations

from tests.e2e.conftest import Host, Start


def test_a_counter_moves_and_is_copied(hosts: tuple[Host, Host], start: Start, ref: str) -> None:
    a, b = hosts
    start("web", "localhost/python", "python3", "/counter.py")
    address = a.address("web")
    assert [a.ask("web"), a.ask("web")] == ["0", "1"]
    pinned = a.ocickpt("checkpoint", "web", ref).stdout.strip()
    assert pinned.startswith(ref + "@sha256:")
    a.run("podman", "rm", "web")

    restored = b.ocickpt("restore", ref).stdout.strip()
    assert restored == b.inspect("web")["Id"]
    assert b.address("web") == address
    assert [b.ask("web"), b.ask("web")] == ["2", "3"]

    for name in ("web2", "web3"):
        b.ocickpt("restore", "--name", name, pinned)
    assert {b.ask("web2"), b.ask("web3")} == {"2"}
    assert len({b.address("web"), b.address("web2"), b.address("web3")}) == 3
