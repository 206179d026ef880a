"""Other tools' archives become artifacts, and artifacts such archives; podman's command is unknown here."""
