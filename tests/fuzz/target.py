"""What a target of fuzzing is: a parser, inputs that it takes, and what it may do with any other.

A target may return, or raise an OcickptError with a sentence that can be shown. Whatever else it raises, more than
`SECONDS` of the processor, and more memory than `most_memory` is a find. Knows nothing of who chooses the inputs.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from ocickpt.errors import OcickptError

T = TypeVar("T")

SECONDS: Final = 5.0
LONGEST_INPUT: Final = 16 << 10
_LONGEST_SENTENCE: Final = 4 << 10
_INTERESTING: Final = tuple(
    number % (1 << 64)
    for power in (0, 7, 8, 12, 15, 16, 20, 31, 32, 40, 48, 62, 63, 64)
    for number in ((1 << power) - 1, 1 << power, -(1 << power))
)


class Find(AssertionError):  # noqa: N818 - as fuzzers call it
    """A target has done what it may not."""


@dataclass(frozen=True)
class Target:
    """One parser. `run` is given any bytes; `seeds` gives some that lead deep into it."""

    run: Callable[[bytes], None]
    seeds: Callable[[], Iterable[bytes]]
    needs_lab: bool = False
    """Whether it needs pycriu."""
    share: int = 1
    """How much of the time it gets, beside others: more where rules are many and each input takes long."""


def most_memory(data: bytes) -> int:
    """Bytes that a target may need for an input, at most."""
    return (64 << 20) + 100 * len(data)


def attempt(target: Target, data: bytes) -> bool:
    """Whether `target` took the input, which it need not. Raises Find, and whatever the target must not raise."""
    before, began = _resident(), time.process_time()
    try:
        target.run(data)
        taken = True
    except OcickptError as error:
        taken = False
        sentence = f"{error.message} {error.hint}"
        if not error.message or len(sentence) > _LONGEST_SENTENCE:
            raise Find(f"the sentence of {len(sentence)} characters cannot be shown: {sentence[:200]!r}") from error
        sentence.encode()
    seconds, grown = time.process_time() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    if seconds > SECONDS:
        raise Find(f"{seconds:.1f} s for {len(data)} bytes")
    if grown > most_memory(data):
        raise Find(f"{grown >> 20} MiB for {len(data)} bytes")
    return taken


def _resident() -> int:
    """The bytes of memory in use, from which on the kernel measures the peak anew (proc(5), clear_refs)."""
    handle = os.open("/proc/self/clear_refs", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(handle, b"5")
    finally:
        os.close(handle)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def seed_inputs(name: str, target: Target) -> list[bytes]:
    """What to begin with: the target's seeds, and the finds that were mended."""
    finds = Path(__file__).parent / "finds" / name
    return [*target.seeds(), *(each.read_bytes() for each in sorted(finds.glob("*")))]


class Choices:
    """Decisions out of bytes: the same bytes, the same decisions. Where they end, every decision is the first."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def __bool__(self) -> bool:
        """Whether there are any bytes left."""
        return self._at < len(self._data)

    def take(self, size: int) -> bytes:
        """The next `size` bytes, or as many as there are."""
        found = self._data[self._at : self._at + size]
        self._at += len(found)
        return found

    def rest(self) -> bytes:
        """All that is left."""
        return self.take(len(self._data))

    def below(self, limit: int) -> int:
        """A number from 0 to `limit` - 1."""
        return int.from_bytes(self.take(1 if limit <= 256 else 4), "little") % limit if limit > 1 else 0

    def pick(self, among: Sequence[T]) -> T:
        """One of `among`, which are not empty."""
        return among[self.below(len(among))]

    def number(self, bits: int = 64) -> int:
        """A number of `bits` bits, mostly one at an edge."""
        way = self.below(4)
        found = self.pick(_INTERESTING) if way < 2 else int.from_bytes(self.take(1 if way == 2 else 8), "little")
        return found % (1 << bits)

    def some(self) -> bytes:
        """A few bytes."""
        return self.take(self.below(64))


class Scratch:
    """Files of this process for parsers that take paths; in memory where /dev/shm is, and gone with it."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._owner = 0

    @property
    def path(self) -> Path:
        """A directory, made when it is first asked for, after a fork too."""
        if self._path is None or self._owner != os.getpid():
            import tempfile

            self._kept = tempfile.TemporaryDirectory(prefix="ocickpt-fuzz-")
            self._path, self._owner = Path(self._kept.name), os.getpid()
        return self._path

    def file(self, data: bytes, name: str = "input") -> Path:
        """A file with that content, until the next one of that name."""
        path = self.path / name
        path.write_bytes(data)
        return path


SCRATCH: Final = Scratch()
