"""Which token servers may have a registry's password: its own address, the well-known, the configured.

A registry names its token server itself (`realm`), and whoever can make it say so, or answer for it, could name theirs.
So the password goes where the user said: `podman login HOST[:PORT]` is for that host and port. Knows no HTTP.
"""

from __future__ import annotations

from typing import Final

from ocickpt import config
from ocickpt.store.addresses import PORTS, Origin

WELL_KNOWN: Final = {
    # distribution, docs/content/spec/auth/token.md
    "docker.io": "auth.docker.io",
    "index.docker.io": "auth.docker.io",
    "registry-1.docker.io": "auth.docker.io",
    # GitLab, doc/administration/packages/container_registry.md: GitLab itself is the token server (/jwt/auth).
    "registry.gitlab.com": "gitlab.com",
    # Red Hat, https://access.redhat.com/articles/3560571
    "registry.redhat.io": "sso.redhat.com",
}
"""By the registry's name, as users write it. Others have theirs at their own address (ghcr.io, quay.io, gcr.io,
public.ecr.aws, *.azurecr.io), or none."""


def may_have_password(registry: str, own: Origin, server: Origin) -> bool:
    """Whether the token server at `server` may have the password of `registry`, which is at `own`.

    Another port is another server, as for browsers: anybody on that host may listen there. PrerequisiteError for a
    configuration that is not valid.
    """
    if server == own:
        return True
    scheme, host, port = server
    if scheme == "https" and port == PORTS["https"] and WELL_KNOWN.get(registry.lower()) == host:
        return True
    configured = config.load().token_servers.get(registry.lower(), "")
    return configured in ((f"{host}:{port}", host) if port == PORTS[scheme] else (f"{host}:{port}",))
