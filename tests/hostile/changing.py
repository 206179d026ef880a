"""What changes the images and files of an archive that podman wrote: the tools of `cases`.

They need pycriu, which a host of the lab has.
"""

from __future__ import annotations

import base64
import io
import json
import struct
import tarfile
from collections.abc import Callable
from copy import deepcopy
from typing import Any

Members = dict[str, bytes]
Json = dict[str, Any]
Change = Callable[[Members], None]

MARK = "/srv/share/owned"
"""What a case would make on the host if it could."""
FIRST = "checkpoint/core-1.img"
ALLOW = struct.pack("<HBBI", 0x06, 0, 0, 0x7FFF0000)
"""A seccomp filter that allows everything."""
TSYNC, SPEC_ALLOW = 1, 4


def load(members: Members, name: str) -> Json:
    from pycriu import images

    found: Json = images.load(io.BytesIO(members[name]))
    return found


def save(members: Members, name: str, image: Json) -> None:
    from pycriu import images

    out = io.BytesIO()
    images.dump(image, out)
    members[name] = out.getvalue()


def named(members: Members, prefix: str) -> str:
    """The first image whose name begins like that."""
    return next(name for name in sorted(members) if name.startswith(f"checkpoint/{prefix}"))


def in_memory(members: Members, place: str = "/dev") -> str:
    """The image of what is in the tmpfs mounted there."""
    mounts = load(members, named(members, "mountpoints-"))["entries"]
    return next(f"checkpoint/tmpfs-dev-{each['root_dev']}.tar.gz.img" for each in mounts if each["mountpoint"] == place)


def in_image(prefix: str, change: Callable[[Json], None]) -> Change:
    """Change the first message of the first such image."""

    def changed(members: Members) -> None:
        name = named(members, prefix)
        image = load(members, name)
        change(image["entries"][0])
        save(members, name, image)

    return changed


def in_all(prefix: str, change: Callable[[list[Json]], None]) -> Change:
    """Change the messages of the first such image."""

    def changed(members: Members) -> None:
        name = named(members, prefix)
        image = load(members, name)
        change(image["entries"])
        save(members, name, image)

    return changed


def in_json(name: str, change: Callable[[Json], None]) -> Change:
    """Change ``config.dump`` or ``spec.dump``."""

    def changed(members: Members) -> None:
        value = json.loads(members[name])
        change(value)
        members[name] = json.dumps(value).encode()

    return changed


def both(*changes: Change) -> Change:
    """One after the other."""

    def changed(members: Members) -> None:
        for change in changes:
            change(members)

    return changed


def put(**values: Any) -> Callable[[Json], None]:
    """Set members of an object."""
    return lambda entry: entry.update(values)


def creds(**values: Any) -> Change:
    return in_image("core-1", lambda core: core["thread_core"]["creds"].update(values))


def thread(**values: Any) -> Change:
    return in_image("core-1", lambda core: core["thread_core"].update(values))


def process(**values: Any) -> Change:
    return in_image("core-1", lambda core: core["tc"].update(values))


def image(name: str, magic: str, *entries: Json) -> Change:
    """Add an image of these messages."""
    # pycriu takes out of them what it writes.
    return lambda members: save(members, f"checkpoint/{name}.img", {"magic": magic, "entries": deepcopy(list(entries))})


def raw(name: str, data: bytes = b"x") -> Change:
    return lambda members: members.update({f"checkpoint/{name}": data})


def namespace_of_criu(field: str) -> Change:
    """CRIU's own namespace has the id of the container's: none is made, and the task stays in CRIU's."""

    def changed(members: Members) -> None:
        own = load(members, "checkpoint/ids-1.img")["entries"][0][field]
        in_image("inventory", lambda entry: entry["root_ids"].update({field: own}))(members)

    return changed


def without(prefix: str, field: str) -> Change:
    def remove(entry: Json) -> None:
        (entry.get("root_ids") or entry).pop(field)

    return in_image(prefix, remove)


def old_credentials(members: Members) -> None:
    core = load(members, FIRST)
    old = core["entries"][0]["thread_core"].pop("creds")
    for name in ("cap_inh", "cap_prm", "cap_eff", "cap_bnd"):
        old[name] = [0xFFFFFFFF, 0x1FF]
    save(members, FIRST, core)
    save(members, "checkpoint/creds-1.img", {"magic": "CREDS", "entries": [old]})


