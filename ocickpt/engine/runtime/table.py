"""The runtimes that can checkpoint and restore; a further one is a class beside `runc` and `crun`, and a line here."""

from __future__ import annotations

from ocickpt.engine.runtime.base import Runtime
from ocickpt.engine.runtime.crun import Crun
from ocickpt.engine.runtime.runc import Runc

RUNTIMES: dict[str, Runtime] = {each.name: each for each in (Runc(), Crun())}
NAMES = tuple(RUNTIMES)
LISTED = " and ".join(NAMES)
