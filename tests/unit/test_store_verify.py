"""No last byte of a wrong blob is given out."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocickpt.errors import IntegrityError, StorageError
from ocickpt.model import Descriptor, digest_of
from ocickpt.store.verify import VerifyingReader, verified

TYPE = "application/x"


class Trickle(io.BytesIO):
    """Gives at most three bytes at a time."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(min(3, size) if size is not None and size >= 0 else 3)


def blob_of(data: bytes) -> Descriptor:
    return Descriptor(TYPE, digest_of(data), len(data))


@given(data=st.binary(max_size=300), steps=st.lists(st.integers(1, 100), min_size=1))
def test_the_right_bytes(data: bytes, steps: list[int]) -> None:
    for source in (io.BytesIO(data), Trickle(data)):
        with verified(source, blob_of(data)) as stream:
            found = b"".join(stream.read(step) for step in steps) + stream.read()
        assert found == data
        assert source.closed


@given(data=st.binary(min_size=1, max_size=300), where=st.integers(0), bit=st.integers(0, 7), step=st.integers(1, 400))
def test_any_flipped_bit(data: bytes, where: int, bit: int, step: int) -> None:
    wrong = bytearray(data)
    wrong[where % len(data)] ^= 1 << bit
    reader = VerifyingReader(io.BytesIO(bytes(wrong)), blob_of(data))
    given_out = b""
    with pytest.raises(IntegrityError):
        while True:
            piece = reader.read(step)
            assert piece
            given_out += piece
    assert len(given_out) < len(data)
    with pytest.raises(IntegrityError):
        reader.read(1)


@given(data=st.binary(max_size=300), size=st.integers(0, 400))
def test_any_other_length(data: bytes, size: int) -> None:
    wrong = (data + bytes(400))[: size if size != len(data) else size + 1]
    with pytest.raises(IntegrityError), verified(io.BytesIO(wrong), blob_of(data)) as stream:
        stream.read()


def test_failing_disks() -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise OSError(5, "Input/output error")

    with pytest.raises(StorageError, match="Input/output error"), verified(Broken(), blob_of(b"x")) as stream:
        stream.read()
