"""Every field of every message of CRIU's images: why it does nothing to the host, or what holds it.

One table. A field that has no row is refused, whatever is in it, and so is a value that its row does not give. The rows
say what a value alone may be, and name the rule that holds it against the container's specification.

Source: images/*.proto of CRIU v4.2, whose fields are 4.2.1's; a test holds the table against both.
"""

from __future__ import annotations

from typing import Final

from ocickpt.gate.fields import container, files, process, registers, sockets
from ocickpt.gate.fields.cells import Cell, Row

__all__ = ["TABLE", "Cell", "Row"]

TABLE: Final[dict[str, Row]] = {**process.ROWS, **registers.ROWS, **files.ROWS, **sockets.ROWS, **container.ROWS}
"""By the message's name."""
