"""Sockets: the fields of files.img that are of them, of sk-queues, tcp-stream, and of pipes' content."""

from __future__ import annotations

from typing import Final

from ocickpt.gate.fields.cells import (
    CONTENT,
    NAME,
    OWN,
    PART,
    Bits,
    Cell,
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
from ocickpt.gate.fields.files import NAMES
from ocickpt.gate.reach import MOST_BUFFER

_BUFFER: Final = limited(range(MOST_BUFFER + 1), takes=("NET_ADMIN",))
"""CRIU sets it with SO_SNDBUFFORCE."""
_SECONDS: Final = limited(range(1 << 63))
_INTERNET: Final = held("files._internet")
_LOCAL: Final = held("files._local")
_PACKET: Final = held("files._file")
_KEEP: Final = limited(range(1 << 15))
_PORT: Final = range(1 << 16)
_BYTES: Final = 1 << 28
NETWORK: Final = ("NET_ADMIN", "NET_RAW")

ROWS: Final[dict[str, Row]] = {
    "inet_sk_entry": row(
        "sk-inet.proto:27",
        {
            **NAMES,
            "ino": free(NAME),
            "family type proto": _INTERNET,
            "state": limited(range(13)),
            "src_port": held("files._internet", _PORT),
            "dst_port": limited(_PORT),
            "backlog": limited(range(1 << 32)),
            "src_addr dst_addr": each(free("an address, which the kernel holds against the container's network"), 4),
            "opts ip_opts tcp_opts": PART,
            "v6only": flag(),
            "ifname": text(most=15),
            "ns_id": _INTERNET,
            "shutdown": free(OWN),
        },
    ),
    "ip_opts_entry": row(
        "sk-inet.proto:17",
        {
            "freebind pktinfo": flag(),
            "raw": PART,
            "tos ttl": limited(range(256)),
        },
    ),
    "ip_opts_raw_entry": row(
        "sk-inet.proto:10",
        {
            "hdrincl nodefrag checksum": limited((False,), takes=("NET_RAW",)),
            "icmpv_filter": each(limited((), takes=("NET_RAW",)), 8),
        },
    ),
    "tcp_opts_entry": row("tcp-stream.proto:7", {"cork nodelay": flag(), "keepcnt keepidle keepintvl": _KEEP}),
    "sk_opts_entry": row(
        "sk-opts.proto:5",
        {
            "so_sndbuf so_rcvbuf": _BUFFER,
            "so_snd_tmo_sec so_rcv_tmo_sec": _SECONDS,
            "so_snd_tmo_usec so_rcv_tmo_usec": limited(range(1_000_000)),
            "reuseaddr so_passcred so_passsec so_dontroute so_no_check": flag(),
            "so_reuseport so_broadcast so_keepalive": flag(),
            "so_priority": limited(range(7), takes=NETWORK),
            "so_rcvlowat": limited(range(1 << 31)),
            "so_mark": limited((0,), takes=NETWORK),
            "so_bound_dev": text(most=15),
            # BPF_MAXINSNS; the kernel verifies them, and everybody may filter what comes in.
            "so_filter": each(free(OWN), 4096),
            "tcp_keepcnt tcp_keepidle tcp_keepintvl": _KEEP,
            "so_oobinline": limited((0, 1)),
            "so_linger": limited(range(1 << 31)),
            "so_buf_lock": limited(Bits(3)),
        },
    ),
    "unix_sk_entry": row(
        "sk-unix.proto:15",
        {
            **NAMES,
            "ino peer": free(NAME),
            "type": limited((1, 2, 5)),
            "state": limited(range(13)),
            "uflags": held("files._local", Bits(0xFF)),
            "backlog": limited(range(1 << 32)),
            "opts file_perms": PART,
            # sun_path (linux/un.h).
            "name": Cell("held", data("", 109).values, rule="files._local"),
            "name_dir": text(rule="files._local"),
            "deleted": flag(),
            "shutdown": free(OWN),
            "ns_id mnt_id": _LOCAL,
        },
    ),
    "file_perms_entry": row("sk-unix.proto:9", {"mode": held("files._local", Bits(0o140777)), "uid gid": _LOCAL}),
    "packet_sock_entry": row(
        "packet-sock.proto:26",
        {
            **NAMES,
            "type protocol ifindex version reserve timestamp copy_thresh fanout ns_id": _PACKET,
            "aux_data orig_dev vnet_hdr loss": _PACKET,
            "opts rx_ring tx_ring": PART,
            "mclist": each(PART, 64),
        },
    ),
    "packet_mclist": row(
        "packet-sock.proto:9",
        {"index type": _PACKET, "addr": Cell("held", data("", 32).values, rule="files._file")},
    ),
    "packet_ring": row(
        "packet-sock.proto:15",
        {"block_size block_nr frame_size frame_nr retire_tmo sizeof_priv features": _PACKET},
    ),
    "netlink_sk_entry": row(
        "sk-netlink.proto:9",
        {
            **NAMES,
            "ino": free(NAME),
            "protocol": held("files._file", range(32)),
            "state": limited(range(13)),
            "portid dst_portid": free(OWN),
            "groups": each(held("files._file"), 32),
            "dst_group": free("where the socket sends to: the kernel asks for capabilities when it does"),
            "opts": PART,
            "ns_id": held("files._file"),
        },
    ),
    "tunfile_entry": row(
        "tun.proto:7",
        {"id": held("files._file"), "netdev": text(most=15, rule="files._file"), "detached ns_id": held("files._file")},
    ),
    "sk_packet_entry": row(
        "sk-packet.proto:10",
        {"id_for": free(NAME), "length": limited(range(_BYTES), why=CONTENT), "scm": each(PART, 1)},
    ),
    "scm_entry": row(
        "sk-packet.proto:5",
        {
            # SCM_RIGHTS, of at most SCM_MAX_FD files (net/scm.h).
            "type": limited((1,)),
            "rights": each(free(NAME), 253),
        },
    ),
    "tcp_stream_entry": row(
        "tcp-stream.proto:15",
        {
            "inq_len outq_len unsq_len": limited(range(_BYTES), why=CONTENT),
            "inq_seq outq_seq": free("the state of a connection, whose other end has its own"),
            "opt_mask": limited(Bits(0xFF)),
            "snd_wscale rcv_wscale": limited(range(15)),
            "mss_clamp": limited(range(1 << 16)),
            "timestamp snd_wl1 snd_wnd max_window rcv_wnd rcv_wup": free("the state of a connection"),
            "cork nodelay": flag(),
        },
    ),
    "pipe_data_entry": row(
        "pipe-data.proto:5",
        {
            "pipe_id": free(NAME),
            "bytes": limited(range(_BYTES), why=CONTENT),
            # /proc/sys/fs/pipe-max-size.
            "size": limited(range((1 << 20) + 1), takes=("SYS_RESOURCE",)),
        },
    ),
}
