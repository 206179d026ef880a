"""Finds where this machine gets its Debian packages, so that no host name has to stand in the lab's files.

Reads the machine's apt sources in both their forms, sources.list(5): deb822 (`*.sources`) and one line each
(`*.list`). What serves a release of Debian itself is the mirror; other vendors' repositories are passed over.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from lablib.layout import LabError

_RELEASES = frozenset(
    ("bookworm", "trixie", "forky", "duke", "sid", "oldstable", "stable", "testing", "unstable"),
)
_ONE_LINE = re.compile(r"deb\s+(?:\[[^]]*\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)\s+(?P<components>.+)")


def _deb822(text: str) -> Iterator[dict[str, list[str]]]:
    """The stanzas of a deb822 file: lowercase field name → the words of its value."""
    for block in re.split(r"\n\s*\n", text):
        fields: dict[str, list[str]] = {}
        last = ""
        for line in block.splitlines():
            if line.startswith("#"):
                continue
            if line[:1].isspace() and last:
                fields[last] += line.split()
            elif ":" in line:
                key, _, value = line.partition(":")
                last = key.strip().lower()
                fields[last] = value.split()
        if fields:
            yield fields


def _serves_debian(suites: list[str], components: list[str]) -> bool:
    return "main" in components and not _RELEASES.isdisjoint(suites)


def _uris(path: Path) -> Iterator[str]:
    text = path.read_text(encoding="utf-8", errors="replace")
    if path.suffix == ".sources":
        for fields in _deb822(text):
            enabled = fields.get("enabled", ["yes"])[0].lower() not in ("no", "false")
            wanted = "deb" in fields.get("types", []) and enabled
            if wanted and _serves_debian(fields.get("suites", []), fields.get("components", [])):
                yield from fields.get("uris", [])
    else:
        for line in text.splitlines():
            match = _ONE_LINE.match(line.partition("#")[0].strip())
            if match and _serves_debian([match["suite"]], match["components"].split()):
                yield match["uri"]


def address(apt: Path = Path("/etc/apt")) -> str:
    """The URI of this machine's Debian mirror. Raises LabError where its apt sources name none."""
    files = [apt / "sources.list", *sorted(apt.glob("sources.list.d/*.list")),
             *sorted(apt.glob("sources.list.d/*.sources"))]  # fmt: skip
    for path in files:
        if path.is_file():
            for uri in _uris(path):
                return uri
    raise LabError(f"no Debian mirror in {apt}/sources.list or {apt}/sources.list.d: the lab's root is built from one")