def second_network(members: Members) -> None:
    in_image("ids-", lambda entry: None)(members)
    others = [name for name in sorted(members) if name.startswith("checkpoint/ids-")]
    found = load(members, others[-1])
    found["entries"][0]["net_ns_id"] = 77
    save(members, others[-1], found)


def filtered(change: Callable[[bytes], bytes], position: int = 0) -> Change:
    """Change the code of a filter; every one of them when `position` is -1."""

    def changed(entry: Json) -> None:
        for number, each in enumerate(entry["seccomp_filters"]):
            if position in (-1, number):
                each["filter"] = base64.b64encode(change(base64.b64decode(each["filter"]))).decode()

    return in_image("seccomp", changed)


def chains(*of_threads: Callable[[bytes], list[tuple[bytes, int]]]) -> Change:
    """Each thread of the first process gets a chain, of code and flags, made of the container's filter; oldest first.

    An empty one is no filter.
    """

    def changed(members: Members) -> None:
        entry = load(members, "checkpoint/seccomp.img")
        own = base64.b64decode(entry["entries"][0]["seccomp_filters"][0]["filter"])
        filters: list[Json] = []
        threads = load(members, "checkpoint/pstree.img")["entries"][0]["threads"]
        assert len(threads) == len(of_threads)
        for thread, chain in zip(threads, of_threads, strict=True):
            found, first = chain(own), len(filters)
            core = load(members, f"checkpoint/core-{thread}.img")
            mode = {"seccomp_mode": "filter", "seccomp_filter": first} if found else {"seccomp_mode": "disabled"}
            core["entries"][0]["thread_core"].pop("seccomp_filter", None)
            core["entries"][0]["thread_core"].update(mode)
            save(members, f"checkpoint/core-{thread}.img", core)
            for number, (code, flags) in enumerate(found, 1):
                more = {"prev": first + number} if number < len(found) else {}
                filters.append({"filter": base64.b64encode(code).decode(), "flags": flags} | more)
        entry["entries"][0] = {"seccomp_filters": filters} if filters else {}
        save(members, "checkpoint/seccomp.img", entry)

    return changed


def no_filters(members: Members) -> None:
    """Nor an image of them."""
    chains(lambda _: [], lambda _: [])(members)
    del members["checkpoint/seccomp.img"]


def more_permissive(change: Callable[[Json], None]) -> Change:
    """Filters compiled of a profile that allows more than the container's."""

    def changed(members: Members) -> None:
        from ocickpt import oci, structs
        from ocickpt.gate.profile import compiled

        profile = json.loads(members["spec.dump"])["linux"]["seccomp"]
        change(profile)
        code = next(compiled(structs.read(profile, oci.Seccomp, "profile")))
        filtered(lambda _: code, -1)(members)

    return changed


def allowing(*names: str) -> Callable[[Json], None]:
    def changed(profile: Json) -> None:
        for rule in profile["syscalls"]:
            rule["names"] = [name for name in rule["names"] if name not in names]
        profile["syscalls"] = [rule for rule in profile["syscalls"] if rule["names"]]
        profile["syscalls"].append({"names": list(names), "action": "SCMP_ACT_ALLOW"})

    return changed


def mounts(change: Callable[[list[Json]], None]) -> Change:
    return in_all("mountpoints-", change)


def mount_at(path: str, **values: Any) -> Change:
    def changed(found: list[Json]) -> None:
        (entry,) = (each for each in found if each["mountpoint"] == path)
        entry.update(values)

    return mounts(changed)


def not_mounted(path: str) -> Change:
    def changed(found: list[Json]) -> None:
        found[:] = [each for each in found if each["mountpoint"] != path]

    return mounts(changed)


def without_field(path: str, field: str) -> Callable[[list[Json]], None]:
    def changed(found: list[Json]) -> None:
        next(each for each in found if each["mountpoint"] == path).pop(field)

    return changed


