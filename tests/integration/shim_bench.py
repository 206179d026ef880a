"""The shim between a runtime and a flow that are stood in for, and what both saw.

The runtime is a script that writes down how it was called and does what it is told.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ocickpt import proc, rendezvous, shim
from ocickpt.operations import channel

if TYPE_CHECKING:
    from ocickpt.rendezvous import Answer, Asked

ID = "defdcf08921a5ac0ba8981c0d14e1f814a61334c04c01049eb388f4a4790d546"
GONE = "the ocickpt that asked for this is no longer running"
KEY = "0f" * 16
NOBODY = (1 << 22) + 1
"""More than any process's id."""
PAGES = b"\x01" * 8192
ROOT = Path(shim.__file__).parents[1]
# What the launcher starts where the package is not installed, with other places below /run.
START = (
    f"import sys; sys.path.insert(0, {str(ROOT)!r}); from pathlib import Path; from ocickpt import rendezvous, shim;"
    " rendezvous.OPERATIONS, rendezvous.CREATED = Path({operations!r}), Path({created!r}); shim.main(sys.argv[1:])"
)
RUNTIME = """\
#!/bin/sh
_record=$(mktemp "{calls}/$(date +%s%N).XXXXXX.call")
ls /proc/$$/fd >"$_record.fds"
{{
    printf '%s\\0' "$@"
    printf '\\n%s %s\\n' "$$" "$(sed -n 's/^SigIgn:[^0-9a-f]*//p' /proc/$$/status)"
    env -0
}} >"$_record"
for word do
    if [ "$word" = state ] && [ -e "{told}/state" ]; then . "{told}/state"; exit 0; fi
done
echo "said by the runtime"
for word do
    case $word in
        pause | resume | checkpoint | restore)
            [ ! -e "{told}/$word" ] || . "{told}/$word"
            exit 0 ;;
    esac
done
"""


@dataclass(frozen=True)
class Call:
    """How the runtime was called."""

    argv: list[str]
    pid: int
    ignored: int
    """Signals that it ignores, as bits."""
    env: dict[str, str]
    fds: set[int]

    @property
    def verb(self) -> str:
        return next(
            word for word in self.argv if word in ("pause", "resume", "checkpoint", "restore", "state", "delete")
        )


