"""``python -m ocickpt``."""

from ocickpt.cli.main import main

main()