def writable(path: str) -> Change:
    def changed(found: list[Json]) -> None:
        (entry,) = (each for each in found if each["mountpoint"] == path)
        entry["flags"] &= ~1
        entry["sb_flags"] = 0

    return mounts(changed)


def mounted(path: str, like: str, **values: Any) -> Change:
    """One more mount, like another one."""

    def changed(found: list[Json]) -> None:
        entry = dict(next(each for each in found if each["mountpoint"] == like))
        root = next(each for each in found if each["mountpoint"] == "/")
        entry |= {"mountpoint": path, "mnt_id": 9999, "parent_mnt_id": root["mnt_id"]} | values
        found.insert(0, entry)

    return mounts(changed)


def of_another(path: str, other: str, *fields: str) -> Change:
    """A mount that is of the filesystem of another one."""

    def changed(found: list[Json]) -> None:
        by_path = {each["mountpoint"]: each for each in found}
        by_path[path].update({field: by_path[other][field] for field in fields})

    return mounts(changed)


def behind_a_symlink(where: str, kind: str) -> Change:
    """A deleted file below a symlink to a directory of the host: in the root filesystem, in /dev/shm, or in memory."""

    def changed(members: Members) -> None:
        found = load(members, named(members, "mountpoints-"))["entries"]
        mount = next(each["mnt_id"] for each in found if each["mountpoint"] == where)
        name = f"{where.rstrip('/')}/way/{'owned' if kind == 'GHOST' else 'link_remap.7'}"
        file("REG", "reg", flags=0, pos=0, name=name, mnt_id=mount, mode=0o100644)(members)
        entry = {"orig_id": 990, "remap_id": 5 if kind == "GHOST" else 990, "remap_type": kind}
        image("remap-fpath", "REMAP_FPATH", entry)(members)
        if kind == "GHOST":
            image("ghost-file-5", "GHOST_FILE", {"uid": 0, "gid": 0, "mode": 0o100644, "extra": ""})(members)
        out, brought = io.BytesIO(), {"/": "rootfs-diff.tar", "/dev/shm": "devshm-checkpoint.tar"}.get(where)
        link = info("way" if where == "/" else "./way", tarfile.SYMTYPE, linkname=str(MARK.rpartition("/")[0]))
        with tarfile.open(fileobj=out, mode="w") as tar:
            tar.addfile(link)
        members[brought or in_memory(members, where)] = out.getvalue() if brought else tree(link)

    return changed


def file(kind: str, field: str, **values: Any) -> Change:
    """One more entry of files.img, which descriptor 9 of the first process is."""
    owner = {"uid": 0, "euid": 0, "signum": 0, "pid_type": 0, "pid": 0}

    def changed(members: Members) -> None:
        own = load(members, "checkpoint/ids-1.img")["entries"][0]
        named_ids = {key: own[key] for key in ("net_ns_id", "mnt_ns_id")}
        filled = {
            key: named_ids.get(value, value) if isinstance(value, str) else value for key, value in values.items()
        }
        if field != "nsf":
            filled["fown"] = owner
        entry = {"type": kind, "id": 990, field: {"id": 990, **filled}}
        in_all("files", lambda found: found.append(entry))(members)
        in_all("fdinfo-2", lambda found: found.append({"id": 990, "flags": 0, "type": kind, "fd": 9}))(members)

    return changed


def regular(**values: Any) -> Change:
    def changed(found: list[Json]) -> None:
        next(each["reg"] for each in found if each["type"] == "REG").update(values)

    return in_all("files", changed)


def host_network(members: Members) -> None:
    root = load(members, "checkpoint/inventory.img")["entries"][0]["root_ids"]["net_ns_id"]
    file("NS", "nsf", ns_id=root, ns_cflag=0x40000000, flags=0)(members)


def info(name: str, kind: bytes = tarfile.REGTYPE, **values: Any) -> tarfile.TarInfo:
    """A member of a tar."""
    member = tarfile.TarInfo(name)
    member.type = kind
    for key, value in values.items():
        setattr(member, key, value)
    return member


