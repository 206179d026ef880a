"""runc."""

from __future__ import annotations

from ocickpt.engine.runtime.base import Additions, Runtime


class Runc(Runtime):
    """runc, libcontainer/criu_linux.go."""

    name = "runc"
    hooks_at_restore = frozenset({"prestart", "createRuntime"})
    lazily = Additions(arguments=("--lazy-pages",))
