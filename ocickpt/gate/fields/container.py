"""What is the container's: the fields of mountpoints, cgroup, netns, netdev, utsns, timens and ipcns images."""

from __future__ import annotations

from typing import Final

from ocickpt.gate.fields.cells import (
    ABSENT,
    CONTENT,
    MATCHED,
    NAME,
    OWN,
    PART,
    Bits,
    Row,
    data,
    each,
    flag,
    free,
    held,
    limited,
    row,
    text,
)
from ocickpt.gate.fields.process import NANOSECONDS

_FORM: Final = "mounts._check_form"
_PLACE: Final = "mounts.check_mounts"
_CGROUP: Final = "cgroups.check_values"
_NETWORK: Final = "tasks._check_network"
_SYSCTL: Final = each(PART, 256)
_SETTINGS: Final = each(free("net.ipv4.conf of a network of the container's own"), 256)
_ONE_DEVICE: Final = held(_NETWORK)
_IPC: Final = free("kernel.sem and the like of the container's own IPC namespace (ipc_namespaces(7))")
_SYSV: Final = free("who owns an object of System V in the container's own IPC namespace")

ROWS: Final[dict[str, Row]] = {
    "mnt_entry": row(
        "mnt.proto:37",
        {
            "fstype root_dev": held(_PLACE),
            "mnt_id parent_mnt_id": held(_PLACE),
            "flags sb_flags": held(_FORM),
            "root mountpoint": text(rule=_FORM),
            "source": text(rule=_PLACE),
            "options": text(rule="mounts._check_options"),
            "shared_id master_id": held("mounts.check_mounts"),
            "with_plugin ext_mount internal_sharing deleted": held(_FORM),
            "fsname": text(rule=_FORM),
            "ext_key": text(rule=_PLACE),
        },
    ),
    "cgroup_entry": row("cgroup.proto:41", {"sets": each(PART, 1 << 16), "controllers": each(PART, 64)}),
    "cg_set_entry": row("cgroup.proto:36", {"id": held("tasks.check_processes"), "ctls": each(PART, 64)}),
    "cg_member_entry": row(
        "cgroup.proto:30",
        {"name": text(NAME, most=255), "path": text(rule=_CGROUP), "cgns_prefix": held(_CGROUP)},
    ),
    "cg_controller_entry": row(
        "cgroup.proto:24",
        {"cnames": each(text(NAME, most=255), 64), "dirs": each(PART, 1 << 16), "is_threaded": flag()},
    ),
    "cgroup_dir_entry": row(
        "cgroup.proto:17",
        {
            "dir_name": text(rule="cgroups._check_directory"),
            "children": each(PART, 1 << 16),
            "properties": each(PART, 256),
            "dir_perms": PART,
        },
    ),
    "cgroup_prop_entry": row(
        "cgroup.proto:11",
        {
            "name": text(most=255, rule="cgroups._check_directory"),
            "value": text(most=1 << 16, rule="cgroups._check_directory"),
            "perms": PART,
        },
    ),
    "cgroup_perms": row(
        "cgroup.proto:5",
        {"mode": held("cgroups._check_directory", Bits(0o177777)), "uid gid": held("cgroups._check_directory")},
    ),
    "netns_entry": row(
        "netdev.proto:64",
        {
            "def_conf all_conf": _SETTINGS,
            "def_conf4 all_conf4 def_conf6 all_conf6 unix_conf ipv4_sysctl": _SYSCTL,
            "nsids": each(PART, 64),
            "ext_key": text(most=255, rule=_NETWORK),
        },
    ),
    "netns_id": row("netdev.proto:53", {"target_ns_id netnsid_value": held(_NETWORK)}),
    "sysctl_entry": row(
        "sysctl.proto:10",
        {"type": free(NAME), "iarg": free(OWN), "sarg": text(OWN, most=255)},
    ),
    "net_device_entry": row(
        "netdev.proto:28",
        {
            "type": _ONE_DEVICE,
            "ifindex mtu flags": free("of the loopback device, in a network of the container's own"),
            "name": text(most=15, rule=_NETWORK),
            "address": data(OWN, 32),
            "conf": _SETTINGS,
            "conf4 conf6": _SYSCTL,
            "tun macvlan sit": ABSENT,
            "peer_ifindex peer_nsid": free("read of other devices; the loopback device's are its own"),
            "master": ABSENT,
        },
    ),
    "tun_link_entry": row("tun.proto:14", {"flags owner group vnethdr sndbuf": ABSENT}),
    "macvlan_link_entry": row("macvlan.proto:5", {"mode flags": ABSENT}),
    "sit_entry": row(
        "sit.proto:7",
        {
            "link ttl tos pmtudisc proto flags encap_type encap_flags encap_sport encap_dport": ABSENT,
            "rd_prefixlen relay_prefixlen": ABSENT,
            "local remote rd_prefix relay_prefix": each(ABSENT, 0),
        },
    ),
    # __NEW_UTS_LEN (linux/utsname.h).
    "utsns_entry": row("utsns.proto:5", {"nodename domainname": text(most=64)}),
    "timens_entry": row("timens.proto:9", {"monotonic boottime": PART}),
    "timespec": row("timens.proto:5", {"tv_sec": free("a clock of the container's own"), "tv_nsec": NANOSECONDS}),
    "ipc_var_entry": row(
        "ipc-var.proto:5",
        {
            "sem_ctls": each(_IPC, 4, 4),
            "msg_ctlmax msg_ctlmnb msg_ctlmni shm_ctlmax shm_ctlall shm_ctlmni": _IPC,
            "auto_msgmni shm_rmid_forced": limited((0, 1)),
            "mq_queues_max mq_msg_max mq_msgsize_max mq_msg_default mq_msgsize_default": _IPC,
            "msg_next_id sem_next_id shm_next_id": _IPC,
        },
    ),
    "ipc_desc_entry": row(
        "ipc-desc.proto:5",
        {
            "key id": free(NAME),
            "uid gid cuid cgid": _SYSV,
            # Permissions, SHM_DEST, SHM_LOCKED, SHM_HUGETLB, SHM_NORESERVE (linux/shm.h).
            "mode": limited(Bits(0o17777)),
        },
    ),
    "ipc_shm_entry": row(
        "ipc-shm.proto:7",
        {
            "desc": PART,
            "size": limited(range(1 << 63), why=CONTENT),
            "in_pagemaps": flag(MATCHED),
            "hugetlb_flag": limited(Bits(0xFC001000)),
        },
    ),
    "ipc_msg_entry": row(
        "ipc-msg.proto:12",
        {"desc": PART, "qbytes": limited(range(1 << 31)), "qnum": limited(range(1 << 20), why=CONTENT)},
    ),
    # MSGMAX (criu/ipc_ns.c).
    "ipc_msg": row("ipc-msg.proto:7", {"mtype": free(CONTENT), "msize": limited(range(8193), why=CONTENT)}),
    "ipc_sem_entry": row("ipc-sem.proto:7", {"desc": PART, "nsems": limited(range(1 << 16), why=CONTENT)}),
}
