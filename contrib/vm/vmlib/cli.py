"""The verbs of `vm`. `test` runs tests/vm in a machine for each security module, and prints a table of its rows."""

import argparse
import signal
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from lablib import machine
from lablib.layout import HERE as LAB
from lablib.layout import REPOSITORY, Lab, LabError

from vmlib import emulator, image

MODULES = {
    "apparmor": "security=apparmor apparmor=1",
    "selinux": "security=selinux selinux=1 enforcing=0",
}
"""What each is booted with. SELinux is permissive: its labels are the kernel's all the same."""
LIMIT = 14.0
"""Minutes for all machines, which run at once."""
_INSIDE = "/usr/src/ocickpt"
_CODE = ("ocickpt", "tests/vm", "tests/hostile")
_FROM_LAB = (
    *("all/usr/local/bin/ocickpt", "all/etc/containers/policy.json"),
    "registry/etc/docker/registry/config.yml",
)
# Not the lab's, which has what Python compiles kept elsewhere: nothing would be there, and to compile pytest and numpy
# takes a minute.
_PATH = "/usr/lib/python3/dist-packages/ocickpt.pth"
_JOB = """\
#!/bin/sh
cd {inside}
export OCICKPT_LANE=vm OCICKPT_VM={module} LANG=C.UTF-8
# What pycriu's generated code is warned of is not ours to mend.
exec python3 -m pytest -q --no-header --tb=short -p no:cacheprovider -W ignore tests/vm/test_{module}.py {arguments}
"""


@dataclass
class Row:
    """One row of the table."""

    module: str
    runtime: str
    way: str
    result: str = "did not run"
    seconds: float = 0.0
    why: str = ""

    def __str__(self) -> str:
        return f"{self.module:<10}{self.runtime:<8}{self.way:<58}{self.result:<12}{self.seconds:>6.0f} s"


@dataclass
class Outcome:
    """What a machine has said."""

    rows: dict[str, Row] = field(default_factory=dict)
    facts: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def take(self, module: str, message: emulator.Message) -> None:
        """Enter what the tests say: their names at first, then each one's end (`tests/vm/conftest.py`)."""
        for each in message.get("rows", ()):  # type: ignore[attr-defined]
            self.rows[each["name"]] = Row(module, each["runtime"], each["way"])
        if "name" in message:
            row = self.rows[str(message["name"])]
            row.seconds += float(str(message["seconds"]))
            row.why = str(message["why"])
            if message["last"]:
                row.result = str(message["result"])
                print(row, file=sys.stderr, flush=True)
            else:
                row.result = "not done"
        if "fact" in message:
            self.facts.append(f"{module}: {message['fact']}")
        if "end" in message and message["end"] not in (0, 1):
            self.problems.append(f"{module}: pytest ended with status {message['end']}")


def _job(module: str, arguments: list[str], archive: Path) -> None:
    paths = [path for code in _CODE for path in sorted((REPOSITORY / code).rglob("*")) if path.is_file()]
    paths += [REPOSITORY / "pyproject.toml", *sorted((REPOSITORY / "tests").glob("*.py"))]
    files = {f"{_INSIDE}/{path.relative_to(REPOSITORY)}": path for path in paths if "__pycache__" not in path.parts}
    files |= {name.partition("/")[2]: LAB / "hostfiles" / name for name in _FROM_LAB}
    words = " ".join("'" + each.replace("'", "'\\''") + "'" for each in arguments)
    job = _JOB.format(inside=_INSIDE, module=module, arguments=words)
    emulator.pack(archive, files, {"/job": job, _PATH: f"{_INSIDE}\n"})


def _test(lab: Lab, args: argparse.Namespace, arguments: list[str]) -> int:
    built = _build(lab)
    outcome, deadline, stop = Outcome(), time.monotonic() + 60 * args.minutes, threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: stop.set())
    with ThreadPoolExecutor() as pool:
        for module in [args.only] if args.only else MODULES:
            pool.submit(_one, built, module, arguments, (deadline, stop), outcome)
    return _tell(outcome)


def _one(
    built: image.Image, module: str, arguments: list[str], until: tuple[float, threading.Event], outcome: Outcome
) -> None:
    """Run the tests of one module in a machine of their own."""
    started = time.monotonic()
    try:
        with tempfile.TemporaryDirectory(prefix="ocickpt-vm-") as scratch:
            archive = Path(scratch, "job.tar")
            _job(module, arguments, archive)
            for message in emulator.run(built, emulator.Job(archive, MODULES[module], *until)):
                outcome.take(module, message)
    except LabError as error:
        outcome.problems.append(f"{module}: {error}")
    except Exception as error:  # noqa: BLE001 - in a thread nobody else would hear of it
        outcome.problems.append(f"{module}: {error!r}")
    outcome.facts.append(f"{module}: {time.monotonic() - started:.0f} s in all")


def _tell(outcome: Outcome) -> int:
    """Print the table; 1 unless there are rows and all passed."""
    rows = sorted(outcome.rows.values(), key=lambda row: row.module)
    for row in rows:
        if row.why:
            print(f"\n--- {row.module} {row.runtime} {row.way}\n{row.why}")
    print()
    for row in rows:
        print(row)
    for line in (*sorted(outcome.facts), *outcome.problems):
        print(line)
    good = sum(row.result == "passed" for row in rows)
    print(f"vm: {good} passed, {len(rows) - good} failed")
    return 0 if rows and good == len(rows) and not outcome.problems else 1


def _build(lab: Lab) -> image.Image:
    machine.install_missing(image.TOOLS)
    emulator.insist()
    if not image.wanted(lab).directory.is_dir():
        print("vm: building the image; this takes some minutes, once", file=sys.stderr)
    return image.ensure(lab)


def main(argv: list[str]) -> int:
    """Run `vm ARGV` and return its exit code."""
    parser = argparse.ArgumentParser(prog="vm", description="ocickpt under security modules, in virtual machines.")
    verbs = parser.add_subparsers(required=True, metavar="VERB", dest="verb")
    verbs.add_parser("build", help="build the image into the cache, and say where")
    verb = verbs.add_parser("test", help="run tests/vm; what else is given goes to pytest")
    verb.add_argument("--only", choices=[*MODULES], help="in this machine only")
    verb.add_argument("--minutes", type=float, default=LIMIT, help="kill the machines after so long (%(default)s)")
    args, rest = parser.parse_known_args(argv)
    try:
        lab = Lab.from_environment()
        if args.verb == "test":
            return _test(lab, args, rest)
        print(_build(lab).directory)
    except LabError as error:
        print(f"vm: {error}", file=sys.stderr)
        return 1
    return 0
