"""A label that CRIU would lose: the checkpoint is refused, ours and one that would end podman's container."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ocickpt.engine import host
from ocickpt.errors import PrerequisiteError
from ocickpt.save import labels, unasked

LABEL = "system_u:system_r:container_t:s0:c1,c2"


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of a container with a label, on a host where it would be lost."""
    (tmp_path / "config.json").write_text(json.dumps({"process": {"selinuxLabel": LABEL}}))
    monkeypatch.setattr(host, "lsm", lambda: "selinux")
    monkeypatch.setattr(host, "program", lambda name: f"/usr/sbin/{name}")
    monkeypatch.setattr(host, "criu_knows_selinux", lambda: False)
    monkeypatch.setattr(unasked, "_SELINUX", tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("knows", "said"),
    [(False, "/usr/sbin/criu is built without libselinux"), (None, "no program that says whether it knows SELinux")],
)
def test_it_would_be_lost(bundle: Path, monkeypatch: pytest.MonkeyPatch, knows: bool | None, said: str) -> None:
    monkeypatch.setattr(host, "criu_knows_selinux", lambda: knows)
    with pytest.raises(PrerequisiteError, match=f"'web' has an SELinux label, which .* lose: .*{said}") as error:
        labels.check_kept("web", bundle)
    assert "runs on" in error.value.hint


@pytest.mark.parametrize("module", ["apparmor", "none"])
def test_other_modules_keep_theirs(bundle: Path, monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    monkeypatch.setattr(host, "lsm", lambda: module)
    labels.check_kept("web", bundle)


def test_a_criu_that_knows_selinux_keeps_it(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "criu_knows_selinux", lambda: True)
    labels.check_kept("web", bundle)


@pytest.mark.parametrize("process", [{}, {"selinuxLabel": ""}])
def test_what_has_no_label_loses_none(bundle: Path, process: dict[str, str]) -> None:
    (bundle / "config.json").write_text(json.dumps({"process": process}))
    labels.check_kept("web", bundle)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"process": 1}', '{"process": null}'])
def test_a_specification_that_says_nothing_may_have_one(bundle: Path, text: str) -> None:
    (bundle / "config.json").write_text(text)
    with pytest.raises(PrerequisiteError):
        labels.check_kept("web", bundle)


@pytest.mark.parametrize("option", ["", "--leave-running", "--pre-dump"])
def test_only_a_dump_that_ends_the_container_is_kept_from_podman(
    bundle: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    call = ["--image-path", str(bundle / "checkpoint"), *([option] if option else []), "web"]
    assert unasked.prepare(["/nowhere/crun"], call) is bool(option)
    assert ("has an SELinux label" in capsys.readouterr().err) is not bool(option)
