"""/etc/hosts, /etc/resolv.conf and /etc/hostname of a container: podman's own files, mounted over those of its image.

They are in no checkpoint of podman's: a restore makes them anew. So what was changed in them would be lost.

Source: podman libpod/container_internal_common.go (makeBindMounts, createHostsFile, generateResolvConf);
containers/common libnetwork/etchosts and libnetwork/resolvconf.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import IO, Final

from ocickpt import oci
from ocickpt.engine.container import Container
from ocickpt.engine.podman.config import Config

HOSTS: Final = "/etc/hosts"
RESOLV_CONF: Final = "/etc/resolv.conf"
HOSTNAME: Final = "/etc/hostname"
FILES: Final = (HOSTS, RESOLV_CONF, HOSTNAME)
MADE: Final = (*FILES, "/run/.containerenv")
"""Files that podman makes anew for each restore, and which may be of another size then."""
LIMIT: Final = 1 << 20
_MARK: Final = "trusted.ocickpt.put-back"
"""Of a file that was put back: a later checkpoint has it too, though podman says it restored the container later."""
_GATEWAY: Final = {"host.containers.internal", "host.docker.internal"}
_PUBLIC: Final = {"8.8.8.8", "8.8.4.4", "2001:4860:4860::8888", "2001:4860:4860::8844"}
"""Where the host has no servers, podman names these."""
_SEARCH: Final = ("search", "domain")
"""Where names are looked for is the network's (``dns.podman``), of whatever host."""
_HOST_SERVERS: Final = ("/etc/resolv.conf", "/run/systemd/resolve/resolv.conf")


def sources(spec: oci.Spec, container_id: str) -> dict[str, Path]:
    """Where each of the `FILES` lies on the host that podman has made for the container of that id."""
    own = re.compile(rf"/(?:[^/]+/)*overlay-containers/{re.escape(container_id)}/userdata/[a-z.]+")
    return {
        mount.destination: Path(mount.source)
        for mount in spec.mounts
        if mount.destination in FILES and own.fullmatch(mount.source) and ".." not in mount.source.split("/")
    }


def read_only(spec: oci.Spec) -> set[str]:
    """Those of the `FILES` that the container cannot write."""
    mounted = (mount for mount in spec.mounts if mount.destination in FILES)
    return {mount.destination for mount in mounted if spec.root.readonly or "ro" in mount.options}


def given(config: Config) -> set[str]:
    """The names and addresses that podman was told of (``--add-host``, ``--dns`` and the like)."""
    lists = (config.dns_server, config.dns_search, config.dns_option, config.hosts_add)
    dns, search, option, hosts = ([str(each) for each in found or ()] for found in lists)
    pairs = (each.partition(":")[::2] for each in hosts)
    return {*dns, *search, *option, *(f"{name}:{address}" for names, address in pairs for name in names.split(";"))}


def changed(spec: oci.Spec, subject: Container, given: Collection[str] = ()) -> dict[str, bytes]:
    """The content of those that are not what podman makes of this host's, and of what it was `given`.

    Of one that is longer than `LIMIT`, it is a byte more than that.
    """
    found, fixed = {}, read_only(spec)
    for path, source in sources(spec, subject.id).items():
        if path in fixed or not source.exists():  # it has ended, and podman has cleaned up after it
            continue
        data, modified, marked = _read(source)
        later = marked or modified > max(map(_seconds, (subject.started, subject.restored_at)))
        if later or path == HOSTNAME or _differs(path, data, subject, frozenset(given)):
            found[path] = data
    return found


def put_back(path: str, saved: bytes, place: Path, names: Iterable[str], own: Iterable[str]) -> None:
    """Write what was `saved` into the file at `place`, which keeps what podman wrote there of the container's own
    addresses: of `names` that it had, for which it has its `own` now."""
    with _opened(place, os.O_RDWR) as file:
        made = file.read(LIMIT)
        file.seek(0)
        file.truncate()
        file.write(merged(saved, made, set(names), set(own)) if path == HOSTS else saved)
        with suppress(OSError):  # older filesystems in memory have none: then its lines have to tell
            os.setxattr(file.fileno(), _MARK, b"1")


def merged(saved: bytes, made: bytes, names: set[str], own: set[str]) -> bytes:
    """An /etc/hosts that was `saved`, with the lines that were `made` in the place of those of its own addresses."""
    found, instead = list[bytes](), list(made.splitlines(keepends=True))
    ours = [line for line in instead if own.intersection(_named(line))]
    gateway = [line for line in instead if _is_of(line, _GATEWAY)]
    for line in saved.splitlines(keepends=True):
        if _is_of(line, names):
            found += ours
            ours = []
        elif _is_of(line, _GATEWAY):
            found += gateway
            gateway = []
        else:
            found.append(line)
    return b"".join(found)


def _is_of(line: bytes, names: set[str]) -> bool:
    """Whether a line is one that podman has written of these names: it names nothing else."""
    named = _named(line)
    return bool(named) and set(named) <= names


def _named(line: bytes) -> list[str]:
    """What a line names, unless it is of the loopback interface or a comment."""
    first, *rest = line.decode("utf-8", "replace").split() or [""]
    return [] if first.startswith(("#", "127.", "::1")) else rest


def _differs(path: str, data: bytes, subject: Container, given: frozenset[str]) -> bool:
    """Whether a file says what podman has neither of the host nor of its own, or nothing of what it has of the host."""
    said = set(_entries(data))
    if path == HOSTS:
        known = set(_entries(_text(HOSTS)))
        mine = {subject.name, subject.id[:12], *_GATEWAY}
        told = {pair for pair in said if given.intersection({f"{pair[1]}:{pair[0]}", f"{pair[1]}:host-gateway"})}
        return bool({pair for pair in said - told if pair[1] not in mine} - known - _LOCAL)
    words = {word for keyword, word in said if keyword not in _SEARCH}
    known_words = {word for file in _HOST_SERVERS for line in _words(_text(file)) for word in line[1:]}
    return bool(words - known_words - _PUBLIC - given - set(subject.servers))


_LOCAL: Final = {
    (address, name)
    for address in ("127.0.0.1", "::1")
    for name in ("localhost", "localhost.localdomain", "localhost4", "localhost6")
}


def _entries(data: bytes) -> Iterator[tuple[str, str]]:
    """Each address or keyword with each of its words."""
    for first, *rest in _words(data):
        yield from ((first, word) for word in rest)


def _words(data: bytes) -> Iterator[list[str]]:
    for line in data.decode("utf-8", "replace").splitlines():
        if words := re.split(r"[#;]", line)[0].split():
            yield words


def _text(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""


def _read(path: Path) -> tuple[bytes, float, bool]:
    """Its content, when it was written last, in seconds since the epoch, and whether that was by `put_back`."""
    with _opened(path, os.O_RDONLY) as file:
        marked = _MARK in os.listxattr(file.fileno())
        return file.read(LIMIT + 1), os.fstat(file.fileno()).st_mtime, marked


def _opened(path: Path, flags: int) -> IO[bytes]:
    handle = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(f"{path} is no regular file")
    return os.fdopen(handle, "r+b" if flags & os.O_RDWR else "rb")


def _seconds(text: str) -> float:
    """A time as podman writes it, in seconds since the epoch; 0 where there is none."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return 0
    return found.timestamp() if found.year > 1 else 0
