"""The libraries of others, and what it means when one cannot be loaded on this machine: something has to be installed.

Whatever it raises. ImportError is only the usual thing: NumPy raises RuntimeError on a CPU it was not built for,
libarchive-c TypeError or OSError where libarchive is missing. So what counts is not the error but where it
came from: an ``import`` statement of ours that names somebody else's module.
"""

from __future__ import annotations

import sys

from ocickpt.errors import PrerequisiteError

LIBRARIES = {
    "click": "click",
    "libarchive": "libarchive-c",
    "msgspec": "msgspec",
    "numpy": "numpy",
    "rich": "rich",
    "urllib3": "urllib3",
    "zstandard": "zstandard",
}
"""By what is imported, the name on PyPI; Debian's package is called ``python3-`` and that."""

_OURS = __name__.partition(".")[0]


def unusable(error: BaseException) -> PrerequisiteError | None:
    """What to tell when `error` says that a library cannot be loaded; None when it says anything else."""
    library = _imported(error)
    if not library and isinstance(error, ImportError):
        library = _top(error.name or "")  # a library's own, which it looks for when it is used
    return cannot_load(library, error) if library and library != _OURS else None


def cannot_load(library: str, error: BaseException) -> PrerequisiteError:
    """What to tell when importing `library` raised `error`."""
    return PrerequisiteError(
        f"the Python library {library} cannot be loaded on this machine: {reason(error)}", hint=remedy(library, error)
    )


def reason(error: BaseException) -> str:
    """Why, in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def remedy(library: str, error: BaseException) -> str:
    """What to do about a library whose import raised `error`."""
    if library not in LIBRARIES:
        what = "all of the distribution's Python" if library in sys.stdlib_module_names else f"the library {library}"
        return f"install {what}"
    name = LIBRARIES[library]
    missing = isinstance(error, ModuleNotFoundError) and error.name == library
    what = f"install the distribution's package, python3-{name} (Debian)"
    if not missing:
        what += f"; one that pip brought comes first until `pip uninstall {name}`"
    if sys.prefix != sys.base_prefix:
        what += "; a virtual environment sees the distribution's when made with --system-site-packages"
    return what


def _imported(error: BaseException) -> str:
    """The library that the last line of ours in a traceback imports; empty when that line does anything else."""
    import dis  # takes long to load

    last, at = None, error.__traceback__
    while at:
        if _top(at.tb_frame.f_globals.get("__name__", "")) == _OURS:
            last = at
        at = at.tb_next
    if last is None:
        return ""
    for step in dis.get_instructions(last.tb_frame.f_code):
        if step.offset == last.tb_lasti:
            return _top(step.argval) if step.opname == "IMPORT_NAME" else ""
    return ""


def _top(module: str) -> str:
    return module.partition(".")[0]
