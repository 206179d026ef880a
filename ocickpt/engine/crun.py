"""What crun forgets when it restores: the seccomp filter of what `exec` starts.

`crun create` compiles the container's profile into a file in its state directory. `crun exec` loads that
file, and where there is none, no filter at all; `crun restore` (up to 1.28) makes none, and `podman exec`
would start unconfined processes in a confined container.
"""

from __future__ import annotations

from pathlib import Path

from ocickpt.errors import NotFoundError, StorageError

FILTER = "seccomp.bpf"
_STATES = "/run/crun", "/run/user/0/crun"
"""Where crun keeps its state for root: below XDG_RUNTIME_DIR, as which podman passes /run."""


def keep_filter(container: str, code: bytes) -> None:
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
        temporary = state / f"{FILTER}.new"
        temporary.write_bytes(code)
        temporary.chmod(0o700)  # as crun's own
        temporary.rename(state / FILTER)
    except OSError as error:
        raise StorageError(f"crun's seccomp filter cannot be written: {error}") from error
