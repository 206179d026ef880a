"""What a host does for a container that asks for it, and for none that does not: it listens, starts, joins, updates.

A healthcheck is not among it: what it runs it runs in the container, where an image may name one too. A `-p` of the
caller's own takes the place of what the checkpoint would publish (`imported.Imported.publishing`).

Source: podman libpod/container_config.go and what reads it: networking_linux.go, container_log.go,
pkg/autoupdate/autoupdate.go, contrib/systemd/system/podman-restart.service.in.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator
from typing import Final

from ocickpt.asked import Asked
from ocickpt.engine.podman import defaults
from ocickpt.engine.podman.config import Config, Network, Port
from ocickpt.errors import IntegrityError

_LAST: Final = 65535
_PROTOCOLS: Final = ("tcp", "udp", "sctp")
_NETWORK: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,252}")
_WITHOUT_NAMES: Final = "podman"
_SHORT_ID: Final = re.compile(r"[0-9a-f]{12}")
_NEVER: Final = ("", "no")
_RESTART: Final = ("always", "on-failure", "unless-stopped")
_ENABLED: Final = ("", "enabled")
_LOGS: Final = ("", "journald", "json-file", "k8s-file", "none")
"""Log drivers whose log is podman's own; others hand the caller's terminal and files to the container."""
_LABELS: Final = {
    "PODMAN_SYSTEMD_UNIT": "podman auto-update restarts this unit; podman logs shows its log",
    "io.containers.autoupdate": "podman auto-update pulls another image",
    "com.docker.compose.": "docker compose takes the container for one of its own",
    "io.podman.compose.": "podman-compose takes the container for one of its own",
    "com.centurylinklabs.watchtower": "watchtower updates containers, and runs commands for it",
    "traefik.": "traefik sends it requests to a host and path",
    "caddy": "caddy sends it requests to a host and path",
    "ofelia.": "ofelia runs commands at given times",
}
"""What the labels begin with that programs with power over a host act on, and how. Others are notes to people."""


def services(config: Config, hostname: str) -> list[Asked]:
    """Each of them, for a container with that `hostname`. IntegrityError for what podman never writes."""
    return [
        *_ports(config.new_port_mappings),
        *_networks(config.new_networks, hostname),
        *_restart(config),
        *_labels(config.labels),
        *_host(config),
    ]


def own_aliases(network: Network) -> Network:
    """Without the IDs of containers among its names there, one of which podman gives every container."""
    return Network(
        network.static_ips,
        tuple(each for each in network.aliases if not _SHORT_ID.fullmatch(each)),
        network.static_mac,
        network.interface_name,
    )


def _ports(published: Iterable[Port]) -> Iterator[Asked]:
    """As `podman run --publish` has them, but for the container's own port."""
    for port in published:
        last, inner = port.host_port + max(port.range, 1) - 1, port.container_port + max(port.range, 1) - 1
        protocols = port.protocol.split(",") if port.protocol else ["tcp"]
        if not 0 < port.host_port <= last <= _LAST or not 0 < port.container_port <= inner <= _LAST:
            raise IntegrityError("the container publishes a port that cannot be")
        if not set(protocols) <= set(_PROTOCOLS):
            raise IntegrityError(f"the container publishes a port of {port.protocol[:100]!r}, which is no protocol")
        numbers = str(last) if last == port.host_port else f"{port.host_port}-{last}"
        address = _address(port.host_ip)
        for protocol in protocols:
            shown = "" if protocol == "tcp" else f"/{protocol}"
            where = f"{address}{numbers}{shown}"
            yield Asked("port", where, f"the port {where} of the host")


def _address(text: str) -> str:
    if not text:
        return ""
    try:
        found = ipaddress.ip_address(text)
    except ValueError as error:
        raise IntegrityError(f"the container publishes a port at {text[:100]!r}, which is no address") from error
    return f"[{found}]:" if found.version == 6 else f"{found}:"


def _networks(joined: dict[str, Network], hostname: str) -> Iterator[Asked]:
    """As `podman run --network` has them. By its names there others find it; a hostname that is none of podman's
    making is one (getExtraNetworkAliases, libpod). In podman's own network there are no names (no DNS)."""
    usual = defaults.network()
    own = {hostname} - {""} if not _SHORT_ID.fullmatch(hostname) else set()
    for name, network in sorted(joined.items()):
        if not _NETWORK.fullmatch(name):
            raise IntegrityError("the container is in a network whose name podman does not give")
        aliases = sorted({*network.aliases} | own) if name != _WITHOUT_NAMES else []
        if name != usual or aliases:
            called = f", where it is called {', '.join(aliases)}" if aliases else ""
            options = f":{','.join(f'alias={each}' for each in aliases)}" if aliases else ""
            yield Asked("network", f"{name}{options}", f"the network {name} of the host{called}")


def _restart(config: Config) -> Iterator[Asked]:
    policy = config.restart_policy
    if policy in _NEVER:
        return
    if policy not in _RESTART:
        raise IntegrityError(f"{policy[:100]!r} is not a restart policy")
    times = f":{config.restart_retries}" if policy == "on-failure" and config.restart_retries else ""
    yield Asked("restart", f"{policy}{times}", "to be started again when it ends and when the host boots")


def _labels(labels: dict[str, str]) -> Iterator[Asked]:
    for name, value in sorted(labels.items()):
        for prefix, what in _LABELS.items():
            if name.startswith(prefix):
                yield Asked("label", f"{name}={value}", f"a label that is acted on: {what}")


def _host(config: Config) -> Iterator[Asked]:
    if config.cgroup_parent:
        yield Asked("cgroup-parent", config.cgroup_parent, f"a place in the cgroup {config.cgroup_parent} of the host")
    mode = "disabled" if config.no_cgroups else config.cgroups_mode
    if mode not in _ENABLED:
        yield Asked("cgroups", mode, f"another cgroup than one of its own ({mode})")
    if config.log_driver not in _LOGS:
        yield Asked("log-driver", config.log_driver, "the terminal or the files of who starts it")
    for user in config.host_users:
        yield Asked("hostuser", user, f"the entry of {user} in the /etc/passwd of the host")
    if config.stop_timeout > defaults.stop_timeout():
        yield Asked("stop-timeout", str(config.stop_timeout), f"{config.stop_timeout} s to end when it is stopped")
