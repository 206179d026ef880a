"""The command, and ``python -m ocickpt``: also where what the command line is made of cannot be loaded."""

from __future__ import annotations

import sys
from typing import NoReturn

from ocickpt import libraries


def main() -> NoReturn:
    """Run ``ocickpt ARGUMENT…`` and exit."""
    try:
        from ocickpt.cli.main import main as run
    except Exception as error:
        lacking = libraries.unusable(error)
        if lacking is None:
            raise
        sys.stderr.write(f"ocickpt: {lacking.message}\nhint: {lacking.hint}\n")
        sys.exit(lacking.exit_code)
    run()


if __name__ == "__main__":
    main()
