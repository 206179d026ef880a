"""Fuzzes every target, guided by coverage: ``python -m tests.fuzz --seconds 120``, where atheris and pycriu are.

The time is shared by all targets, or by those that are named. An input that is a find is left as a file in the
directory of --finds, and belongs into ``finds/TARGET`` once it is mended. Exit code 1 when there is one, and when a
target did not run.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import os
import re
import signal
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import atheris

with contextlib.redirect_stderr(io.StringIO()), atheris.instrument_imports(include=["ocickpt"]):
    from tests.fuzz.targets import TARGETS

from ocickpt.engine import criu
from tests.fuzz.target import LONGEST_INPUT, attempt, seed_inputs

_MEMORY: Final = 2 << 10
"""MiB of a target's process, over all inputs; of one input it is `target.most_memory`."""
_HANGS: Final = 60
"""Seconds of one input after which the process is ended. Of the processor it may have fewer (`target.SECONDS`), but a
busy machine is no find."""
_PATIENCE: Final = 120.0
_EXECUTED: Final = re.compile(r"stat::number_of_executed_units: *(\d+)")
_COVERED: Final = re.compile(r"cov: (\d+) ft: (\d+)")


@dataclass(frozen=True)
class Result:
    """How it went with one target."""

    name: str
    inputs: int
    covered: int
    """Places in the code that were reached."""
    seconds: float
    problem: str


class _Running:
    """A target at work in a process of its own."""

    def __init__(self, name: str, seconds: float, seed: int, place: Path, finds: Path) -> None:
        self.name, self._log, self._began = name, place / f"{name}.log", time.monotonic()
        self._deadline = self._began + seconds + _PATIENCE
        self.pid = os.fork()
        if self.pid == 0:
            try:
                with self._log.open("wb") as log:
                    os.dup2(log.fileno(), 1)
                    os.dup2(log.fileno(), 2)
                _fuzz(name, seconds, seed, place, finds)
            finally:
                os._exit(77)  # libFuzzer ends the process itself

    def ended(self) -> Result | None:
        """The result, once there is one."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if not pid:
            if time.monotonic() < self._deadline:
                return None
            self.kill()
        text = self._log.read_text("utf-8", "replace")
        executed, covered = _EXECUTED.findall(text), _COVERED.findall(text)
        problem = "" if pid and not status and executed else f"status {status}\n{_end(text)}"
        inputs = int(executed[-1]) if executed else 0
        return Result(self.name, inputs, int(covered[-1][0]) if covered else 0, time.monotonic() - self._began, problem)

    def kill(self) -> None:
        """End it at once."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


def _end(log: str) -> str:
    """The last lines of libFuzzer, without how it came there."""
    return "\n".join(line for line in log.splitlines() if not line.startswith(("#", "INFO", "WARNING")))[-4000:]


def _fuzz(name: str, seconds: float, seed: int, place: Path, finds: Path) -> None:
    target, corpus = TARGETS[name], place / f"{name}.corpus"
    corpus.mkdir()
    for number, data in enumerate(seed_inputs(name, target)):
        (corpus / f"seed-{number:03}").write_bytes(data)

    def one(data: bytes) -> None:
        try:
            attempt(target, data)
        except BaseException:
            (finds / name / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)
            raise

    (finds / name).mkdir(parents=True, exist_ok=True)
    for variable in os.environ.keys() - {"PATH", "TMPDIR", "LANG"}:
        del os.environ[variable]
    options = (
        f"-max_total_time={max(1, round(seconds))}", f"-seed={seed}", f"-timeout={_HANGS}", f"-rss_limit_mb={_MEMORY}",
        f"-max_len={LONGEST_INPUT}", "-len_control=20", f"-artifact_prefix={finds / name}/", "-print_final_stats=1",
    )  # fmt: skip
    atheris.Setup(["fuzz", *options, str(corpus)], one)
    atheris.Fuzz()


def run(names: list[str], seconds: float, jobs: int, seed: int, finds: Path) -> list[Result]:
    """All of `names`, `jobs` at a time, for `seconds` altogether."""
    results: list[Result] = []
    if any(TARGETS[name].needs_lab for name in names):
        criu.pycriu_images()  # once for all
    waiting = sorted(names, key=lambda name: -TARGETS[name].share)
    running: list[_Running] = []
    each = seconds * jobs / sum(TARGETS[name].share for name in names)
    with tempfile.TemporaryDirectory(prefix="ocickpt-fuzz-") as place:
        try:
            while waiting or running:
                while waiting and len(running) < jobs:
                    name = waiting.pop(0)
                    running.append(_Running(name, each * TARGETS[name].share, seed, Path(place), finds))
                for one in tuple(running):
                    if result := one.ended():
                        running.remove(one)
                        results.append(result)
                        print(_line(result), flush=True)
                time.sleep(0.05)
        finally:
            for one in running:
                one.kill()
    return results


def _line(result: Result) -> str:
    how = f"FAILED: {result.problem}" if result.problem else "nothing found"
    return f"{result.name}: {result.inputs} inputs in {result.seconds:.0f} s, {result.covered} places, {how}"


def _write_junit(path: Path, results: list[Result]) -> None:
    failed = sum(bool(result.problem) for result in results)
    suite = ET.Element("testsuite", name="fuzz", tests=str(len(results)), failures=str(failed), errors="0", skipped="0")
    for result in results:
        case = ET.SubElement(suite, "testcase", classname="tests.fuzz", name=result.name, time=f"{result.seconds:.1f}")
        if result.problem:
            ET.SubElement(case, "failure").text = "".join(
                c if c.isprintable() or c == "\n" else "?" for c in result.problem
            )
    ET.ElementTree(suite).write(path, "utf-8", xml_declaration=True)


def main() -> int:
    """As the module says."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--seconds", type=float, default=110.0, help="of all targets together")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(3), "little"))
    parser.add_argument("--finds", type=Path, default=Path(tempfile.gettempdir()) / "ocickpt-finds")
    parser.add_argument("--junit", type=Path)
    parser.add_argument("targets", nargs="*", choices=[*TARGETS, []], metavar="TARGET")
    given = parser.parse_args()
    names = given.targets or list(TARGETS)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    print(f"{len(names)} targets, {given.seconds:.0f} s, --seed {given.seed}", flush=True)
    results = run(names, given.seconds, given.jobs, given.seed, given.finds)
    if given.junit:
        _write_junit(given.junit, results)
    found = [result.name for result in results if result.problem]
    print(
        f"{sum(result.inputs for result in results)} inputs; "
        + (f"found in {', '.join(found)}" if found else "no finds")
    )
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
