"""What neither podman nor CRIU saves of a container, and we do: ``extras.json`` of a checkpoint (schemas/README.md).

Whoever made the checkpoint chose every value: the types here bound them, and who gives them back asks what the
container may have.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal, TypeAlias

import msgspec
from msgspec import Meta

from ocickpt import structs
from ocickpt.engine.podman.volumes import VolumeOptions
from ocickpt.errors import IntegrityError

NAME: Final = "extras.json"
LIMIT: Final = 6 << 20
"""Room for the three files, and as much again for a third."""
MOST: Final = 1 << 16
"""Threads, and processes, that have anything unusual."""
MOST_SOCKETS: Final = 4096
MOST_TEXT: Final = 4096
MOST_SLACK: Final = (1 << 63) - 1
"""Nanoseconds; the kernel takes twice that, which is for ever too."""
_WHAT: Final = "checkpoint's extras.json"
_Id: TypeAlias = Annotated[int, Meta(gt=0, lt=1 << 32)]
_Cpus: TypeAlias = Annotated[str, Meta(max_length=1 << 14, pattern=r"\A[0-9a-f]*\Z")]
_Path: TypeAlias = Annotated[str, Meta(max_length=4096, pattern=r"\A/[^\u0000]*\Z")]


class _Object(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """An object: what it does not say is as usual."""


class Thread(_Object, frozen=True):
    """A thread, by its id in the container's own pid namespace."""

    id: _Id
    cpus: _Cpus = ""
    """The processors it is bound to, a mask in hexadecimal; none for all there are."""
    io_class: Annotated[int, Meta(ge=0, le=3)] = 0
    io_level: Annotated[int, Meta(ge=0, le=7)] = 0
    timer_slack: Annotated[int, Meta(ge=0, le=MOST_SLACK)] | None = None
    """In nanoseconds."""


class Process(_Object, frozen=True):
    """A process, likewise; `core_filter` is what its core dump holds."""

    id: _Id
    core_filter: Annotated[int, Meta(ge=0, lt=1 << 9)]


class File(_Object, frozen=True):
    """A file that podman makes anew, with what the container had in it."""

    path: Literal["/etc/hosts", "/etc/resolv.conf", "/etc/hostname"]
    content: Annotated[bytes, Meta(max_length=1 << 20)]


class Socket(_Object, frozen=True):
    """A unix socket that was bound to `bound`, and has another name in the same directory since."""

    bound: _Path
    path: _Path


class Lost(_Object, frozen=True):
    """What nothing gives back, of a process (a number) or a path."""

    kind: Literal["personality", "io", "socket", "volume", "file", "more"]
    of: Annotated[str, Meta(max_length=MOST_TEXT)]
    value: Annotated[str, Meta(max_length=MOST_TEXT)] = ""

    def __str__(self) -> str:
        """A sentence for people; what cannot be shown is escaped."""
        of, value = (repr(each)[1:-1] for each in (self.of, self.value))
        if self.kind == "personality":
            return f"process {of} has the personality {value}, which cannot be given back: it comes back without"
        if self.kind == "io":
            return f"thread {of} has {value} I/O, which its container may not have: it comes back without"
        if self.kind == "file":
            return f"the file {of} is longer than {value} bytes: its changes are not given back"
        if self.kind == "more":
            return f"the same is so of {of} more"
        if self.kind == "volume":
            return f"the volume {of} is {value} of its host, and what is in it is not in the checkpoint"
        return f"the unix socket {of} was given another name, which is not known: it comes back as {of}"


class Extras(_Object, frozen=True):
    """All of it."""

    lost: Annotated[tuple[Lost, ...], Meta(max_length=4096)] = ()
    threads: Annotated[tuple[Thread, ...], Meta(max_length=MOST)] = ()
    processes: Annotated[tuple[Process, ...], Meta(max_length=MOST)] = ()
    files: Annotated[tuple[File, ...], Meta(max_length=3)] = ()
    sockets: Annotated[tuple[Socket, ...], Meta(max_length=MOST_SOCKETS)] = ()
    volumes: Annotated[tuple[VolumeOptions, ...], Meta(max_length=4096)] = ()

    def to_bytes(self) -> bytes:
        """As JSON; content is in base64."""
        return msgspec.json.encode(self)

    @classmethod
    def from_bytes(cls, data: bytes) -> Extras:
        """What that JSON says; IntegrityError for what is not of the right form."""
        if len(data) > LIMIT:
            raise IntegrityError(f"the {_WHAT} is {len(data)} bytes long; at most {LIMIT} are allowed")
        try:
            found = msgspec.json.decode(data, type=cls)
        except msgspec.ValidationError as error:
            raise IntegrityError(f"the {_WHAT} is not of the right form: {structs.reason(error)}") from error
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            raise IntegrityError(f"the {_WHAT} is not JSON: {error}") from error
        for said in (
            [each.id for each in found.threads],
            [each.id for each in found.processes],
            [each.path for each in found.files],
            [each.bound for each in found.sockets],
            [each.name for each in found.volumes],
        ):
            if len(set(said)) != len(said):
                raise IntegrityError(f"the {_WHAT} says twice what one thread, process, file, socket or volume has")
        return found


NONE: Final = Extras()


def read(directory: Path) -> Extras:
    """What lies in the work directory of a checkpoint; IntegrityError."""
    path = directory / NAME
    return Extras.from_bytes(path.read_bytes()) if path.exists() else NONE
