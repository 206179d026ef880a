"""When the memory of a restored container does not follow after all."""

from __future__ import annotations

from pathlib import Path

import pytest

from ocickpt import rendezvous
from ocickpt.engine.container import Running
from ocickpt.engine.runtime.base import Additions
from ocickpt.errors import CommandError
from ocickpt.lazy import attach
from ocickpt.model import Silent
from ocickpt.operations.journal import Journal, Restore
from ocickpt.restoration import outcome

KEY = "ab" * 16
RUNNING = Running("c" * 64, "web", "runc", Path("/bundle"), 7, 8)


@pytest.fixture
def record(tmp_path: Path) -> Restore:
    work = tmp_path / KEY
    work.mkdir()
    return Restore(
        key=KEY,
        container=RUNNING.id,
        name=RUNNING.name,
        reference="reg:5000/web:1",
        work=str(work),
        guard_pid=1,
    )


@pytest.fixture
def helpers(monkeypatch: pytest.MonkeyPatch) -> dict[str, bool]:
    state = {"alive": True}
    monkeypatch.setattr(attach, "goes_on", lambda _record: state["alive"])
    return state


def test_what_there_is_to_say(record: Restore, helpers: dict[str, bool]) -> None:
    work = Path(record.work)
    assert attach.failure(record) == ""
    helpers["alive"] = False
    assert attach.failure(record) == "what brings its memory was killed"
    (work / rendezvous.FAILED).write_text("the page server died")
    assert attach.failure(record) == "the page server died"
    helpers["alive"] = True
    assert attach.failure(record) == "the page server died"
    (work / rendezvous.COMPLETE).touch()
    assert attach.failure(record) == ""
    (work / rendezvous.COMPLETE).unlink()
    for path in (work / rendezvous.FAILED, work):
        path.unlink() if path.is_file() else path.rmdir()
    assert attach.failure(record) == ""  # the guard was done, and has answered for it


@pytest.mark.parametrize("when", ["before", "as it was told", "never"])
def test_a_restore_whose_helpers_fail_at_its_very_end(
    record: Restore, helpers: dict[str, bool], monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """The guard knew no container that it could have killed."""
    taken: list[str] = []
    work = Path(record.work)
    monkeypatch.setattr(outcome, "take_back", lambda journal: taken.append(journal.record.name))
    monkeypatch.setattr(outcome, "_forget", lambda _journal: taken.append("forgotten"))

    def settle(_journal: Journal[Restore], _container: Running) -> None:
        if when == "as it was told":
            (work / rendezvous.FAILED).write_text("the page server died")
            helpers["alive"] = False

    monkeypatch.setattr(attach, "settle", settle)
    helpers["alive"] = when != "before"
    journal = Journal(work / "journal", -1, record)
    if when == "never":
        outcome.finish(journal, RUNNING, Silent())
        assert taken == []
        return
    with pytest.raises(CommandError, match=r"cannot be completed: (the page server died|what brings its memory was)"):
        outcome.finish(journal, RUNNING, Silent())
    assert taken == ["web"]


def test_the_runtime_finds_the_daemon(tmp_path: Path) -> None:
    """What stands in no file of the container's is forgotten with the restore, whoever dies."""
    bundle, work = (tmp_path / name for name in ("bundle", "work"))
    bundle.mkdir()
    work.mkdir()
    assert attach.arm("runc", bundle, work) == Additions(arguments=("--lazy-pages",))
    assert attach.arm("crun", bundle, work) == Additions(criu=("lazy-pages",))
    assert (bundle / rendezvous.SOCKET).readlink() == work / rendezvous.SOCKET
    assert [each.name for each in bundle.iterdir()] == [rendezvous.SOCKET]
