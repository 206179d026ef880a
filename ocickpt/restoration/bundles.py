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

from ocickpt import oci, rendezvous
from ocickpt.engine.runtime import table
from ocickpt.errors import IncompatibleError, UnsupportedError
from ocickpt.gate.expected import mounts_of
from ocickpt.trust import security


def check(spec: oci.Bundle, saved: oci.Saved, runtime: str) -> None:
    """Hold the specification in the bundle against the one the checkpoint was made of.

    Raises IncompatibleError that names what differs, UnsupportedError for what cannot be restored this way.
    """
    if "user" in _namespaces(spec) or spec.linux.uid_mappings:
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


def volume_place(spec: oci.Spec, destination: str) -> Path:
    """The directory of the host that the container has mounted at `destination`, for what a volume brings; it is empty.

    Raises IncompatibleError.
    """
    mount = mounts_of(spec).get(os.path.normpath(destination))
    writable = mount is not None and {"bind", "rbind"} & set(mount.options) and "ro" not in mount.options
    place = Path(mount.source) if mount and writable else Path()
    if not place.is_absolute() or not place.is_dir():
        raise IncompatibleError(f"the checkpoint brings a volume for {destination}, where no writable one is mounted")
    if any(place.iterdir()):
        raise IncompatibleError(
            f"the volume at {destination} has content already, and the checkpoint brings its own",
            hint="give it an empty one (with crun, `:nocopy` keeps podman from filling a new one from the image)",
        )
    return place


def make_mount_points(spec: oci.Spec, bundle: Path) -> None:
    """Make what files are mounted upon in the directories that podman made for this container: CRIU looks for it.

    They are those for secrets, on disk or in memory: ``overlay-containers/ID/userdata/…``.
    """
    places = {Path(where): Path(mount.source) for where, mount in mounts_of(spec).items()}
    for outer, directory in places.items():
        if f"{bundle.parent.name}/{bundle.name}/" not in str(directory) or not directory.is_dir():
            continue
        for inner, source in places.items():
            if inner != outer and inner.is_relative_to(outer) and not source.is_dir():
                point = directory / inner.relative_to(outer)
                point.parent.mkdir(parents=True, exist_ok=True)
                point.touch()


def _resources(spec: oci.Bundle, saved: oci.Saved) -> Iterator[str]:
    ours, theirs = _mount_kinds(spec), _mount_kinds(saved)
    yield from _listed("it does not mount", theirs.keys() - ours.keys())
    yield from _listed("the checkpoint knows no mount at", ours.keys() - theirs.keys())
    yield from _listed(
        "another kind of mount is at", {each for each in ours if theirs.get(each, ours[each]) != ours[each]}
    )
    yield from _listed("it has no device", _devices(saved) - _devices(spec))
    yield from _listed("it shares with others the namespace", _namespaces(saved) - _namespaces(spec))
    yield from _listed("it has of its own the namespace", _namespaces(spec) - _namespaces(saved))
    for each in spec.linux.namespaces:
        if each.path and each.type != "network":
            yield f"it joins the {each.type} namespace {each.path}"
    if spec.process.terminal != saved.process.terminal:
        yield "one of them has a terminal"


def _confinement(spec: oci.Bundle, saved: oci.Saved) -> Iterator[str]:
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
    user, before = spec.process.user, saved.process.user
    if (user.uid, user.gid) != (before.uid, before.gid):
        yield f"it runs as user {user.uid}, not {before.uid}"
    linux, then = spec.linux, saved.linux
    for paths, protected in ((linux.masked_paths, then.masked_paths), (linux.readonly_paths, then.readonly_paths)):
        yield from _listed("the checkpoint does not protect", set(paths) - set(protected))
    if spec.root.readonly and not saved.root.readonly:
        yield "its root filesystem is read-only"


def _listed(what: str, found: Iterable[str]) -> list[str]:
    words = sorted(found)
    return [f"{what} {', '.join(words)}"] if words else []


def _mount_kinds(spec: oci.Spec) -> dict[str, str]:
    """Each mount's type; every way to write a bind mount is one."""
    return {where: "bind" if mount.is_bind else mount.type for where, mount in mounts_of(spec).items()}


def _devices(spec: oci.Spec) -> set[str]:
    return {device.path for device in spec.linux.devices}


def _namespaces(spec: oci.Spec) -> set[str]:
    return {each.type for each in spec.linux.namespaces}


def _hooks(spec: oci.Bundle) -> Iterator[str]:
    """When the bundle has hooks to be run before the container's process, ours aside: the shim is the gate itself."""
    found = spec.hooks
    for when, hooks in (
        ("prestart", found.prestart),
        ("createRuntime", found.create_runtime),
        ("createContainer", found.create_container),
        ("startContainer", found.start_container),
        ("poststart", found.poststart),
    ):
        if any(Path(hook.path).name != rendezvous.HOOK for hook in hooks):
            yield when
