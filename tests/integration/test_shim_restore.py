"""The shim's half of a restore, as a real process: what was restored stands still until the flow has looked at it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ocickpt.engine.criu import configuration, standstill
from ocickpt.errors import IntegrityError, OcickptError, StorageError
from tests.integration.shim_bench import GONE, ID, KEY, Bench, Dying

if TYPE_CHECKING:
    from ocickpt.rendezvous import Answer, Asked

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a flow's socket is root's")

# What CRIU does: the script of its configuration is called at each step, and a process is there in the end.
RESTORED = """\
sleep 60 & echo $! >"{root}/restored"
script=$(sed -n 's/^action-script //p' "$CRIU_CONFIG_FILE")
for step in {steps}; do
    CRTOOLS_SCRIPT_ACTION=$step CRTOOLS_INIT_PID=$! "$script" 2>"{root}/said" || exit 1
done
"""
STEPS = "pre-restore setup-namespaces post-restore pre-resume post-resume"


class Restoring:
    """A flow of a restore, whose container is a process that the runtime leaves."""

    def __init__(self, bench: Bench, error: OcickptError | None = None, steps: str = STEPS) -> None:
        self.bench, self.error = bench, error
        self.seen: list[Asked] = []
        self.hold = bench.root / "hold"
        bench.mark()
        bench.tell("restore", RESTORED.format(root=bench.root, steps=steps))
        options = standstill.make(self.hold)
        self.environment = configuration.write(bench.root / "criu.conf", "", options)

    def answer(self, message: Asked) -> Answer:
        self.seen.append(message)
        if message["event"] == "restore":
            assert self.bench.calls() == []
            return {
                "ok": True,
                "arguments": ["--lazy-pages"],
                "environment": self.environment,
                "hold": str(self.hold),
                "cgroup": "",
            }
        assert self.lives()
        if self.error:
            raise self.error
        return {"ok": True}

    @property
    def pid(self) -> int:
        return int((self.bench.root / "restored").read_text())

    def lives(self) -> bool:
        try:
            return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except FileNotFoundError:
            return False

    def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)


def test_a_restore_waits_for_the_flow(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the runtime is called, and before what it restored runs."""
    monkeypatch.setenv("CRIU_CONFIG_FILE", "/etc/ours.conf")
    flow = Restoring(bench)
    result = bench.serve(flow.answer, *bench.restore(), key=KEY)
    assert (result.returncode, result.stdout, result.stderr) == (0, "said by the runtime\n", "")
    asked, standing, restored = flow.seen
    assert asked.pop("conmon") > 0
    bundle = str(bench.images.parent)
    assert asked == {
        "event": "restore",
        "bundle": bundle,
        "image_path": str(bench.images),
        "criu_configuration": "/etc/ours.conf",
    }
    assert standing == {"event": "standing", "container": ID, "pid": flow.pid}
    assert restored == {"event": "restored"}
    assert flow.lives()
    flow.end()
    (call,) = bench.calls()
    arguments = bench.restore()
    position = arguments.index("restore") + 1
    assert call.argv == [*arguments[:position], "--lazy-pages", *arguments[position:]]
    assert call.env["CRIU_CONFIG_FILE"] == str(bench.root / "criu.conf")


def test_what_the_flow_refuses_does_not_run(bench: Bench) -> None:
    flow = Restoring(bench, IntegrityError("it is user 0"))
    with pytest.raises(IntegrityError, match="it is user 0"):
        bench.serve(flow.answer, *bench.restore(), key=KEY)
    assert (bench.said.returncode, bench.said.stderr) == (1, "ocickpt: it is user 0\n")
    assert not flow.lives()
    *_, last = bench.calls()
    assert last.argv[-3:] == ["delete", "--force", ID], "the runtime forgets it"


@pytest.mark.parametrize("answers", [0, 1])
def test_what_nobody_can_look_at_does_not_run(bench: Bench, answers: int) -> None:
    flow = Restoring(bench)
    plan = flow.answer({"event": "restore"})
    dying = Dying(answers, plan, key=KEY)
    done = bench.call(*bench.restore())
    dying.join()
    assert (done.returncode, done.stderr) == (1, f"ocickpt: {GONE}\n")
    assert not (bench.root / "restored").exists() or not flow.lives()


def test_a_criu_that_tells_nobody(bench: Bench) -> None:
    flow = Restoring(bench, steps="pre-restore post-restore")
    bench.serve(flow.answer, *bench.restore(), key=KEY)
    assert bench.said.returncode == 1
    assert "did not let anybody look" in bench.said.stderr
    assert not flow.lives()


@pytest.mark.parametrize("when", ["before", "while it stands", "taken away"])
def test_what_stands_still_ends_with_who_holds_it(tmp_path: Path, when: str) -> None:
    """The shim was killed: what waits for it ends the processes, and then itself."""
    hold = tmp_path / "hold"
    (option,) = standstill.make(hold)
    code = f"""if True:
        import sys, time; sys.path.insert(0, {str(Path(standstill.__file__).parents[3])!r})
        from pathlib import Path; from ocickpt.engine.criu.standstill import Standstill
        still = Standstill(Path({str(hold)!r})); print(flush=True); time.sleep(60)"""
    with (
        subprocess.Popen(["sh", "-c", "sleep 60 & sleep 61; :"], start_new_session=True) as tree,
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as holder,
    ):
        assert holder.stdout
        holder.stdout.readline()
        living = ["pgrep", "--session", str(tree.pid), "--runstates", "RSD"]
        while len(subprocess.run(living, check=False, capture_output=True).stdout.split()) < 3:
            time.sleep(0.01)
        if when == "before":
            holder.kill()
            holder.wait()
        if when == "taken away":
            (hold / "goes").unlink()
        # No program is found: the script may be where the container's own processes are all that fit.
        environment = {"CRTOOLS_SCRIPT_ACTION": "pre-resume", "CRTOOLS_INIT_PID": str(tree.pid), "PATH": "/nowhere"}
        with subprocess.Popen([option.partition(" ")[2]], env=environment, stderr=subprocess.DEVNULL) as script:
            if when == "while it stands":
                with pytest.raises(subprocess.TimeoutExpired):
                    script.wait(0.3)
                assert tree.poll() is None
                holder.kill()
            script.wait(10)
        assert tree.wait(10) == -signal.SIGKILL
        end = time.monotonic() + 10
        while (left := subprocess.run(living, check=False, capture_output=True).stdout) and time.monotonic() < end:
            time.sleep(0.01)
        holder.kill()
        assert left == b"", "what is below it ends with it"


@pytest.mark.parametrize("how", ["refuses", "cannot write", "dies", "is gone", "talks nonsense", "has no name"])
def test_a_restore_that_must_not_be(bench: Bench, how: str) -> None:
    bench.mark("../../etc/passwd" if how == "has no name" else KEY)
    if how in ("refuses", "cannot write"):
        error = StorageError("no room") if how == "refuses" else OSError(28, "No space left on device")

        def flow(message: Asked) -> Answer:
            raise error

        with pytest.raises(StorageError, match=r"no room|No space left"):
            bench.serve(flow, *bench.restore(), key=KEY)
        stderr = bench.said.stderr
        assert "no room" in stderr or "No space left" in stderr
    else:
        dying = {"dies": (0, {}), "talks nonsense": (1, {"ok": 0})}.get(how)
        other = Dying(*dying, key=KEY) if dying else None
        done = bench.call(*bench.restore())
        if other:
            other.join()
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == (f"ocickpt: {GONE}\n")
    assert bench.calls() == []
