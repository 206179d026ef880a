"""Play crafted checkpoints on this host, with everything that restores: run.py RUNTIME DIRECTORY WAY…

DIRECTORY holds good archives, one for each container of `cases.OPTIONS`. Prints a line of JSON for each case and way
that did not end as it should, and at last one with the number of those that were played.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
import uuid
from pathlib import Path

from tests.hostile.cases import CASES, MARK, OPTIONS, Case, Members

WAYS = ("restore", "lazy", "start", "without")
"""`restore`, `restore --lazy`, restore instead of start, and `restore` without the launcher."""
REPOSITORY = "registry:5000/hostile"
IMAGE = ("localhost/busybox", "/counter.sh")


def run(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, check=False, capture_output=True, text=True, timeout=120)


def members_of(archive: Path) -> Members:
    with tarfile.open(archive) as tar:
        return {info.name: file.read() for info in tar if info.isfile() and (file := tar.extractfile(info))}


def crafted(case: Case, good: Members, path: Path) -> str:
    """The reference, with its digest, of what the case makes of a good checkpoint; or what `push` said instead."""
    members = dict(good)
    case.change(members)
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), 0o600
            tar.addfile(info, io.BytesIO(data))
    pushed = run("ocickpt", "push", "--quiet", str(path), f"{REPOSITORY}/{uuid.uuid4().hex[:12]}:1")
    path.unlink()
    return pushed.stdout.strip() or f"!{pushed.stderr.strip()}"


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
        done = run("podman", "--runtime", runtime, "run", "--detach", "--name", "evil", *options, *IMAGE)
        pid = run("podman", "inspect", "--format", "{{.State.Pid}}", "evil").stdout.strip()
        ran = pid not in ("", "0")
    else:
        done = run("ocickpt", "restore", *(["--lazy"] if way == "lazy" else []), reference)
        ran = bool(run("podman", "ps", "--all", "--quiet").stdout.strip())
    problem = ""
    if said and (done.returncode == 0 or said not in done.stderr or "this is a bug" in done.stderr or ran):
        problem = f"status {done.returncode}, {'it ran, ' if ran else ''}said: {done.stderr.strip()[-600:]}"
    if not said and done.returncode:
        problem = f"harmless, and not restored: {done.stderr.strip()[-600:]}"
    if way == "start" or not said:
        run("podman", "rm", "--all", "--force", "--time", "0")
        run("podman", "volume", "rm", "--all", "--force")
    left = traces()
    return " ".join(filter(None, (problem, f"left behind: {left}" if left else "")))


def main(runtime: str, directory: Path, ways: list[str], only: str = "") -> None:
    goods = {name: members_of(directory / f"{name}.tar") for name in OPTIONS}
    # With a secret of that name, so that a checkpoint could have it.
    subprocess.run(
        ["podman", "secret", "create", "--replace", "held", "-"], input=b"x", check=True, capture_output=True
    )
    played = 0
    try:
        made = {
            name: crafted(case, goods[case.container], directory / "evil.tar")
            for name, case in CASES.items()
            if only in name
        }
        for way in ways:
            run("ocickpt", "setup", *(["--undo"] if way == "without" else []))
            for name, reference in made.items():
                problem = play(CASES[name], reference, way, runtime)
                played += 1
                if problem:
                    print(json.dumps({"case": name, "way": way, "runtime": runtime, "problem": problem}), flush=True)
    finally:
        run("ocickpt", "setup")
        run("podman", "secret", "rm", "held")
    print(json.dumps({"played": played, "cases": len(made)}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3].split(","), *sys.argv[4:5])
