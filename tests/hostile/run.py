"""Play crafted checkpoints on this host, with what restores: run.py RUNTIME DIRECTORY WAY,… [all | I/N] [kernel].

DIRECTORY holds good archives, one for each container of `cases.OPTIONS`. Prints a line of JSON for each case and way
that did not end as it should, and at last one with the number of those that were played.

With `kernel` nobody looks at CRIU's images before CRIU reads them, and those cases are played that the kernel shows to
be what they are (`kernel.SAYS`).
"""

from __future__ import annotations

import compileall
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
import uuid
from pathlib import Path

import ocickpt
from ocickpt import push
from ocickpt.errors import OcickptError
from tests.hostile import kernel
from tests.hostile.case import OPTIONS, Case, command
from tests.hostile.cases import CASES
from tests.hostile.changing import MARK, Members

WAYS = ("restore", "lazy", "start", "without")
"""`restore`, `restore --lazy`, restore instead of start, and `restore` without the launcher."""
REPOSITORY = "registry:5000/hostile"
OCICKPT = (sys.executable, "-P", "-m", "ocickpt")
_ENDING = 5.0
_BLIND = {
    "verification": """

def verify(*_: object) -> dict[str, bytes]:
    return {}


def filters(_: object) -> dict[int, int]:
    return {}
""",
    "places": """

def check_placed(*_: object) -> None:
    pass


check_packed = check_placed
""",
}
"""What replaces those parts of the gate that read CRIU's images."""


def run(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, check=False, capture_output=True, text=True, timeout=120)


def members_of(archive: Path) -> Members:
    with tarfile.open(archive) as tar:
        return {info.name: file.read() for info in tar if info.isfile() and (file := tar.extractfile(info))}


def archive(members: Members, path: Path) -> str:
    """An archive of these members at `path`, which is given back."""
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), 0o600
            tar.addfile(info, io.BytesIO(data))
    return str(path)


def crafted(case: Case, good: Members, path: Path) -> str:
    """The reference, with its digest, of what the case makes of a good checkpoint; or what `push` said instead."""
    members = dict(good)
    case.change(members)
    try:
        return push(archive(members, path), f"{REPOSITORY}/{uuid.uuid4().hex[:12]}:1").reference
    except OcickptError as error:
        return f"!{error.message}"
    finally:
        path.unlink()


def blind(directory: Path) -> Path:
    """An ocickpt that looks at no image, and asks the kernel alone: where Python finds it."""
    package = directory / "blind" / "ocickpt"
    shutil.rmtree(package.parent, ignore_errors=True)
    shutil.copytree(Path(ocickpt.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    for module, code in _BLIND.items():
        with (package / "gate" / f"{module}.py").open("a") as file:
            file.write(code)
    compileall.compile_dir(package, quiet=1)
    return package.parent


def traces() -> str:
    """What must not be there: containers, volumes, work directories, helpers, mounts, namespaces, cgroups, the mark."""
    script = f"""
        podman ps --all --quiet; podman volume ls --quiet
        ls -d /var/lib/containers/storage/ocickpt/* /run/ocickpt/op/* /run/ocickpt/created/* /run/ocickpt/lazy/*
        ls -d /var/lib/ocickpt/journal/* /run/netns/* /sys/fs/cgroup/libpod_parent/libpod-* {MARK}
        findmnt --noheadings --list --output TARGET | grep -E '/(merged|userdata/shm)$'
        pgrep -a 'criu|counter.sh' | grep -v pgrep
        true
    """
    return run("sh", "-c", f"( {script} ) 2>/dev/null").stdout.strip()


def play(case: Case, reference: str, way: str, runtime: str) -> str:
    """What is wrong with how it ended; nothing if it ended well."""
    said = case.on_start if way == "start" and case.on_start is not None else case.said
    if reference.startswith("!"):
        return "" if case.said and case.said in reference else f"pushed: {reference}"
    if way == "start":
        options = ("--annotation", f"io.ocickpt.restore={reference}", *OPTIONS[case.container])
        done = run(
            "podman", "--runtime", runtime, "run", "--detach", "--name", "evil", *options, *command(case.container)
        )
        pid = run("podman", "inspect", "--format", "{{.State.Pid}}", "evil").stdout.strip()
        ran = pid not in ("", "0")
    else:
        done = run(*OCICKPT, "restore", *(["--lazy"] if way == "lazy" else []), reference)
        ran = bool(run("podman", "ps", "--all", "--quiet").stdout.strip())
    problem = ""
    if said and (done.returncode == 0 or said not in done.stderr or "this is a bug" in done.stderr or ran):
        problem = f"status {done.returncode}, {'it ran, ' if ran else ''}said: {done.stderr.strip()[-600:]}"
    if not said and done.returncode:
        problem = f"harmless, and not restored: {done.stderr.strip()[-600:]}"
    elif not said and case.inside:
        container = run("podman", "ps", "--quiet").stdout.strip()
        seen = run("podman", "exec", container, "timeout", "20", "sh", "-c", case.look)
        if seen.stdout.strip() != case.inside:
            problem = f"inside it is {seen.stdout.strip()!r} instead of {case.inside!r}: {seen.stderr.strip()[-600:]}"
    if ran or way == "start":
        run("podman", "rm", "--all", "--force", "--time", "0")
        run("podman", "volume", "rm", "--all", "--force")
    end = time.monotonic() + _ENDING
    while (left := traces()) and time.monotonic() < end:  # helpers of a container that ran are at their end
        time.sleep(0.2)
    return " ".join(filter(None, (problem, f"left behind: {left}" if left else "")))


def chosen(names: list[str], ways: list[str], part: str) -> dict[str, list[str]]:
    """The cases that each way plays: all of them, or (I/N) every Nth from the Ith on, in turn."""
    if part == "all":
        return dict.fromkeys(ways, names)
    turn, of = map(int, part.split("/"))
    return {way: names[turn::of][number :: len(ways)] for number, way in enumerate(ways)}


def main(runtime: str, directory: Path, ways: list[str], part: str = "all", witness: str = "") -> None:
    goods = {name: members_of(directory / f"{name}.tar") for name in OPTIONS}
    # With a secret of that name, so that a checkpoint could have it.
    subprocess.run(
        ["podman", "secret", "create", "--replace", "held", "-"], input=b"x", check=True, capture_output=True
    )
    if witness:
        os.environ["PYTHONPATH"] = str(blind(directory))
    cases = kernel.of(runtime) if witness else CASES
    played, plan = 0, chosen([*cases], ways, part)
    try:
        made = {
            name: crafted(cases[name], goods[cases[name].container], directory / "evil.tar")
            for name in dict.fromkeys(name for names in plan.values() for name in names)
        }
        for way, names in plan.items():
            run(*OCICKPT, "setup", *(["--undo"] if way == "without" else []))
            for name in names:
                problem = play(cases[name], made[name], way, runtime)
                played += 1
                if problem:
                    print(json.dumps({"case": name, "way": way, "runtime": runtime, "problem": problem}), flush=True)
    finally:
        os.environ.pop("PYTHONPATH", None)
        run(*OCICKPT, "setup")
        run("podman", "secret", "rm", "held")
    print(json.dumps({"played": played}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3].split(","), *sys.argv[4:6])
