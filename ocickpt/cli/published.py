"""How `checkpoint` and `push` tell what they published."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ocickpt.model import Published


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
