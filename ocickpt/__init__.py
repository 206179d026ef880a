"""ocickpt: running containers as OCI artifacts, and back."""

__version__ = "0.1.0"
