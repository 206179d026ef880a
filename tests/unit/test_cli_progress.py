"""What a person sees of a flow at work."""

from __future__ import annotations

import io
import threading
import time

import pytest

from ocickpt.cli.progress import Lines, Terminal, progress
from ocickpt.model import Silent, Stage


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_a_line_for_each_stage(capsys: pytest.CaptureFixture[str], clock: list[float]) -> None:
    with progress(quiet=False) as shown:
        shown.stage(Stage.DUMPING)
        clock[0] += 0.61
        shown.stage(Stage.SENDING)
        shown.expect(557_300_000)
        shown.advance(500_000_000)
        shown.advance(45_200_000)
        shown.present(12_100_000)
        clock[0] += 1.2
        shown.note("memory travels in clear")
        shown.stage(Stage.PULLING, "image\x1b")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == (
        "dumping: 0.6 s\n"
        "note: memory travels in clear\n"
        "sending: 545.2 MB sent, 12.1 MB were there already, 1.2 s\n"
        "pulling image\\x1b: 0.0 s\n"
    )


def test_other_bytes_are_done_not_sent(capsys: pytest.CaptureFixture[str], clock: list[float]) -> None:
    with progress(quiet=False) as shown:
        shown.stage(Stage.FETCHING)
        shown.advance(10)
    assert capsys.readouterr().err == "fetching: 10 B done, 0.0 s\n"


SAID = {
    Stage.DUMPING: "dumping: 10 B done",
    Stage.PACKING: "packing and sending: 10 B sent",
    Stage.SENDING: "sending: 10 B sent",
    Stage.FETCHING: "fetching: 10 B done",
    Stage.PULLING: "pulling uploads/push-{0}-send: 10 B done",
    Stage.RESTORING: "restoring: 10 B done",
    Stage.WAITING_FOR_PODMAN: "waiting for the podman of an interrupted uploads/push-{0}-send: 10 B done",
    Stage.WAITING_FOR_MEMORY: "waiting for the memory of its lazy restore: 10 B done",
}


@pytest.mark.parametrize("stage", Stage)
def test_what_a_stage_is_of_has_no_say_in_it(
    capsys: pytest.CaptureFixture[str], clock: list[float], stage: Stage
) -> None:
    with progress(quiet=False) as shown:
        shown.stage(stage, "uploads/push-{0}-send")
        shown.advance(10)
    assert capsys.readouterr().err == f"{SAID[stage]}, 0.0 s\n"


def test_an_error_ends_it_without_a_summary(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ZeroDivisionError), progress(quiet=False) as shown:
        shown.stage(Stage.DUMPING)
        raise ZeroDivisionError
    assert capsys.readouterr().err == ""


def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with progress(quiet=True) as shown:
        assert isinstance(shown, Silent)
        shown.stage(Stage.DUMPING)
        shown.note("something")
    assert capsys.readouterr().err == ""


def test_numbers_before_any_stage_are_harmless(capsys: pytest.CaptureFixture[str]) -> None:
    with progress(quiet=False) as shown:
        shown.expect(5)
        shown.advance(5)
    assert capsys.readouterr().err == ""


def test_threads_may_tell(capsys: pytest.CaptureFixture[str]) -> None:
    shown = Lines()
    shown.stage(Stage.SENDING)

    def tell() -> None:
        for _ in range(1000):
            shown.expect(1)
            shown.advance(1)

    threads = [threading.Thread(target=tell) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    shown.end(whole=True)
    assert capsys.readouterr().err.startswith("sending: 8.0 kB sent")


def test_on_a_terminal_there_is_a_bar(monkeypatch: pytest.MonkeyPatch, clock: list[float]) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(screen, "isatty", lambda: True)
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "160")
    with progress(quiet=False) as shown:
        assert isinstance(shown, Terminal)
        shown.stage(Stage.PULLING, "[bold]")
        shown.expect(3_000_000)
        shown.present(1_000_000)
        shown.advance(500_000)
        assert shown._bars is not None
        task = shown._bars.tasks[0]
        assert (task.completed, task.total) == (500_000, 2_000_000)
        assert task.fields["already"] == "1.0 MB there already"
        shown.note("a note")
        shown._bars.refresh()
    told = screen.getvalue()
    assert "pulling [bold]" in told
    assert "0.5/2.0 MB" in told
    assert "1.0 MB there already" in told
    assert "note: a note" in told
    assert told.rstrip().endswith("pulling [bold]: 500.0 kB done, 1.0 MB were there already, 0.0 s")


def test_a_bar_goes_when_an_error_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(screen, "isatty", lambda: True)
    monkeypatch.setattr("sys.stderr", screen)
    shown = Terminal()
    shown.stage(Stage.DUMPING)
    shown.end(whole=False)
    assert shown._bars is None
    shown.end(whole=True)
    assert "dumping: " not in screen.getvalue()
