"""The OCI runtimes: their command lines, how they are called, and what each does in its own way."""
