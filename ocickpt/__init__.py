"""ocickpt: running containers as OCI artifacts, and back.

    import ocickpt

    published = ocickpt.checkpoint("web", "registry.example.com/ck/web:1")
    restored = ocickpt.restore(published.reference, name="web2")

Each verb of the command is a function here, with the command's options as keywords; what it gives back is a frozen
dataclass, and what goes wrong one of `ocickpt.errors`. Nothing else is loaded before a function is called.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocickpt.api import checkpoint as checkpoint
    from ocickpt.api import checkpoints as checkpoints
    from ocickpt.api import doctor as doctor
    from ocickpt.api import inspect as inspect
    from ocickpt.api import prune as prune
    from ocickpt.api import pull as pull
    from ocickpt.api import push as push
    from ocickpt.api import remove as remove
    from ocickpt.api import restore as restore
    from ocickpt.api import setup as setup
    from ocickpt.api import setup_hooks as setup_hooks
    from ocickpt.api import status as status
    from ocickpt.hostsetup.doctor import Check as Check
    from ocickpt.lazy.following import Following as Following
    from ocickpt.library.catalog import Inspection as Inspection
    from ocickpt.library.catalog import Listed as Listed
    from ocickpt.library.catalog import Removed as Removed
    from ocickpt.library.prune import Pruned as Pruned
    from ocickpt.library.pull import Pulled as Pulled
    from ocickpt.model import Progress as Progress
    from ocickpt.model import Published as Published
    from ocickpt.model import Stage as Stage
    from ocickpt.names import VERSION as __version__  # noqa: N811
    from ocickpt.restoration.options import Restored as Restored

_HOME = {
    **dict.fromkeys(
        (
            *("checkpoint", "checkpoints", "doctor", "inspect", "pull", "push", "remove", "restore", "setup"),
            *("prune", "setup_hooks", "status"),
        ),
        "ocickpt.api",
    ),
    **dict.fromkeys(("Progress", "Published", "Stage"), "ocickpt.model"),
    **dict.fromkeys(("Inspection", "Listed", "Removed"), "ocickpt.library.catalog"),
    "Pruned": "ocickpt.library.prune",
    "Pulled": "ocickpt.library.pull",
    "Restored": "ocickpt.restoration.options",
    "Following": "ocickpt.lazy.following",
    "Check": "ocickpt.hostsetup.doctor",
}

__all__ = ["__version__", *_HOME]  # noqa: PLE0604 - they are strings


def __getattr__(name: str) -> object:
    if name == "__version__":
        from ocickpt.names import VERSION

        return VERSION
    if name not in _HOME:
        raise AttributeError(f"module 'ocickpt' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