@dataclass(frozen=True)
class Bench:
    """A runtime, and the places podman and a flow would give."""

    root: Path
    container: subprocess.Popen[bytes]
    served: list[proc.Result] = field(default_factory=list)

    @property
    def said(self) -> proc.Result:
        """What the shim that was served last had to say."""
        return self.served[-1]

    @property
    def runtime(self) -> Path:
        return self.root / "runc"

    @property
    def images(self) -> Path:
        return self.root / "bundle" / "checkpoint"

    @property
    def aside(self) -> Path:
        return self.root / "aside"

    @property
    def created(self) -> Path:
        return self.root / "created"

    def argv(self, *arguments: str, asked: bool = True) -> list[str]:
        """The shim with a parent that looks like the podman a flow starts; without `asked`, just the shim."""
        start = START.format(operations=str(rendezvous.OPERATIONS), created=str(self.created))
        podman = ["sh", "-c", 'shift; "$@"; exit $?', "podman", f"/graph/ocickpt/{ID}/{rendezvous.EXPORT}"]
        return [*(podman if asked else []), sys.executable, "-I", "-c", start, str(self.runtime), *arguments]

    def call(self, *arguments: str, asked: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.argv(*arguments, asked=asked),
            check=False,
            text=True,
            **({"capture_output": True, "timeout": 30, "stdin": subprocess.DEVNULL} | options),
        )

    def serve(self, handle: Callable[[Asked], Answer], *arguments: str, key: str = ID) -> proc.Result:
        """Call the shim as podman does for a flow, and be that flow."""
        with channel.opened(key) as waiting:
            command = proc.Background(self.argv(*arguments))
            command.go()
            try:
                return waiting.serve(command, handle)
            finally:
                self.served.append(command.wait())

    def tell(self, verb: str, script: str) -> None:
        """Have the runtime run a script when it is called with `verb`."""
        (self.root / "told" / verb).write_text(script)

    def calls(self) -> list[Call]:
        found = []
        for path in sorted((self.root / "calls").glob("*.call")):
            argv, _, rest = path.read_text("utf-8", "surrogateescape").partition("\0\n")
            process, _, env = rest.partition("\n")
            pid, ignored = process.split()
            pairs = (item.partition("=") for item in env.split("\0"))
            found.append(
                Call(
                    argv.split("\0"),
                    int(pid),
                    int(ignored, 16),
                    {name: value for name, _, value in pairs if name},
                    {int(number) for number in path.with_suffix(".call.fds").read_text().split()},
                )
            )
        return found

    def verbs(self) -> list[str]:
        return [call.verb for call in self.calls()]

    def checkpoint(self, *options: str) -> list[str]:
        """As podman calls runc and crun; it gives some options twice."""
        paths = ["--image-path", str(self.images), "--work-path", str(self.images.parent)]
        return ["checkpoint", *paths, *options, ID]

    def restore(self) -> list[str]:
        """As conmon calls them."""
        bundle = str(self.images.parent)
        paths = ["--image-path", str(self.images), "--work-path", bundle]
        options = ["--bundle", bundle, "--pid-file", f"{bundle}/pid", "--detach"]
        return ["--log-format=json", "--log", f"{bundle}/oci-log", "restore", *options, *paths, ID]

    def mark(self, key: str = KEY) -> None:
        self.images.mkdir(exist_ok=True)
        (self.images / rendezvous.MARKER).write_text(key)

    def plan(self, *trees: tuple[Path, Path], kill: bool = True) -> Answer:
        listed = [[str(one), str(two)] for one, two in trees]
        return {"ok": True, "aside": str(self.aside), "trees": listed, "kill": kill, "pid": NOBODY}

    def lives(self) -> bool:
        """Whether the container's first process does."""
        return self.container.poll() is None

    def has_nothing(self) -> bool:
        """Whether the dump left nothing that could be taken for one."""
        return not list(self.images.glob("*")) and not (self.aside / "export.tar").exists()


DUMP = """\
mkdir -p "{images}"
touch "{images}/inventory.img"
head -c 8192 /dev/zero | tr '\\0' '\\1' >"{images}/pages-1.img"
"""


@contextmanager
def made(root: Path) -> Iterator[Bench]:
    """A container and the runtime that knows it, in an empty directory."""
    container = subprocess.Popen(["sleep", "60"])
    bench = Bench(root, container)
    for name in ("calls", "told", "bundle", "aside", "upper"):
        (root / name).mkdir()
    bench.runtime.write_text(RUNTIME.format(calls=root / "calls", told=root / "told"))
    bench.runtime.chmod(0o755)
    bench.tell("checkpoint", DUMP.format(images=bench.images))
    bench.tell("state", f"""echo '{{"pid": {container.pid}}}'""")
    (root / "upper" / "file").write_text("changed")
    (root / "bundle" / "config.json").write_text("{}")
    yield bench
    container.kill()
    container.wait()


class Dying:
    """A flow that answers so many messages and dies."""

    def __init__(self, answers: int, answer: Mapping[str, object], key: str = ID) -> None:
        self.messages: list[dict[str, Any]] = []
        self._listener = socket.socket(socket.AF_UNIX)
        rendezvous.OPERATIONS.mkdir(parents=True)
        self._listener.bind(str(rendezvous.OPERATIONS / key))
        self._listener.listen()
        self._thread = threading.Thread(target=self._run, args=(answers, answer))
        self._thread.start()

    def _run(self, answers: int, answer: Mapping[str, object]) -> None:
        connection, _ = self._listener.accept()
        self._listener.close()
        with connection, connection.makefile("rwb") as stream:
            for _ in range(answers):
                self.messages.append(json.loads(stream.readline()))
                stream.write(json.dumps(answer).encode() + b"\n")
                stream.flush()
            if not answers:
                self.messages.append(json.loads(stream.readline()))

    def join(self) -> None:
        self._thread.join(10)
