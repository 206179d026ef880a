"""The guard of a lazy restore, as the restore starts it: ``guard NAME``, told on stdin what to do (`lazy.guarding`)."""

from __future__ import annotations

import sys

from ocickpt.lazy import guarding


def main(argv: list[str]) -> int:
    """Guard the lazy restore that is called ``argv[0]``; 1 when its container had to be killed."""
    return guarding.guard(argv[0])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
