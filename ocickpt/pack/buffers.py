"""Memory from the system itself: it is resident where it is used, moves without being copied, and goes back at once.

The allocator's heap only grows, and the more, the longer threads hand each other large blocks.
"""

from __future__ import annotations

import mmap
import struct

import numpy as np
import numpy.typing as npt

_START = 1 << 16


def zeros(size: int) -> mmap.mmap:
    """So many bytes."""
    return mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


class Records:
    """Records of one layout, one after the other. Any thread may read while another one appends."""

    def __init__(self, layout: struct.Struct) -> None:
        self._layout = layout
        self._memory = zeros(_START)
        self.count = 0

    def __len__(self) -> int:
        return self.count * self._layout.size

    def append(self, *fields: object) -> None:
        """Add a record."""
        at = len(self)
        if at + self._layout.size > len(self._memory):
            self._memory.resize(2 * len(self._memory))
        self._layout.pack_into(self._memory, at, *fields)
        self.count += 1

    def replace(self, number: int, *fields: object) -> None:
        """Write a record anew."""
        self._layout.pack_into(self._memory, number * self._layout.size, *fields)

    def drop(self) -> None:
        """Remove the last record."""
        self.count -= 1

    def read(self, number: int, start: int, size: int) -> bytes:
        """`size` bytes of a record, from its byte `start`."""
        at = number * self._layout.size + start
        return self._memory[at : at + size]

    def array(self, dtype: np.dtype[np.void]) -> npt.NDArray[np.void]:
        """All records, in place; none can be added while this is there."""
        return np.frombuffer(self._memory, dtype, self.count)
