"""Text from elsewhere, made fit to be shown."""

from __future__ import annotations


def clean(text: str, limit: int = 300) -> str:
    """`text` on one line of at most `limit` characters, whatever a terminal would act on replaced.

    That is every character that is not printable (control, format, bidirectional, private use).
    """
    shown = " ".join(text[: limit * 4].split())
    shown = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in shown)
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"
