"""The annotations of a container that is restored: which come back by themselves, and which have to be allowed.

Most are notes to people. By some a runtime, systemd, a hook of this host or ocickpt itself acts, as root.

Source: podman libpod/container_internal_common.go (generateSpec), pkg/specgen/generate, pkg/hooks; crun, crun.1.md;
runc, docs/systemd.md; CRI-O, pkg/annotations.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from ocickpt import names
from ocickpt.asked import Asked
from ocickpt.engine.podman.config import Config
from ocickpt.engine.podman.defaults import hook_directories

_MANAGER: Final = "io.container.manager"
_PODMANS: Final = "io.podman.annotations."
_SHOWN: Final = tuple(
    f"{_PODMANS}{each}"
    for each in ("autoremove", "privileged", "publish-all", "init", "label", "seccomp", "apparmor", "ulimit")
)
"""What podman shows of how a container was made; of others it would take containers and files of the host."""
_STOP_SIGNAL: Final = "org.opencontainers.image.stopSignal"
_KILL_SIGNAL: Final = "org.systemd.property.KillSignal"
_STOP_TIMEOUT: Final = "org.systemd.property.TimeoutStopUSec"
_MADE: Final = (_STOP_SIGNAL, _KILL_SIGNAL, _STOP_TIMEOUT)
_SPENT: Final = (names.ANNOTATION_RESTORE, names.ANNOTATION_RESTORE_LAZY)
"""By these it was restored instead of started, once."""
_ACTING: Final = {
    names.ANNOTATION_PUSH: "by which its later checkpoints are published",
    "io.ocickpt.": "on which ocickpt acts",
    "org.criu.": "which names a file of options for CRIU",
    "run.oci.": "on which crun acts",
    "org.systemd.property.": "which systemd sets as a property of its unit",
    "module.wasm.": "by which crun runs it as WebAssembly",
    "cdi.k8s.io/": "which names devices of the host",
    "io.containers.": "on which hooks for containers act",
    "io.kubernetes.cri-o.": "on which CRI-O acts, and its hooks",
    "io.katacontainers.": "on which Kata Containers act",
}
"""What the annotations begin with that something acts on, and how."""
_CONDITIONS: Final = {"always", "annotations", "commands", "hasBindMounts"}
_ALIKE: Final = re.compile(
    r"(?:[^\\({\[]|\\[^0-9A-Za-z]|\((?:\?:)?(?!\?)|\{[0-9]+(?:,[0-9]*)?\}|\[\^?\]?(?:[^\\\]\[]|\\[^0-9A-Za-z])*\])*",
    re.DOTALL,
)
"""Expressions of which Go and Python think the same: no classes, flags and escapes with names."""


def passed(given: Mapping[str, str], config: Config) -> dict[str, str]:
    """Those that the container gets, of those that it had.

    What systemd is told of how to stop it is what podman's configuration says.
    """
    passed = {
        name: value
        for name, value in given.items()
        if name not in _SPENT and name not in _MADE and (name in _SHOWN or not name.startswith(_PODMANS))
    }
    signal, seconds = config.stop_signal, config.stop_timeout
    made = {_STOP_SIGNAL: str(signal), _KILL_SIGNAL: signal and str(signal)}
    made[_STOP_TIMEOUT] = seconds and f"uint64 {seconds * 1000000}"
    return passed | {name: str(value) for name, value in made.items() if value and given.get(name)}


def acted_on(given: Mapping[str, str]) -> Iterator[Asked]:
    """Those of the `passed` that something on this host acts on."""
    hooks = _hooks()
    for name, value in sorted(given.items()):
        if name in (*_MADE, _MANAGER) or name.startswith(_PODMANS):
            continue
        what = next((what for prefix, what in _ACTING.items() if name.startswith(prefix)), "")
        if not what and any(_matches(key, name) and _matches(text, value) for key, text in hooks):
            what = "on which a hook of this host acts"
        if what:
            meaning = f"the annotation {name}, {what}"
            yield Asked("annotation", f"{name}={value}", meaning, optional=True)


def _hooks() -> list[tuple[str, str]]:
    """The expressions for name and value of annotations by which hooks of this host are run (oci-hooks(5))."""
    found = list[tuple[str, str]]()
    for path in sorted(each for directory in hook_directories() for each in Path(directory).glob("*.json")):
        try:
            when = json.loads(path.read_bytes())["when"]
            if not when.keys() <= _CONDITIONS:
                raise ValueError("it says more")  # noqa: TRY301 - as below
            found += [(str(key), str(text)) for key, text in (when.get("annotations") or {}).items()]
        except (OSError, ValueError, AttributeError, KeyError, TypeError):
            found.append(("", ""))  # of another version (0.1.0 has no "when"), or broken: it may match
    return found


def _matches(expression: str, text: str) -> bool:
    try:
        return not _ALIKE.fullmatch(expression) or re.search(expression, text) is not None
    except re.error:
        return True
