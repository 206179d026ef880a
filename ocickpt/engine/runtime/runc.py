"""runc."""

from __future__ import annotations

from pathlib import Path

from ocickpt.engine.runtime.base import Additions, Runtime


class Runc(Runtime):
    """runc, libcontainer/criu_linux.go."""

    name = "runc"
    hooks_at_restore = frozenset({"prestart", "createRuntime"})

    def restore_lazily(self, work: Path, configuration: str) -> Additions:  # noqa: ARG002 - it has an option for it
        """By its own option."""
        return Additions(("--lazy-pages",))
