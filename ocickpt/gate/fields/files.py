"""What processes have open: the fields of files, fdinfo, remap-fpath, ghost-file, filelocks, tty and memfd images."""

from __future__ import annotations

from typing import Final

from ocickpt.gate.fields.cells import (
    CONTENT,
    MATCHED,
    MEMORY,
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
    only,
    row,
    text,
)
from ocickpt.gate.fields.process import NANOSECONDS, OPEN, PID, SECONDS, SIGNAL

NAMES: Final = {"id": free(NAME), "flags": limited(OPEN), "fown": PART}
"""What nearly every open file has."""
_DESCRIPTOR: Final = limited(range(1 << 30), why=NAME)
_FILE: Final = "files._file"
_REGULAR: Final = "files._regular"
_GHOST: Final = "files._ghost"
_FANOTIFY: Final = held(_FILE)
_TERMIOS: Final = free("how a terminal of the container's behaves")

ROWS: Final[dict[str, Row]] = {
    "fdinfo_entry": row(
        "fdinfo.proto:53",
        {
            "id type": free(NAME),
            "flags": only(0, 1, why="FD_CLOEXEC"),
            "fd": _DESCRIPTOR,
            # The label that SELinux gives the socket or file, CRIU asks for it before it opens.
            "xattr_security_selinux": text(rule="files._check_descriptor"),
        },
    ),
    "file_entry": row(
        "fdinfo.proto:61",
        {
            "type id": held(_FILE),
            ("reg isk nsf psk nlsk efd epfd sgfd tunf tfd ify ffy ext usk fifo pipe tty memfd bpf pidfd"): PART,
        },
    ),
    "fown_entry": row(
        "fown.proto:5",
        {
            "uid euid": held("files._owner"),
            "signum": SIGNAL,
            "pid_type": limited(range(3)),
            "pid": held("files._owner", range(1 << 22)),
        },
    ),
    "reg_file_entry": row(
        "regfile.proto:8",
        {
            **NAMES,
            "pos": limited(range(1 << 64)),
            "name": text(rule=_REGULAR),
            "mnt_id": held(_REGULAR),
            "size checksum checksum_config checksum_parameter": free(MATCHED),
            "build_id": each(free(MATCHED), 256),
            "ext": held(_FILE),
            "mode": held(_REGULAR),
        },
    ),
    "ext_file_entry": row("ext-file.proto:7", {"id": held(_FILE), "fown": PART}),
    "ns_file_entry": row(
        "ns.proto:5",
        {
            "id": free(NAME),
            "ns_id": held(_FILE),
            "ns_cflag": limited(Bits(0x7E020080), why=NAME),
            "flags": limited(OPEN),
        },
    ),
    "eventfd_file_entry": row("eventfd.proto:7", {**NAMES, "counter": free(CONTENT)}),
    "eventpoll_file_entry": row("eventpoll.proto:19", {**NAMES, "tfd": each(PART)}),
    "eventpoll_tfd_entry": row(
        "eventpoll.proto:7",
        {
            "id": free(NAME),
            "tfd": _DESCRIPTOR,
            # EPOLLWAKEUP (1 << 29) keeps the machine awake.
            "events": limited(Bits(0xD000FFFF), takes=("BLOCK_SUSPEND",)),
            "data": free(MEMORY),
            "dev inode pos": free(MATCHED),
        },
    ),
    "signalfd_entry": row("signalfd.proto:8", {**NAMES, "sigmask": free(MEMORY)}),
    "timerfd_entry": row(
        "timerfd.proto:8",
        {
            **NAMES,
            # REALTIME, MONOTONIC, BOOTTIME; those with an alarm wake the machine.
            "clockid": limited((0, 1, 7), takes=("WAKE_ALARM",)),
            "ticks": free(CONTENT),
            "settime_flags": limited(Bits(3)),
            "vsec isec": SECONDS,
            "vnsec insec": NANOSECONDS,
        },
    ),
    "inotify_file_entry": row("fsnotify.proto:19", {**NAMES, "wd": each(PART)}),
    "inotify_wd_entry": row(
        "fsnotify.proto:9",
        {
            "id": free(NAME),
            "i_ino": held("files._watch"),
            "mask ignored_mask": limited(Bits(0xFFFFFFFF)),
            "s_dev": held("files._watch"),
            "wd": limited(range(1 << 31)),
            "f_handle": PART,
        },
    ),
    "fh_entry": row(
        "fh.proto:11",
        {
            # MAX_HANDLE_SZ (linux/exportfs.h).
            "bytes": limited(range(129), why=NAME),
            "type": free(NAME),
            "handle": each(free(NAME), 16),
            "path": text(rule="files._watch"),
            "mnt_id": held("files._watch"),
        },
    ),
    "fanotify_file_entry": row(
        "fsnotify.proto:54",
        {**NAMES, "faflags evflags": _FANOTIFY, "mark": each(PART)},
    ),
    "fanotify_mark_entry": row(
        "fsnotify.proto:41",
        {"id type mflags mask ignored_mask s_dev": _FANOTIFY, "ie me": PART},
    ),
    "fanotify_inode_mark_entry": row("fsnotify.proto:31", {"i_ino": _FANOTIFY, "f_handle": PART}),
    "fanotify_mount_mark_entry": row("fsnotify.proto:36", {"mnt_id": _FANOTIFY, "path": text(rule=_FILE)}),
    "fifo_entry": row("fifo.proto:5", {"id pipe_id regf_id": free(NAME)}),
    "pipe_entry": row("pipe.proto:8", {**NAMES, "pipe_id": free(NAME)}),
    "memfd_file_entry": row("memfd.proto:8", {**NAMES, "pos": free(CONTENT), "inode_id": free(NAME)}),
    "memfd_inode_entry": row(
        "memfd.proto:16",
        {
            # The kernel takes 249 bytes (MFD_NAME_MAX_LEN in mm/memfd.c).
            "name": text(most=249),
            "uid gid": held("files._memory_file"),
            "size": limited(range(1 << 63)),
            "shmid inode_id": free(NAME),
            # Up to F_SEAL_EXEC (linux/fcntl.h).
            "seals": limited(Bits(0x3F)),
            "hugetlb_flag": limited(Bits(0xFC000004)),
            "mode": held("files._memory_file", Bits(0o107777)),
        },
    ),
    "bpfmap_file_entry": row(
        "bpfmap-file.proto:8",
        {
            **NAMES,
            "pos map_type key_size value_size map_id max_entries map_flags memlock ifindex mnt_id map_extra": held(
                _FILE
            ),
            "frozen": held(_FILE),
            "map_name": text(most=15, rule=_FILE),
        },
    ),
    "pidfd_entry": row(
        "pidfd.proto:7",
        {
            **NAMES,
            "ino": free(NAME),
            "nspid": limited(range(-1, 1 << 22), why=PID.why),
        },
    ),
    "remap_file_path_entry": row(
        "remap-file-path.proto:14",
        {"orig_id remap_id remap_type": held("paths.check_paths")},
    ),
    "ghost_file_entry": row(
        "ghost-file.proto:8",
        {
            "uid gid": held(_GHOST),
            "mode": held(_GHOST, Bits(0o177777)),
            "dev ino": free(NAME),
            "rdev": held(_GHOST),
            "atim mtim": PART,
            "chunks": flag(CONTENT),
            "size": limited(range(1 << 63), why=CONTENT),
            "symlnk_target": text(rule=_GHOST),
        },
    ),
    "ghost_chunk_entry": row("ghost-file.proto:24", {"len off": held("contents.check_ghost", range(1 << 63))}),
    "timeval": row("time.proto:5", {"tv_sec": free(CONTENT), "tv_usec": limited(range(1_000_000), why=CONTENT)}),
    "file_lock_entry": row(
        "file-lock.proto:5",
        {
            # FL_POSIX, FL_FLOCK, FL_LEASE, FL_OFDLCK (criu/include/file-lock.h).
            "flag": only(1, 2, 32, 1024),
            # F_RDLCK, F_WRLCK, F_UNLCK, LOCK_MAND and its kinds, and what a lease is being broken to.
            "type": limited(Bits(0xFF)),
            "pid": limited(range(-1, 1 << 22), why=NAME),
            "fd": _DESCRIPTOR,
            "start len": free(OWN),
        },
    ),
    "tty_file_entry": row("tty.proto:84", {**NAMES, "tty_info_id regf_id": free(NAME)}),
    "tty_info_entry": row(
        "tty.proto:48",
        {
            "id": free(NAME),
            "type": held("files.check_files"),
            "locked exclusive packet_mode": flag(),
            "sid pgrp": PID,
            "rdev dev": free(MATCHED),
            "termios winsize pty": PART,
            "termios_locked": PART,
            "uid gid": free("who owns a terminal in the container's own devpts"),
        },
    ),
    "termios_entry": row(
        "tty.proto:15",
        {
            "c_iflag c_oflag c_cflag c_lflag c_ispeed c_ospeed": _TERMIOS,
            # N_TTY: other line disciplines are drivers.
            "c_line": only(0),
            "c_cc": each(_TERMIOS, 32),
        },
    ),
    "winsize_entry": row("tty.proto:8", {"ws_row ws_col ws_xpixel ws_ypixel": limited(range(1 << 16))}),
    # NR_UNIX98_PTY_MAX, of which CRIU opens those below until it has come to the number.
    "tty_pty_entry": row("tty.proto:27", {"index": limited(range(1 << 12))}),
    "tty_data_entry": row("tty.proto:41", {"tty_id": free(NAME), "data": data(CONTENT, 1 << 16)}),
}
