"""Volumes that podman was told how to make: of memory, of a directory, device or share of the host, for a user.

podman's checkpoint has their content and not that; its restore makes plain ones, on disk.

Source: podman-volume-create(1); podman libpod/volume_internal_linux.go (mount), which has mount(8) mount them.
"""

from __future__ import annotations

import re
from typing import Annotated, Final, TypeAlias

import msgspec
from msgspec import Meta

from ocickpt import proc
from ocickpt.asked import Asked
from ocickpt.errors import IntegrityError

_MEMORY: Final = "tmpfs"
_EMPTY: Final = (_MEMORY, "ramfs")
"""What has nothing in it whenever it is mounted."""
_OF_ANOTHER: Final = ("bind", "rbind", "move", "remount")
"""Options of mount(8) by which a mount is not of the type that is named, but of what is there."""
_SECRET: Final = ("password", "password2", "pass", "passwd")
_OF_MEMORY: Final = re.compile(
    r"(size|mode|uid|gid|nr_inodes|nr_blocks)=[0-9A-Za-z%]+|nodev|nosuid|noexec|ro|rw|noatime|nodiratime|relatime"
)
_PLAIN: Final = re.compile(r"(uid|gid|size|inodes)=[0-9A-Za-z]+|noquota")
_SOURCE: Final = re.compile(r"[A-Za-z0-9_./-]*")
_Text: TypeAlias = Annotated[str, Meta(max_length=4096)]


class VolumeOptions(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a volume was made: `type`, `device` and `o` as `podman volume create --opt` has them, of the driver local."""

    name: Annotated[str, Meta(max_length=255, pattern=r"\A[a-zA-Z0-9][a-zA-Z0-9_.-]*\Z")]
    type: _Text = ""
    device: _Text = ""
    o: _Text = ""

    @property
    def is_of_host(self) -> bool:
        """Whether its content is something that is there without it."""
        moved = any(word.partition("=")[0] in _OF_ANOTHER for word in self.o.split(","))
        return bool(self.type or self.device) and (moved or self.type not in _EMPTY)

    @property
    def is_memory(self) -> bool:
        """Whether its content is memory of this host."""
        return self.type in _EMPTY and not self.is_of_host

    @property
    def has_password(self) -> bool:
        """Whether its options hold what is nobody's to read (mount.cifs(8))."""
        return any(word.partition("=")[0] in _SECRET for word in self.o.split(","))

    @property
    def given(self) -> dict[str, str]:
        """Those of its options that there are."""
        return {key: value for key in ("type", "device", "o") if (value := getattr(self, key))}

    def asked(self) -> Asked | None:
        """How it is asked for, unless podman would make it for anybody. IntegrityError for what mount(8) would take
        for an option, and for what could be taken for another volume where it is asked for."""
        if any(each.startswith("-") for each in self.given.values()):
            raise IntegrityError(f"the volume {self.name} was made with what podman never takes")
        if "," in self.type + self.device:
            raise IntegrityError(
                f"the volume {self.name} has a type or a device with a comma, which nobody could allow"
            )
        words = self.o.split(",") if self.o else []
        harmless = _OF_MEMORY if self.type == _MEMORY else _PLAIN
        bounded = self.type in ("", _MEMORY) and not self.is_of_host
        if bounded and _SOURCE.fullmatch(self.device) and all(map(harmless.fullmatch, words)):
            return None
        shown = ",".join(f"{key}={value}" for key, value in self.given.items())
        what = self.device or self.type or self.o
        return Asked("volume-opt", f"{self.name}:{shown}", f"the volume {self.name}, which is {what} of the host")

    def make(self, label: str) -> None:
        """Have podman make it, with a label that says who did. CommandError, too when there is one of that name."""
        options = [f"--opt={key}={value}" for key, value in self.given.items()]
        proc.run(["podman", "volume", "create", f"--label={label}", *options, "--", self.name])
