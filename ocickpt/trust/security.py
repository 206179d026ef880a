"""The security settings of a container, as its OCI runtime specification states them.

Source: runtime-spec, config.md and config-linux.md.
"""

from __future__ import annotations

import json
from typing import Any

from ocickpt.description import Capabilities, IdMap, Seccomp, Security, SELinux, UserNamespace
from ocickpt.errors import IntegrityError
from ocickpt.model import digest_of


def summary(spec: dict[str, Any], images_lsm: str = "unknown", labels: dict[str, str] | None = None) -> Security:
    """What `spec` (a config.json or spec.dump) confines a container with.

    `labels` are the engine's own SELinux labels ("process", "mount"), which podman keeps beside the
    specification; `images_lsm` is the module whose labels the CRIU images carry.
    """
    labels = labels or {}
    process, linux = _object(spec, "process"), _object(spec, "linux")
    capabilities, seccomp = _object(process, "capabilities"), linux.get("seccomp")
    return Security(
        selinux=SELinux(
            process=labels.get("process") or _text(process, "selinuxLabel"),
            mount=labels.get("mount") or _text(linux, "mountLabel"),
        ),
        apparmor=_text(process, "apparmorProfile"),
        seccomp=Seccomp("filter", _profile_digest(seccomp)) if seccomp else Seccomp("none", ""),
        capabilities=Capabilities(
            **{
                name: _names(capabilities, name)
                for name in ("bounding", "effective", "permitted", "inheritable", "ambient")
            }
        ),
        no_new_privileges=process.get("noNewPrivileges") is True,
        user_namespace=UserNamespace(_maps(linux, "uidMappings"), _maps(linux, "gidMappings")),
        images_lsm=images_lsm,
    )


def _profile_digest(profile: Any) -> str:
    return digest_of(json.dumps(profile, sort_keys=True, separators=(",", ":")).encode())


def _object(value: dict[str, Any], name: str) -> dict[str, Any]:
    found = value.get(name) or {}
    if not isinstance(found, dict):
        raise IntegrityError(f"the OCI specification's {name} is not an object")
    return found


def _text(value: dict[str, Any], name: str) -> str:
    found = value.get(name) or ""
    if not isinstance(found, str):
        raise IntegrityError(f"the OCI specification's {name} is not a string")
    return found


def _names(value: dict[str, Any], name: str) -> tuple[str, ...]:
    found = value.get(name) or []
    if not isinstance(found, list):
        raise IntegrityError(f"the OCI specification's {name} capabilities are not a list")
    return tuple(str(each) for each in found)


def _maps(linux: dict[str, Any], name: str) -> tuple[IdMap, ...]:
    try:
        return tuple(IdMap(int(m["containerID"]), int(m["hostID"]), int(m["size"])) for m in linux.get(name) or ())
    except (TypeError, KeyError, ValueError) as error:
        raise IntegrityError(f"the OCI specification's {name} are not id mappings") from error
