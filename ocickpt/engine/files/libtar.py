"""libarchive as this room uses it: what libarchive-c does not declare, and its errors as ours.

Loaded on first use, because it takes time and may be missing.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ocickpt import libraries
from ocickpt.errors import IntegrityError, StorageError

END, OK, WARN = 1, 0, -20

_P = ctypes.c_void_p
_POINTER = ctypes.POINTER
_MISSING = (
    ("read_header_position", (_P,), ctypes.c_int64),
    ("entry_xattr_reset", (_P,), ctypes.c_int),
    ("entry_xattr_next", (_P, _POINTER(ctypes.c_char_p), _POINTER(_P), _POINTER(ctypes.c_size_t)), ctypes.c_int),
    ("entry_xattr_add_entry", (_P, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t), None),
    ("entry_copy_hardlink", (_P, ctypes.c_char_p), None),
    ("entry_copy_symlink", (_P, ctypes.c_char_p), None),
)


@functools.cache
def load() -> Any:
    """libarchive-c's `ffi` module with what it lacks; PrerequisiteError where libarchive cannot be loaded."""
    logging.getLogger("libarchive").addHandler(logging.NullHandler())
    try:
        from libarchive import ffi

        for name, arguments, result in _MISSING:
            ffi.ffi(name, arguments, result)
    except Exception as error:  # TypeError without libarchive, AttributeError with one too old
        raise libraries.cannot_load("libarchive", error) from error
    return ffi


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Errors of libarchive as IntegrityErrors about `what`."""
    from libarchive.exception import ArchiveError

    try:
        yield
    except ArchiveError as error:
        raise IntegrityError(f"{what} is damaged or no tar archive: {_words(error)}") from error
    except OSError as error:
        raise StorageError(f"cannot read {what}: {error.strerror}") from error


@contextmanager
def writing(what: str) -> Iterator[None]:
    """Errors of libarchive and the system as StorageErrors about `what`."""
    from libarchive.exception import ArchiveError

    try:
        yield
    except ArchiveError as error:
        raise StorageError(f"cannot write {what}: {_words(error)}", hint=_hint(error.errno)) from error
    except OSError as error:
        raise StorageError(f"cannot write {what}: {error.strerror}", hint=_hint(error.errno)) from error


def _hint(number: int | None) -> str:
    return "the disk is full" if number in (errno.ENOSPC, errno.EDQUOT) else ""


def _words(error: Any) -> str:
    words = str(error.msg or "it does not say why").strip()
    known = error.errno and 0 < error.errno != errno.EILSEQ  # libarchive's word for a format it does not know
    return f"{words} ({os.strerror(error.errno)})" if known else words
