"""What differs from one OCI runtime to another when it restores, and what holds for all."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ocickpt import oci


class Additions(NamedTuple):
    """What is added to a runtime's call."""

    arguments: tuple[str, ...] = ()
    """Behind the subcommand."""
    criu: tuple[str, ...] = ()
    """Options, as a configuration file of CRIU's has them."""


class Runtime:
    """One runtime, by the name of its program."""

    name: str
    hooks_at_restore: frozenset[str] = frozenset()
    """The hooks of a specification that it runs when it restores a container."""

    def cannot_restore_lazily(self, version: Callable[[], str], criu: str) -> str:  # noqa: ARG002 - what others ask
        """Why this `version` of it, which is asked for where it matters, cannot restore lazily with this CRIU."""
        return ""

    lazily: Additions
    """What has its `restore` use CRIU's lazy-pages daemon, whose socket is linked into the bundle."""

    def connected(self, spec: oci.Bundle) -> Additions:  # noqa: ARG002 - what others ask
        """What has CRIU keep packets from a container whose connections are not all there yet."""
        return Additions()

    needs_filter: bool = False
    """Whether it has to be given the seccomp filter for what it starts in a restored container (`keep_filter`)."""

    def keep_filter(self, container: str, code: bytes) -> None:
        """Let what it starts in `container` be confined with the filter `code`."""
