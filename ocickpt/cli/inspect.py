"""``ocickpt inspect``: what is in a checkpoint, and how the container was confined."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

import ocickpt
from ocickpt.cli.options import access_options, format_option, verb
from ocickpt.cli.output import data, data_json, size
from ocickpt.cli.published import pinned

if TYPE_CHECKING:
    from ocickpt.description import Capabilities, Description, IdMap, Security
    from ocickpt.library.catalog import Inspection

_WIDTH = 18
_LINE = 96


@verb
@click.argument("ref")
@access_options
@format_option("text")
def command(*, ref: str, authfile: Path | None, tls_verify: bool | None, form: str) -> None:
    """Show what is in a checkpoint.

    What REF is of, its sizes, the security settings of the container, and what a restore would have to
    be allowed with --allow, one by one. Little is fetched for it, and no memory.
    """
    found = ocickpt.inspect(ref, authfile=authfile, tls_verify=tls_verify)
    if form == "json":
        data_json(
            {
                "reference": found.reference,
                "digest": found.digest,
                "manifest": json.loads(found.manifest.to_bytes()),
                "description": found.description.to_json(),
                "asks_for": [{"option": each.option, "meaning": each.meaning} for each in found.asks],
                "trouble": found.trouble or None,
                "lost": list(found.lost),
            }
        )
        return
    for name, text in _rows(found):
        data(f"{name:<{_WIDTH}}{text or '-'}" if name or text else "")


def _rows(found: Inspection) -> Iterator[tuple[str, str]]:
    told = found.description
    yield "Checkpoint", pinned(found.reference, found.digest)
    yield "Created", told.created
    if told.parent:
        yield "Parent", told.parent
    yield "", ""
    yield "Container", f"{told.container.name}  {told.container.id[:12]}  created {told.container.created or '?'}"
    yield "Image", f"{told.image.name}  {told.image.id[:12]}"
    if told.image.digest:
        yield "", told.image.digest
    yield "Engine", f"{told.engine.name} {_known(told.engine.version)}"
    yield "Runtime", f"{told.runtime.name} {_known(told.runtime.version)}"
    yield "CRIU", _known(told.criu.version)
    yield "Host", f"{_known(told.host.arch)}, Linux {_known(told.host.kernel)}, {_known(told.host.distribution)}"
    cpu = "" if told.host.cpu_features else ", CPU unknown"
    yield "", f"cgroup {_known(told.host.cgroup)}, pages of {told.host.page_size} bytes{cpu}"
    yield "Options", ", ".join(_options(told)) or "none"
    for name, volume in zip(_first("Volumes"), told.volumes, strict=False):
        yield name, f"{volume.name} on {volume.destination}"
    yield "", ""
    stored = sum(layer.size for layer in found.manifest.layers)
    yield "Stored", f"{size(stored)} in {len(found.manifest.layers)} blobs"
    for kind, contents in told.contents.items():
        if contents.files:
            packs = [layer for layer in found.manifest.layers if layer.media_type == kind.media_type]
            counted = f"{contents.files} {'entry' if contents.files == 1 else 'entries'}"
            yield (
                f"  {kind.name.lower()}",
                f"{size(contents.bytes):>10}, stored as {size(sum(pack.size for pack in packs))}, {counted}",
            )
    yield "", ""
    yield from _security(told.security)
    yield "", ""
    yield from _asks(found)
    for name, each in zip(_first("Not given back"), found.lost, strict=False):
        yield name, each


def _asks(found: Inspection) -> Iterator[tuple[str, str]]:
    """Each as --allow takes it, and what it is."""
    if found.trouble:
        yield "Asks for", f"nobody knows, and no restore takes it: {found.trouble}"
    elif not found.asks:
        yield "Asks for", "nothing that podman does not give everybody"
    for heading, each in zip(_first("Asks for"), found.asks, strict=False):
        without = " (left out unless allowed)" if each.optional else ""
        yield heading, f"{shlex.quote(each.option):<32} {each.meaning}{without}"


def _known(text: str) -> str:
    return text or "unknown"


def _options(told: Description) -> Iterator[str]:
    options = told.options
    if options.leave_running:
        yield "left running"
    if options.tcp_established:
        yield "established TCP connections"
    if options.file_locks:
        yield "file locks"
    if not options.rootfs:
        yield "without the root file system"
    if not options.volumes:
        yield "without volumes"


def _security(told: Security) -> Iterator[tuple[str, str]]:
    yield "SELinux", told.selinux.process or "no process label"
    if told.selinux.mount:
        yield "", f"{told.selinux.mount} (mounts)"
    yield "AppArmor", told.apparmor or "no profile"
    yield "Labels in CRIU", told.images_lsm
    yield "Seccomp", f"{told.seccomp.mode}  {told.seccomp.digest}".rstrip()
    yield "no_new_privs", "yes" if told.no_new_privileges else "no"
    yield from _capabilities(told.capabilities)
    maps = told.user_namespace
    if not maps.uid and not maps.gid:
        yield "User namespace", "that of the host"
    for heading, which in (("User ids", maps.uid), ("Group ids", maps.gid)):
        for name, each in zip(_first(heading), which, strict=False):
            yield name, _map(each)


def _map(each: IdMap) -> str:
    return f"{each.container}-{each.container + each.size - 1} are {each.host}-{each.host + each.size - 1} of the host"


def _capabilities(told: Capabilities) -> Iterator[tuple[str, str]]:
    """The sets, equal ones together: mostly three of the five are."""
    sets = {name: getattr(told, name) for name in ("bounding", "effective", "permitted", "inheritable", "ambient")}
    by_content: dict[tuple[str, ...], list[str]] = {}
    for name, content in sets.items():
        by_content.setdefault(tuple(sorted(content)), []).append(name)
    for heading, (content, names) in zip(_first("Capabilities"), by_content.items(), strict=False):
        yield heading, f"{', '.join(names)}:"
        for line in _wrapped([each.removeprefix("CAP_").lower() for each in content]):
            yield "", f"  {line}"


def _wrapped(words: Sequence[str]) -> Iterator[str]:
    line = ""
    for word in words or ["none"]:
        if line and _WIDTH + len(line) + len(word) > _LINE:
            yield line
            line = ""
        line = f"{line} {word}" if line else word
    yield line


def _first(heading: str) -> Iterator[str]:
    """The heading once, then nothing for the lines below it."""
    yield heading
    while True:
        yield ""
