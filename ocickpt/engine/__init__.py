"""podman, runc and crun, CRIU, archives of other engines, facts about this host. Knows no stores and no packs."""
