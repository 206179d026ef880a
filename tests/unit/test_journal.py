"""Journals: who holds one, what a dead process leaves, and files that are torn."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ocickpt import processes
from ocickpt.errors import BusyError, StorageError
from ocickpt.operations import journal
from ocickpt.operations.journal import Checkpoint, Journal, Restore

ROOT = Path(journal.__file__).parents[2]
KEY, OTHER = "a1" * 32, "b2" * 16
BEGIN = """
import sys, time
sys.path.insert(0, {root!r})
from ocickpt.operations.journal import Checkpoint, Journal
made = Journal.begin(Checkpoint(
    key={key!r}, container={key!r}, name="web", reference="reg:5000/web:1", work="/w", lowers=("/1", "/2")
))
made.step("podman", podman_pid=7)
print("ready", flush=True)
{then}
"""


def record(key: str = KEY, name: str = "web", podman: tuple[int, int] = (0, 0)) -> Checkpoint:
    pid, start = podman
    return Checkpoint(
        key=key,
        container=key,
        name=name,
        reference="registry.example.com/web:1",
        podman_pid=pid,
        podman_start=start,
    )


def restored() -> Restore:
    return Restore(key=OTHER, container=OTHER, name="web", reference="registry.example.com/web:1")


def process(then: str = "time.sleep(60)") -> subprocess.Popen[str]:
    """Another process with a journal."""
    code = BEGIN.format(root=str(ROOT), key=KEY, then=then)
    made = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert made.stdout
    assert made.stdout.readline() == "ready\n"
    return made


def died(then: str = "time.sleep(60)") -> None:
    made = process(then)
    made.kill()
    made.communicate()


def files() -> list[str]:
    directory = Path(os.environ["OCICKPT_STORE"]) / "journal"
    return sorted(path.name for path in directory.iterdir()) if directory.exists() else []


@pytest.fixture(autouse=True)
def _store() -> None:
    Path(os.environ["OCICKPT_STORE"]).mkdir()


def test_a_journal_of_ours_is_nobodys_orphan() -> None:
    made = Journal.begin(record())
    made.step("podman", podman_pid=3, lowers=("/a",))
    assert list(journal.orphans()) == []
    assert journal.records() == [made.record]
    assert (made.record.step, made.record.podman_pid) == ("podman", 3)
    with pytest.raises(BusyError, match="another ocickpt is at work on container 'web'"):
        Journal.begin(record())
    Journal.begin(restored()).close()
    made.close()
    assert files() == []
    assert journal.records() == []
    Journal.begin(record()).close()


def test_a_journal_of_another_process_is_left_alone() -> None:
    running = process()
    try:
        assert list(journal.orphans()) == []
        with pytest.raises(BusyError):
            Journal.begin(record())
        assert journal.is_busy(journal.records()[0])
    finally:
        running.kill()
        running.communicate()
    (orphan,) = journal.orphans()
    assert orphan.record == Checkpoint(
        key=KEY,
        container=KEY,
        name="web",
        reference="reg:5000/web:1",
        step="podman",
        work="/w",
        lowers=("/1", "/2"),
        podman_pid=7,
    )


def test_an_orphan_is_locked_while_it_is_looked_at() -> None:
    died()
    for orphan in journal.orphans():
        assert list(journal.orphans()) == []
        with pytest.raises(BusyError):
            Journal.begin(record())
        assert orphan.record.step == "podman"
    for orphan in journal.orphans():
        orphan.close()
    assert files() == []


def test_an_orphan_that_is_kept_stays_locked() -> None:
    died()
    kept = [orphan.keep() for orphan in journal.orphans()]
    assert list(journal.orphans()) == []
    kept[0].step("dumped", reason="registry down")
    kept[0].leave()
    kept[0].leave()
    assert not journal.is_busy(kept[0].record)
    assert files() == [f"{KEY}.json", f"{KEY}.lock"]
    assert journal.records()[0].reason == "registry down"
    for orphan in journal.orphans():
        orphan.close()
    assert files() == []


def test_a_child_does_not_hold_the_lock() -> None:
    """A podman that outlives its ocickpt must not keep others from putting things right."""
    died("import subprocess; subprocess.Popen(['sleep', '5'], close_fds=False); time.sleep(60)")
    assert len(list(journal.orphans())) == 1


def test_an_orphan_that_ends_meanwhile_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    died()
    real = journal._try_lock

    def slow(path: Path) -> int | None:
        path.unlink()
        path.with_suffix(".lock").unlink()
        return real(path)

    monkeypatch.setattr(journal, "_try_lock", slow)
    assert list(journal.orphans()) == []
    assert files() == []


@pytest.mark.parametrize(
    "torn", [b"", b'{"verb": "checkp', b"[]", b"7", b"null", b"{}", b'{"verb": "checkpoint"}', b"\xff"]
)
def test_a_torn_journal_is_in_nobodys_way(torn: bytes) -> None:
    whole = Journal.begin(record(key=OTHER, name="db"))
    whole.leave()
    path = Path(os.environ["OCICKPT_STORE"]) / "journal" / f"{KEY}.json"
    path.write_bytes(torn)
    assert [orphan.record.name for orphan in journal.orphans()] == ["db"]
    assert [each.name for each in journal.records()] == ["db"]
    ((unread, trouble),) = journal.unreadable()
    assert unread == path
    assert trouble.startswith(f"the journal {path} cannot be read")
    # Not overwritten: there may still be work of it to be put right by hand.
    with pytest.raises(BusyError, match="not put right yet"):
        Journal.begin(record())
    journal.remove_unreadable(KEY)
    Journal.begin(record()).close()
    assert files() == [f"{OTHER}.json", f"{OTHER}.lock"]


def test_a_record_of_a_later_version_can_be_read() -> None:
    made = Journal.begin(record())
    path, _ = made.paths()
    path.write_text(path.read_text().replace('{"verb"', '{"new in a later version": [1], "verb"', 1))
    made.leave()
    (orphan,) = journal.orphans()
    assert orphan.record == made.record


def test_a_journal_that_is_not_put_right_is_not_overwritten() -> None:
    died()
    with pytest.raises(BusyError, match="was interrupted and is not put right yet"):
        Journal.begin(record())
    assert [each.step for each in journal.records()] == ["podman"]
    assert len(list(journal.orphans())) == 1


def test_what_a_death_in_the_first_step_leaves_goes() -> None:
    directory = Path(os.environ["OCICKPT_STORE"]) / "journal"
    directory.mkdir()
    (directory / f"{KEY}.lock").touch()
    (directory / f"{KEY}.new").write_text('{"verb"')
    assert list(journal.orphans()) == []
    assert files() == []


def test_what_was_written_before_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Journal.begin(record())
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", _full)
        with pytest.raises(StorageError):
            made.step("podman")
    made.leave()
    assert [each.step for each in journal.records()] == ["begun"]
    assert files() == [f"{KEY}.json", f"{KEY}.lock"]


def _full(_: int) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize(("failpoint", "step"), [("podman.before", "begun"), ("podman", "podman"), ("dumped", None)])
def test_failpoints(monkeypatch: pytest.MonkeyPatch, failpoint: str, step: str | None) -> None:
    monkeypatch.setenv("OCICKPT_FAILPOINT", f"checkpoint.{failpoint}")
    code = BEGIN.format(root=str(ROOT), key=KEY, then="made.close()")
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True)
    assert done.returncode == (-signal.SIGKILL if step else 0)
    monkeypatch.delenv("OCICKPT_FAILPOINT")
    assert [each.step for each in journal.records()] == ([step] if step else [])


def test_whether_podman_is_still_at_work() -> None:
    assert not journal.podman_runs(record())
    with subprocess.Popen(["sleep", "60"]) as sleeping:
        begun = processes.start_time(sleeping.pid) or 0
        working = record(podman=(sleeping.pid, begun))
        assert journal.podman_runs(working)
        # The same pid, another process.
        assert not journal.podman_runs(record(podman=(sleeping.pid, begun - 1)))
        sleeping.kill()
        for _ in range(500):
            if not journal.podman_runs(working):
                break
            time.sleep(0.01)
        assert not journal.podman_runs(working), "a zombie does nothing any more"


def test_a_place_that_is_taken() -> None:
    (Path(os.environ["OCICKPT_STORE"]) / "journal").write_text("")
    with pytest.raises(StorageError):
        Journal.begin(record())


def test_one_that_was_left_and_is_over_leaves_no_file() -> None:
    made = Journal.begin(restored())
    made.leave()
    made.close()
    assert files() == []
