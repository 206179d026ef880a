"""Which of the crafted checkpoints the kernel shows to be what they are, and in which words it is told."""

from __future__ import annotations

from tests.hostile.cases import CASES

SAYS: dict[str, str] = {name: "the restored" for name, case in CASES.items() if case.said}
