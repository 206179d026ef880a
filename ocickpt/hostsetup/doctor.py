"""Everything ocickpt needs of a host, looked at one by one: its state, and what to do about it.

A check is a small function; CHECKS is the table of them. None of them changes anything, but for the last,
which puts right what interrupted operations left. One that fails to find out is itself a finding.
"""

from __future__ import annotations

import importlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

from ocickpt import libraries
from ocickpt.engine import criu, host
from ocickpt.engine.criu import configuration
from ocickpt.engine.runtime import table
from ocickpt.errors import OcickptError
from ocickpt.model import Silent
from ocickpt.versions import numbers

State = Literal["ok", "warning", "failed"]

_PODMAN: Final = (5,)
_CRIU_FROZEN: Final = (4, 1)  # dumps a frozen container and leaves it frozen
_CRIU_FIXED: Final = (4, 2)  # the first that dumps TCP sockets on Linux 6.16
_CRIU_UNKNOWN: Final = (4, 3)  # brings compressed pages
_LINUX_NEW: Final = (6, 16)
_FREE: Final = 1 << 30
_FEATURES: Final = (
    ("mem_dirty_track", "pre-copy is not possible: changed pages cannot be told", "use a kernel with MEM_SOFT_DIRTY"),
    ("uffd-noncoop", "lazy restore is not possible", "use a kernel with USERFAULTFD"),
    ("overlayfs_maps", "programs mapped from overlayfs may not be dumped", "use a newer kernel"),
)


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at."""

    name: str
    state: State
    found: str
    """What is there, in a few words."""
    remedy: str = ""
    """What to do, unless it is ok."""


def examine() -> list[Check]:
    """Every check of the table, in its order. Never raises."""
    return [each for name, check in CHECKS for each in _tried(name, check)]


def _tried(name: str, check: Callable[[], Iterable[Check]]) -> list[Check]:
    found: list[Check] = []
    try:
        found.extend(check())
    except OcickptError as error:
        found.append(Check(name, "failed", error.message, error.hint))
    except Exception as error:  # noqa: BLE001 - a doctor that falls ill helps nobody
        lacking = libraries.unusable(error)
        remedy = lacking.hint if lacking else "report this bug"
        found.append(Check(name, "failed", f"could not be examined: {libraries.reason(error)}", remedy))
    return found


def _root() -> Iterator[Check]:
    if os.geteuid() == 0:
        yield Check("permissions", "ok", "root")
    else:
        yield Check("permissions", "failed", f"uid {os.geteuid()}", "checkpoint and restore need root: use sudo")


def _podman() -> Iterator[Check]:
    version = host.podman_version()
    if not version:
        yield Check("podman", "failed", "not installed", "install the package podman")
    elif numbers(version) < _PODMAN:
        yield Check("podman", "warning", version, "ocickpt is tried with podman 5; install that")
    else:
        yield Check("podman", "ok", version)


def _runtimes() -> Iterator[Check]:
    versions = {name: host.runtime_version(name) for name in table.NAMES}
    if not any(versions.values()):
        yield Check("runtime", "failed", f"none of {table.LISTED}", "install the package crun or runc")
    for name, version in versions.items():
        if version and host.runtime_checkpoints(name):
            yield Check(name, "ok", version)
        elif version:
            remedy = f"install a {name} that is built with checkpoint support"
            yield Check(name, "warning", f"{version}, cannot checkpoint", remedy)


def _criu() -> Iterator[Check]:
    version, kernel = host.criu_version(), host.kernel()
    if not version:
        yield Check("criu", "failed", "not installed", "install the package criu, version 4.2")
        return
    number, new_kernel = numbers(version), numbers(kernel) >= _LINUX_NEW
    if new_kernel and number < (4,):
        yield Check("criu", "failed", f"{version} cannot start on Linux {kernel}", "install criu 4.2")
    elif new_kernel and number < _CRIU_FIXED:
        found = f"{version} cannot dump a process with a TCP socket on Linux {kernel}"
        yield Check("criu", "failed", found, "install criu 4.2")
    elif number < _CRIU_FROZEN:
        yield Check(
            "criu",
            "warning",
            f"{version} cannot dump a frozen container",
            "install criu 4.2: without it checkpoints are slow",
        )
    elif number >= _CRIU_UNKNOWN:
        yield Check("criu", "warning", f"{version} may write images this ocickpt refuses", "criu 4.2 is known to work")
    else:
        yield Check("criu", "ok", version)
    if os.geteuid() == 0:
        objection = host.criu_check()
        remedy = "`criu check` says what the kernel or its permissions lack"
        yield Check("criu check", "failed", objection, remedy) if objection else Check("criu check", "ok", "looks good")


def _pycriu() -> Iterator[Check]:
    version, beside = host.pycriu_version(), host.criu_version()
    remedy = "install python3-pycriu (Debian) or python3-criu (Fedora), for the Python that runs ocickpt"
    if not version:
        yield Check("pycriu", "failed", "cannot be imported", f"{remedy}; a venv needs --system-site-packages")
    elif version != "unknown" and beside and numbers(version)[:2] != numbers(beside)[:2]:
        yield Check("pycriu", "warning", f"{version}, criu is {beside}", "install both in the same version")
    else:
        yield Check("pycriu", "ok", version)


def _skopeo() -> Iterator[Check]:
    version = host.skopeo_version()
    if version:
        yield Check("skopeo", "ok", version)
    else:
        remedy = "install the package skopeo to copy checkpoints and images between registries"
        yield Check("skopeo", "warning", "not installed", remedy)


def _libraries() -> Iterator[Check]:
    broken = False
    for name in libraries.LIBRARIES:
        try:
            importlib.import_module(name)
        except Exception as error:  # noqa: BLE001 - they raise whatever they like
            broken = True
            found = f"{name}: {libraries.reason(error)}"
            yield Check("python libraries", "failed", found, libraries.remedy(name, error))
    if not broken:
        yield Check("python libraries", "ok", ", ".join(libraries.LIBRARIES))


def _libseccomp() -> Iterator[Check]:
    from ocickpt.gate import libseccomp

    found = libseccomp.version()
    yield Check("libseccomp", "ok", f"{found} compiles seccomp profiles into filters, as it does for runc and crun")


def _kernel() -> Iterator[Check]:
    if not host.criu_version() or os.geteuid() != 0:
        return
    for feature, meaning, remedy in _FEATURES:
        objection = host.criu_check("--feature", feature)
        if "nknown feature" in objection:
            continue  # this criu cannot tell
        if objection:
            yield Check(feature, "warning", meaning, remedy)
        else:
            yield Check(feature, "ok", "works")


def _cgroups() -> Iterator[Check]:
    version, old = host.cgroup(), [name or "unified" for name in host.v1_hierarchies()]
    if version != "v2" or not old:
        yield Check("cgroups", "ok", version or "none mounted")
        return
    lacking = [
        str(configuration.place(name)) for name in table.NAMES if host.program(name) and not criu.ignores_cgroups(name)
    ]
    found = f"v2, and v1 hierarchies beside it ({', '.join(old[:4])}{', …' if len(old) > 4 else ''})"
    if lacking:
        remedy = f"restores fail unless `manage-cgroups=ignore` stands in {' and '.join(lacking)}"
        yield Check("cgroups", "warning", found, remedy)
    else:
        yield Check("cgroups", "ok", f"{found}, ignored by CRIU")


def _lsm() -> Iterator[Check]:
    module = host.lsm()
    knows = host.criu_knows_selinux() if module == "selinux" and host.criu_version() else True
    if knows:
        yield Check("security module", "ok", module)
    else:
        doubt = "is built" if knows is False else "may be built"
        found = f"selinux, and criu {doubt} without libselinux: containers with a label are not checkpointed"
        remedy = "install a criu that is built with libselinux, as Fedora's is"
        yield Check("security module", "failed" if knows is False else "warning", found, remedy)


def _store() -> Iterator[Check]:
    from ocickpt.store.local import default_path

    path = default_path()
    there = next(each for each in (path, *path.parents) if each.exists())
    if not os.access(there, os.W_OK | os.X_OK):
        yield Check("local store", "failed", f"{path} cannot be written", "run as root, or set OCICKPT_STORE")
        return
    free = shutil.disk_usage(there).free
    found = f"{path}, {free / 1e9:.1f} GB free"
    if free < _FREE:
        yield Check("local store", "warning", found, "a checkpoint needs room for its packs: free some space")
    else:
        yield Check("local store", "ok", found)


def _shim() -> Iterator[Check]:
    from ocickpt.operations import launcher

    states = [each for each in launcher.states() if host.program(each.runtime)]
    set_up = [each for each in states if each.target]
    if not set_up and not launcher.DROP_IN.exists():
        remedy = "`ocickpt setup` makes checkpoints and restores faster; without it they go through an archive"
        yield Check("runtime shim", "warning", "not set up", remedy)
        return
    for each in states:
        name = f"shim of {each.runtime}"
        shown = host.runtime_path(each.runtime)
        if each.trouble:
            yield Check(name, "warning", each.trouble, "run `ocickpt setup` again")
        elif shown and shown != str(launcher.LAUNCHERS / each.runtime):
            remedy = f"a later file in containers.conf.d names {each.runtime} too: remove it there"
            yield Check(name, "warning", f"podman runs {shown} instead", remedy)
        else:
            yield Check(name, "ok", f"in front of {each.target}")


def _configuration() -> Iterator[Check]:
    from ocickpt import config

    found = config.load()
    allowed = f", containers may be restored on start from {', '.join(found.allow)}" if found.allow else ""
    more = f", containers restored from {', '.join(each for each, _ in found.always)} are always allowed more"
    allowed += more if found.always else ""
    yield Check("configuration", "ok", f"{config.PATH}{allowed}" if config.PATH.exists() else "none")


def _journals() -> Iterator[Check]:
    from ocickpt.operations import pending, recovery

    told = _Notes()
    if os.geteuid() == 0:
        recovery.recover(told)
    yield from (Check("operations", "ok", note) for note in told.notes)
    left = pending.left()
    yield from (Check("operations", "warning", each.found, each.remedy) for each in left)
    if not left and not told.notes:
        yield Check("operations", "ok", "none unfinished")


class _Notes(Silent):
    """Keeps what a flow has to say."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        """Kept."""
        self.notes.append(text)


CHECKS: Final[tuple[tuple[str, Callable[[], Iterable[Check]]], ...]] = (
    ("permissions", _root),
    ("podman", _podman),
    ("runtime", _runtimes),
    ("criu", _criu),
    ("pycriu", _pycriu),
    ("skopeo", _skopeo),
    ("python libraries", _libraries),
    ("libseccomp", _libseccomp),
    ("kernel features", _kernel),
    ("cgroups", _cgroups),
    ("security module", _lsm),
    ("local store", _store),
    ("runtime shim", _shim),
    ("configuration", _configuration),
    ("operations", _journals),
)
