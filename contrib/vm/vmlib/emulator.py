"""Boots a virtual machine for one job and hands on, line by line, what the job says.

Emulated in software, for a kernel of our own with security modules that the machine's lacks: nothing here takes
/dev/kvm. One processor each, since emulated ones wait for each other a lot. The machine's disk stays as it was, and
the emulator dies with the thread that started it.
"""

import json
import subprocess
import tarfile
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from lablib import machine
from lablib.layout import LabError

from vmlib.image import EMULATOR, Image

Message = dict[str, object]
_SECTOR = 512
_POLL = 0.2
_LAST_LINES = 40


@dataclass(frozen=True)
class Job:
    """What a machine is started for."""

    archive: Path
    """A tar archive of files to put in place; ``/job`` among them is run, and writes lines of JSON to descriptor 3."""
    kernel_arguments: str
    deadline: float
    """By `time.monotonic()`: then the machine is killed."""
    stop: threading.Event
    """When it is set, the machine is killed too."""


def insist() -> None:
    """Raise LabError where no machine can be started."""
    try:
        machine.run([EMULATOR, "-version"])
        accelerators = machine.run([EMULATOR, "-accel", "help"])
    except LabError as error:
        raise LabError(f"no virtual machine can run here: {error}") from error
    if "tcg" not in accelerators.split():
        raise LabError(f"no virtual machine can run here: {EMULATOR} has no tcg")


def run(image: Image, job: Job) -> Iterator[Message]:
    """The messages of a job as they come. Raises LabError when the machine ends without a last one, or too late."""
    with tempfile.TemporaryDirectory(prefix="ocickpt-vm-") as scratch:
        console, said = Path(scratch, "console"), Path(scratch, "said")
        said.touch()
        argv = _argv(image, job, console, said)
        with Path(scratch, "emulator").open("wb") as words:
            process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=words, stderr=words)
        try:
            with said.open("rb") as port:
                yield from _follow(process, port, job)
        except LabError as error:
            told = f"{Path(words.name).read_text(errors='replace')}\n{_text(console)}".strip().splitlines()
            raise LabError("\n  ".join([str(error), *told[-_LAST_LINES:]])) from error
        finally:
            process.kill()
            process.wait()


def _argv(image: Image, job: Job, console: Path, said: Path) -> list[str]:
    return [
        *("setpriv", "--pdeathsig=KILL"),
        EMULATOR,
        *("-accel", "tcg", "-machine", "q35", "-smp", "1", "-m", "2048"),
        *("-cpu", "max,-cx16"),  # with cx16 QEMU 7.2 crashes
        *("-nodefaults", "-no-reboot", "-display", "none", "-nic", "none"),
        *("-kernel", str(image.kernel), "-initrd", str(image.initrd)),
        *("-append", f"root=/dev/vda rw console=ttyS0 quiet mitigations=off {job.kernel_arguments}"),
        *("-drive", f"file={image.disk},if=virtio,format=raw,snapshot=on"),
        *("-drive", f"file={job.archive},if=virtio,format=raw,readonly=on"),
        *("-serial", f"file:{console}", "-serial", f"file:{said}"),
    ]


def _follow(process: subprocess.Popen[bytes], port: BinaryIO, job: Job) -> Iterator[Message]:
    rest = b""
    while True:
        ended = process.poll() is not None
        rest += port.read()
        *lines, rest = rest.split(b"\n")
        for line in lines:
            message: Message = json.loads(line)
            yield message
            if "end" in message:
                return
        if ended:
            raise LabError(f"the machine ended before its job did (status {process.returncode}); its last words:")
        if job.stop.is_set() or time.monotonic() > job.deadline:
            why = "was interrupted" if job.stop.is_set() else "took too long"
            raise LabError(f"the machine {why} and was killed; its last words:")
        time.sleep(_POLL)


def _text(console: Path) -> str:
    return console.read_text(errors="replace") if console.exists() else ""


def pack(archive: Path, files: dict[str, Path], texts: dict[str, str]) -> None:
    """Write a job's archive: files by their place in the machine, and executable texts; in whole sectors."""
    with tarfile.open(archive, "w", format=tarfile.GNU_FORMAT) as tar:
        for place, path in sorted(files.items()):
            tar.add(path, place.lstrip("/"), recursive=False)
        for place, text in texts.items():
            temporary = archive.with_suffix(".text")
            temporary.write_text(text, encoding="utf-8")
            temporary.chmod(0o755)
            tar.add(temporary, place.lstrip("/"))
            temporary.unlink()
    with archive.open("ab") as disk:
        disk.write(b"\0" * (-disk.tell() % _SECTOR))
