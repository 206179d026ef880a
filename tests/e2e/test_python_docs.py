"""Every example of docs/python.md runs, in its order: the first where a container `web` is, the others elsewhere."""

from __future__ import annotations

import re
from pathlib import Path

from tests.e2e.conftest import Host

DOCUMENT = Path(__file__).parents[2] / "docs" / "python.md"
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", DOCUMENT.read_text("utf-8"), re.DOTALL | re.MULTILINE)


def test_the_examples_of_the_documentation(hosts: tuple[Host, Host]) -> None:
    a, b = hosts
    a.run("podman", "run", "-d", "--name", "web", "localhost/python", "python3", "/counter.py")
    assert [a.ask("web"), a.ask("web")] == ["0", "1"]
    said = [
        host.run("env", "-C", "/root", "python3", "-", stdin=example).stdout
        for host, example in zip((a, *[b] * len(EXAMPLES)), EXAMPLES, strict=False)
    ]
    assert len(said) == len(EXAMPLES) >= 8
    assert said[0].startswith("registry:5000/ck/web:1@sha256:")
    assert said[1].split()[0] == "web2"
    assert [b.ask("web2"), b.ask("web3")] == ["2", "2"]
    assert "registry:5000/ck/web:1 sha256:" in said[3]
    assert "there is no such checkpoint:" in "".join(said)
    assert b.ocickpt("inspect", "registry:5000/copy/web:2", check=False).returncode == 0
    assert b.sh("ls /root/*.tar 2>/dev/null || true") == ""
