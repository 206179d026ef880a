"""Trees of files: captured, archived, written back; never through a symbolic link."""
