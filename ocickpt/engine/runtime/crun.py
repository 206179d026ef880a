"""crun.

`crun create` compiles the container's seccomp profile into a file in its state directory. `crun exec` loads that file,
and where there is none, no filter at all; `crun restore` (up to 1.28) makes none, and `podman exec` would start
unconfined processes in a confined container.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from ocickpt import atomic, oci
from ocickpt.engine.runtime.base import Additions, Runtime
from ocickpt.errors import NotFoundError, StorageError
from ocickpt.versions import numbers

FILTER = "seccomp.bpf"
_STATES = "/run/crun", "/run/user/0/crun"
"""Where crun keeps its state for root: below XDG_RUNTIME_DIR, as which podman passes /run."""
_LAZY, _CRIU_LAZY = (1, 28), (4, 2)


_OWN_NETWORK = re.compile(r"/netns/netns-[0-9a-f-]{36}\Z")
"""As podman calls those that it makes (containernetworking/plugins, NewNS)."""


class Crun(Runtime):
    """crun, src/libcrun/criu.c."""

    name = "crun"
    needs_filter = True
    lazily = Additions(criu=("lazy-pages",))
    """It has no such option, but CRIU reads its environment."""

    def cannot_restore_lazily(self, version: Callable[[], str], criu: str) -> str:
        """It can since 1.28, and with CRIU since 4.2."""
        if numbers(found := version()) >= _LAZY and numbers(criu) >= _CRIU_LAZY:
            return ""
        return f"crun {found} with CRIU {criu} cannot restore lazily, crun 1.28 with CRIU 4.2 can"

    def connected(self, spec: oci.Bundle) -> Additions:
        """As runc tells it itself. Else CRIU locks no network (criu/cr-restore.c, restore_root_task): the first packet
        of a connection within the container finds nobody at the other end, and is answered with a reset.

        Only in a network that podman has made for the container alone: CRIU brings up no interface of its own then, and
        when it fails the network stays locked.
        """
        paths = (each.path for each in spec.linux.namespaces if each.type == "network")
        return Additions(criu=("empty-ns net",) if any(map(_OWN_NETWORK.search, paths)) else ())

    def keep_filter(self, container: str, code: bytes) -> None:
        """Let `crun exec` confine what it starts in `container` with the filter `code`, unless it has one.

        Raises NotFoundError when crun does not know the container.
        """
        states = [Path(each, container) for each in _STATES]
        state = next((each for each in states if (each / "status").exists()), None)
        if state is None:
            raise NotFoundError(f"crun keeps no state of container {container[:12]} below {_STATES[0]} (any more)")
        if (state / FILTER).exists():
            return
        try:
            atomic.replace(state / FILTER, code, mode=0o700)  # as crun's own
        except OSError as error:
            raise StorageError(f"crun's seccomp filter cannot be written: {error}") from error
