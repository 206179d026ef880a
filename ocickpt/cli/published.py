"""How `checkpoint` and `push` tell what they published."""

from __future__ import annotations

from typing import Protocol


class Published(Protocol):
    """What the flows return, as far as it is shown."""

    @property
    def reference(self) -> str:
        """What the user named."""

    @property
    def digest(self) -> str:
        """The manifest's digest."""

    @property
    def size(self) -> int:
        """Bytes of all its blobs."""

    @property
    def sent(self) -> int:
        """Bytes that had to be sent."""

    @property
    def present(self) -> int:
        """Bytes that were there already."""


def pinned(reference: str, digest: str) -> str:
    """`reference` with the digest, if it has one, so that it names this and nothing else."""
    return reference if "@" in reference or not digest else f"{reference}@{digest}"


def as_json(published: Published, seconds: float) -> dict[str, object]:
    """What ``--format json`` prints."""
    return {
        "reference": pinned(published.reference, published.digest),
        "digest": published.digest,
        "size": published.size,
        "sent": published.sent,
        "present": published.present,
        "seconds": round(seconds, 3),
    }
