"""Whether a new container's bundle has what a checkpoint needs, before anything of it runs.

Mounts, devices, hooks, namespaces and limits come from the bundle, never from the checkpoint; CRIU brings the
processes as they were. So the two must agree: what the bundle lacks the processes would miss, and what it forbids
they would go on doing.

Source: runtime-spec, config.md and config-linux.md.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ocickpt import rendezvous
from ocickpt.engine.podman import allowed
from ocickpt.engine.runtime import table
from ocickpt.errors import IncompatibleError, IntegrityError, UnsupportedError
from ocickpt.gate.expected import mounts_of
from ocickpt.trust import security

_BEFORE = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart")


def check(spec: dict[str, Any], saved: dict[str, Any], runtime: str) -> None:
    """Hold the specification in the bundle against the one the checkpoint was made of.

    Raises IncompatibleError that names what differs, UnsupportedError for what cannot be restored this way,
    IntegrityError for a specification that is none.
    """
    try:
        _check(spec, allowed.only(saved, allowed.SPEC, "OCI specification"), runtime)
    except (AttributeError, KeyError, TypeError) as error:
        raise IntegrityError(f"an OCI specification is not of the right form: {error}") from error


def _check(spec: dict[str, Any], saved: dict[str, Any], runtime: str) -> None:
    if "user" in _namespaces(spec) or (spec.get("linux") or {}).get("uidMappings"):
        raise UnsupportedError("a container with a user namespace of its own cannot be restored")
    hooks = set(_hooks(spec)) - table.RUNTIMES[runtime].hooks_at_restore
    if hooks:
        raise UnsupportedError(f"{runtime} runs no {min(hooks)} hooks when it restores, and the container has some")
    found = [*_resources(spec, saved), *_confinement(spec, saved)]
    if found:
        raise IncompatibleError(
            f"the container is not like the one of the checkpoint: {'; '.join(found)}",
            hint="create it with the options the checkpointed one was created with",
        )


def volume_place(spec: dict[str, Any], destination: str) -> Path:
    """The directory of the host that the container has mounted at `destination`, for what a volume brings; it is empty.

    Raises IncompatibleError.
    """
    mount = mounts_of(spec).get(os.path.normpath(destination), {})
    options, place = mount.get("options") or (), Path(mount.get("source", ""))
    if not {"bind", "rbind"} & set(options) or "ro" in options or not place.is_absolute() or not place.is_dir():
        raise IncompatibleError(f"the checkpoint brings a volume for {destination}, where no writable one is mounted")
    if any(place.iterdir()):
        raise IncompatibleError(
            f"the volume at {destination} has content already, and the checkpoint brings its own",
            hint="give it an empty one (with crun, `:nocopy` keeps podman from filling a new one from the image)",
        )
    return place


def make_mount_points(spec: dict[str, Any], bundle: Path) -> None:
    """Make what files are mounted upon in the directories that podman made for this container: CRIU looks for it.

    They are those for secrets, on disk or in memory: ``overlay-containers/ID/userdata/…``.
    """
    places = {Path(where): Path(mount.get("source", "")) for where, mount in mounts_of(spec).items()}
    for outer, directory in places.items():
        if f"{bundle.parent.name}/{bundle.name}/" not in str(directory) or not directory.is_dir():
            continue
        for inner, source in places.items():
            if inner != outer and inner.is_relative_to(outer) and not source.is_dir():
                point = directory / inner.relative_to(outer)
                point.parent.mkdir(parents=True, exist_ok=True)
                point.touch()


def _resources(spec: dict[str, Any], saved: dict[str, Any]) -> Iterator[str]:
    ours, theirs = _mount_kinds(spec), _mount_kinds(saved)
    yield from _listed("it does not mount", theirs.keys() - ours.keys())
    yield from _listed("the checkpoint knows no mount at", ours.keys() - theirs.keys())
    yield from _listed(
        "another kind of mount is at", {each for each in ours if theirs.get(each, ours[each]) != ours[each]}
    )
    yield from _listed("it has no device", _devices(saved) - _devices(spec))
    yield from _listed("it shares with others the namespace", _namespaces(saved) - _namespaces(spec))
    yield from _listed("it has of its own the namespace", _namespaces(spec) - _namespaces(saved))
    for kind, path in _joined(spec).items():
        if kind != "network":
            yield f"it joins the {kind} namespace {path}"
    if _process(spec).get("terminal", False) != _process(saved).get("terminal", False):
        yield "one of them has a terminal"


def _confinement(spec: dict[str, Any], saved: dict[str, Any]) -> Iterator[str]:
    ours, theirs = security.summary(spec), security.summary(saved)
    for name in ("bounding", "effective", "permitted", "inheritable", "ambient"):
        more = set(getattr(theirs.capabilities, name)) - set(getattr(ours.capabilities, name))
        yield from _listed(f"it lacks the {name} capabilities", more)
    if ours.seccomp.mode == "filter" and ours.seccomp != theirs.seccomp:
        yield "it has another seccomp profile"
    if ours.no_new_privileges and not theirs.no_new_privileges:
        yield "its no_new_privs would not be in force"
    if ours.apparmor and ours.apparmor != theirs.apparmor:
        yield f"its AppArmor profile is {ours.apparmor}, not {theirs.apparmor or 'none'}"
    if ours.selinux.process.split(":")[:3] != theirs.selinux.process.split(":")[:3]:
        yield f"its SELinux label is {ours.selinux.process or 'none'}, not {theirs.selinux.process or 'none'}"
    user, before = _process(spec).get("user") or {}, _process(saved).get("user") or {}
    if (user.get("uid"), user.get("gid")) != (before.get("uid"), before.get("gid")):
        yield f"it runs as user {user.get('uid')}, not {before.get('uid')}"
    linux, then = spec.get("linux") or {}, saved.get("linux") or {}
    for name in ("maskedPaths", "readonlyPaths"):
        yield from _listed("the checkpoint does not protect", set(linux.get(name) or ()) - set(then.get(name) or ()))
    if (spec.get("root") or {}).get("readonly") and not (saved.get("root") or {}).get("readonly"):
        yield "its root filesystem is read-only"


def _listed(what: str, found: Iterable[str]) -> list[str]:
    words = sorted(found)
    return [f"{what} {', '.join(words)}"] if words else []


def _process(spec: dict[str, Any]) -> dict[str, Any]:
    return spec.get("process") or {}


def _mount_kinds(spec: dict[str, Any]) -> dict[str, str]:
    """Each mount's type; every way to write a bind mount is one."""
    return {
        where: "bind" if {"bind", "rbind"} & set(mount.get("options") or ()) else mount.get("type", "")
        for where, mount in mounts_of(spec).items()
    }


def _devices(spec: dict[str, Any]) -> set[str]:
    return {device.get("path", "") for device in (spec.get("linux") or {}).get("devices") or ()}


def _namespaces(spec: dict[str, Any]) -> set[str]:
    return {each.get("type", "") for each in (spec.get("linux") or {}).get("namespaces") or ()}


def _joined(spec: dict[str, Any]) -> dict[str, str]:
    found = (spec.get("linux") or {}).get("namespaces") or ()
    return {each["type"]: each["path"] for each in found if each.get("path")}


def _hooks(spec: dict[str, Any]) -> Iterator[str]:
    """When the bundle has hooks to be run before the container's process, ours aside: the shim is the gate itself."""
    for when, hooks in (spec.get("hooks") or {}).items():
        if when in _BEFORE and any(Path(hook.get("path", "")).name != rendezvous.HOOK for hook in hooks or ()):
            yield when
