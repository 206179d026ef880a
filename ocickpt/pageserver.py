"""The page server of a lazy restore, as the guard starts it: ``pageserver NAME FD`` (`lazy.serving`)."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

from ocickpt.lazy import serving


def main(argv: list[str]) -> int:
    """Serve memory over the socket that is descriptor ``argv[1]``; the exit status."""
    return serving.serve(Path(argv[0]).name, socket.socket(fileno=int(argv[1])))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
