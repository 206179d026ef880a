"""A runtime's `restore` whose processes stand still, from before their first instruction until they are let go.

CRIU holds them when they are as they will be (`engine.criu.standstill`). There they are frozen in the container's own
cgroup, which is made beforehand where the runtime comes to it late (crun). They are looked at while CRIU lets go of
them and the runtime does what it does when it has restored, neither of which changes what they are; then they are
settled. Where no cgroup can be frozen they are looked at while CRIU holds them, and settled when they run.

Standard library only: the shim loads this.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ocickpt.engine import freezer
from ocickpt.engine.criu.standstill import STANDS, Standstill
from ocickpt.engine.runtime import calling


class RefusedError(Exception):
    """What was restored must not run; the message says why."""


class Held:
    """One restore. `directory` is what `standstill.make` has made, `place` the cgroup to freeze, if there is one.

    `look` gets the pid of the first process, and raises what keeps it from running; `settle` does what takes a runtime
    that knows the container.
    """

    def __init__(
        self, directory: Path, place: Path | None, look: Callable[[int], None], settle: Callable[[], None]
    ) -> None:
        self._still = Standstill(directory)
        self._place, self._look, self._settle = place, look, settle
        self._first = 0
        self._failure: Exception | None = None

    @property
    def frozen(self) -> bool:
        """Whether they stand still when the call has ended."""
        return self._place is not None

    def call(self, argv: Sequence[str], environment: Mapping[str, str] | None = None) -> int:
        """Have the runtime restore, by its command `argv`; its exit status.

        What `look` and `settle` raise is raised, RefusedError where nobody could look, OSError where they could not be
        frozen; then, and when the runtime fails, none of them is left.
        """
        status = 1
        try:
            status = calling.call(argv, environment, {self._still.fileno(): self._listen}, self._good)
        finally:
            if status:
                self.leave()
            if self._first and self._place:
                with contextlib.suppress(OSError):  # the runtime has removed it, or somebody is still in it
                    freezer.apart().rmdir()
        if self._failure:
            raise self._failure
        return status

    def go(self) -> None:
        """Let them run, and leave them."""
        if self._place:
            freezer.thaw(self._place)
        self.leave()

    def leave(self) -> None:
        """Until then they end with this process."""
        self._still.leave()

    def _listen(self) -> None:
        for what, pid in self._still.told():
            if what == STANDS:
                self._first = pid
                self._stand()
            elif self._place:
                # Else CRIU would have to leave the cgroup when it is frozen, and everybody wait for that.
                with contextlib.suppress(OSError):
                    freezer.set_apart(pid)

    def _stand(self) -> None:
        tree = freezer.tree(self._first)
        strays = [pid for pid in set(freezer.tree(os.getpid())) - set(tree) if freezer.tracer(pid)]
        try:
            self._check_all(strays)
            if self._place:
                freezer.freeze(tree, self._place)
                self._still.go()
            self._look(self._first)
        except Exception as error:  # noqa: BLE001 - raised once the runtime has ended, which cleans up after itself
            # Before CRIU ends, whose end would let go of them.
            freezer.kill([*tree, *strays])
            self._failure = error
            self._still.end()
        else:
            if not self._place:
                self._still.go()

    @staticmethod
    def _check_all(strays: list[int]) -> None:
        """RefusedError where CRIU holds others than those, whose parent has ended: nobody would look at them."""
        if strays:
            raise RefusedError(f"CRIU has restored process {min(strays)} outside of its container's tree")

    def _good(self) -> bool:
        if self._failure:
            return False
        if not self._first:
            raise RefusedError("CRIU did not let anybody look at what it restored before that runs")
        self._settle()
        return True