def tree(*entries: tarfile.TarInfo, root: bool = True, form: int = tarfile.GNU_FORMAT) -> bytes:
    """A tar as CRIU has it of a filesystem in memory."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", format=form) as tar:
        for member in (*([info(".", tarfile.DIRTYPE, mode=0o755)] if root else []), *entries):
            tar.addfile(member)
    return out.getvalue()


def node(name: str, kind: bytes, major: int, minor: int) -> tarfile.TarInfo:
    return info(name, kind, devmajor=major, devminor=minor, mode=0o666)


def tmpfs(*entries: tarfile.TarInfo, root: bool = True, form: int = tarfile.GNU_FORMAT) -> Change:
    return lambda members: members.update({in_memory(members): tree(*entries, root=root, form=form)})


def rootfs(members: Members) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        info = tarfile.TarInfo("disk")
        info.type, info.devmajor, info.devminor, info.mode = tarfile.BLKTYPE, 8, 0, 0o666
        tar.addfile(info)
    members["rootfs-diff.tar"] = out.getvalue()


def ghost(members: Members) -> None:
    image("ghost-file-1", "GHOST_FILE", {"uid": 0, "gid": 0, "mode": 0o060666, "rdev": 8 << 8, "extra": ""})(members)


def unknown_field(name: str) -> Change:
    """A field that no version of CRIU knows by now: number 1000, the varint 1."""

    def changed(members: Members) -> None:
        data = members[name]
        head = 4 if name.endswith("inventory.img") else 8
        size = int.from_bytes(data[head : head + 4], "little")
        more = bytes([0xC0, 0x3E, 0x01])
        message = data[head + 4 : head + 4 + size] + more
        members[name] = data[:head] + struct.pack("<I", len(message)) + message + data[head + 4 + size :]

    return changed


def padded(name: str, change: Callable[[Json], None]) -> Change:
    """So large that it is not in the boot pack."""

    def changed(value: Json) -> None:
        change(value)
        if "process" in value:
            value["process"].setdefault("env", []).append("PADDING=" + "x" * (600 << 10))
        else:
            value["labels"] = (value.get("labels") or {}) | {"padding": "x" * (600 << 10)}

    return in_json(name, changed)


def in_profile(change: Callable[[Json], None]) -> Change:
    return in_json("spec.dump", lambda spec: change(spec["linux"]["seccomp"]))


def unset(name: str) -> Change:
    """Without a setting of the specification's ``linux``."""
    return in_json("spec.dump", lambda spec: spec["linux"].pop(name))


def in_capabilities(change: Callable[[list[str]], None]) -> Change:
    """Change each set of capabilities in the specification."""

    def changed(spec: Json) -> None:
        for held in spec["process"]["capabilities"].values():
            change(held)

    return in_json("spec.dump", changed)


def capabilities(*names: str) -> Change:
    return in_capabilities(lambda held: held.extend(names))


def any_personality(profile: Json) -> None:
    for rule in profile["syscalls"]:
        if "personality" in rule["names"]:
            rule["args"][0] |= {"value": 0, "op": "SCMP_CMP_GE"}


def odd_capabilities(spec: Json) -> None:
    spec["process"]["capabilities"]["bounding"] = 5


def capabilities_without(name: str) -> Change:
    def without_it(held: list[str]) -> None:
        held[:] = [each for each in held if each != f"CAP_{name}"]

    def dropped(members: Members) -> None:
        for path in [each for each in members if each.startswith("checkpoint/core-")]:
            core = load(members, path)
            held = core["entries"][0]["thread_core"]["creds"]
            for each in ("cap_prm", "cap_eff", "cap_bnd"):
                held[each][0] &= ~(1 << 8)
            save(members, path, core)

    return both(in_capabilities(without_it), dropped)


def more_files(members: Members) -> None:
    core = load(members, FIRST)
    core["entries"][0]["tc"]["rlimits"]["rlimits"][7] = {"cur": 1 << 20, "max": 1 << 20}
    save(members, FIRST, core)


def cgroup_property(name: str, directory: str = "/x") -> Callable[[Json], None]:
    entry = {"dir_name": directory, "properties": [{"name": name, "value": "x"}]}
    return lambda cgroup: cgroup["controllers"][0].update(dirs=[entry])


def cgroup_path(path: str) -> Callable[[Json], None]:
    return lambda cgroup: cgroup["sets"][0]["ctls"][0].update(path=path)
