"""The one exception tree, with the exit code each class ends a command with.

    OcickptError                    1
    ├── UsageError                  2   the command line does not make sense (click's own code)
    ├── NotFoundError               3   no such container, tag, artifact, image
    ├── ExistsError                 4   a name, volume or address is already taken
    ├── IntegrityError              5   bytes are not what a digest, size or schema says
    ├── UnsupportedError            6   sound, but not something this version can do
    │   └── ForeignError            6   not a checkpoint at all
    ├── IncompatibleError           7   this host cannot run that checkpoint
    ├── RegistryError               8   a store cannot be reached or answers with an error
    │   └── AuthError               9   it wants other credentials
    ├── PrerequisiteError          10   something must be installed or permitted first
    ├── StorageError               11   a local file could not be read or written (disk full)
    ├── CommandError               12   podman, the runtime or CRIU failed
    └── BusyError                  13   somebody else is at work on the same thing

Errors of libraries are wrapped at the door of the room that uses them. Only entry points exit.
"""

from __future__ import annotations

from typing import ClassVar


def writable(text: str) -> str:
    """`text` with that escaped which no log or pipe takes: NUL, and bytes of file names that are not Unicode."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", r"\x00")


class OcickptError(Exception):
    """What went wrong in one sentence, and where there is one, a hint: what to do about it."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        message = writable(message)
        super().__init__(message)
        self.message = message
        self.hint = writable(hint)


class UsageError(OcickptError):
    """The command line does not make sense."""

    exit_code = 2


class NotFoundError(OcickptError):
    """No such container, tag, artifact or image."""

    exit_code = 3


class ExistsError(OcickptError):
    """A name, volume or address is already taken."""

    exit_code = 4


class IntegrityError(OcickptError):
    """Bytes are not what a digest, a size, a schema or a format says; none of them was used."""

    exit_code = 5


class UnsupportedError(OcickptError):
    """Sound as far as can be told, but not something this version can do."""

    exit_code = 6


class ForeignError(UnsupportedError):
    """Not a checkpoint of ocickpt but something else: an image, a signature, an image index."""


class IncompatibleError(OcickptError):
    """This host cannot run that checkpoint."""

    exit_code = 7


class RegistryError(OcickptError):
    """A registry cannot be reached, or answers with an error."""

    exit_code = 8


class AuthError(RegistryError):
    """A registry wants other credentials."""

    exit_code = 9


class PrerequisiteError(OcickptError):
    """Something must be installed or permitted first."""

    exit_code = 10


class StorageError(OcickptError):
    """A local file could not be read or written."""

    exit_code = 11


class CommandError(OcickptError):
    """podman, the runtime or CRIU failed; `message` ends with what they said."""

    exit_code = 12


class BusyError(OcickptError):
    """Somebody else is at work on the same thing."""

    exit_code = 13
