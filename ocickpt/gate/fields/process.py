"""Processes and threads: the fields of inventory, pstree, core, ids, mm, fs, seccomp and pagemap images."""

from __future__ import annotations

from typing import Final

from ocickpt.gate.fields.cells import (
    ABSENT,
    CONTENT,
    MATCHED,
    MEMORY,
    NAME,
    PART,
    PARTS,
    Bits,
    Cell,
    Either,
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

PID: Final = limited(range(1 << 22), why="a process of the container: CRIU makes and finds it in its PID namespace")
SIGNAL: Final = limited(range(65))
NANOSECONDS: Final = limited(range(1_000_000_000))
SECONDS: Final = limited(range(1 << 63))
OPEN: Final = Bits(0o37777003 & ~0o1300)
"""What fcntl(2) tells of an open file. Not O_CREAT, O_EXCL, O_TRUNC: the kernel forgets them (do_dentry_open in
fs/open.c), and CRIU, which hands all to open(2) as root, would make and empty files."""
CLOCKS: Final = Either((range(8), (10, 11), range(1 << 31, 1 << 32)))
"""Those of everybody, and of what a process has used of the processor, whose numbers are below zero. 8 and 9 wake the
machine (linux/time.h)."""
_COMM: Final = text(most=15)
_SETS: Final = each(held("tasks._capabilities"), 2, 2)
_TASK: Final = held("tasks._check_core")
_ID: Final = held("tasks._identity")
_NAMESPACE: Final = held("tasks._check_namespaces")
_RULED: Final = "tasks.check_processes"

ROWS: Final[dict[str, Row]] = {
    "inventory_entry": row(
        "inventory.proto:20",
        {
            "img_version": only(2),
            "fdinfo_per_id ns_per_id": only(True),
            "root_ids": PART,
            "root_cg_set": held(_RULED),
            "lsmtype": free("labels are held as those of this host's module, whatever it says"),
            "dump_uptime": free(MATCHED),
            "pre_dump_mode": only(1, 2, why="how memory was read before"),
            "tcp_close": flag(MATCHED),
            "network_lock_method": only(0, 1, 2, why="how the network was locked (criu/include/cr_options.h)"),
            "plugins_entry": PART,
            "dump_criu_run_id": text(most=64, rule=_RULED),
            "allow_uprobes": only(False),
        },
    ),
    "plugins_entry": row("inventory.proto:16", {"plugins": each(ABSENT, 0)}),
    "pstree_entry": row(
        "pstree.proto:5",
        {
            "pid ppid pgid sid": PID,
            "threads": each(held("tasks.check_processes")),
        },
    ),
    "core_entry": row(
        "core.proto:120",
        {
            "mtype": free(MATCHED),
            "thread_info ti_arm ti_aarch64 ti_ppc64 ti_s390 ti_mips ti_loongarch64 ti_riscv64": PART,
            "tc thread_core": PART,
            # Of CRIU 1.x: it takes these where an ids image is missing.
            "ids": ABSENT,
        },
    ),
    "task_kobj_ids_entry": row(
        "core.proto:72",
        {
            "vm_id files_id fs_id sighand_id": free(NAME),
            "pid_ns_id net_ns_id ipc_ns_id uts_ns_id mnt_ns_id user_ns_id cgroup_ns_id time_ns_id": _NAMESPACE,
        },
    ),
    "task_core_entry": row(
        "core.proto:32",
        {
            "task_state": _TASK,
            "exit_code": free(CONTENT),
            "personality flags": free(MATCHED),
            "blk_sigset blk_sigset_extended": free(MEMORY),
            "comm": _COMM,
            "timers signals_s": PART,
            "rlimits": PART,
            "cg_set": _TASK,
            "old_seccomp_mode old_seccomp_filter": held("tasks._limits"),
            "loginuid": free("the login uid of the audit subsystem, which a process has of who started it"),
            "oom_score_adj": held("tasks._limits", range(-1000, 1001)),
            "sigactions": each(PART, 64),
            "child_subreaper": flag(),
            "stop_signo": SIGNAL,
            "membarrier_registration_mask": limited(range(1 << 10)),
        },
    ),
    "task_timers_entry": row("timer.proto:27", {"real virt prof": PART, "posix": PARTS}),
    "itimer_entry": row(
        "timer.proto:5",
        {
            "isec vsec": SECONDS,
            "iusec vusec": limited(range(1_000_000)),
        },
    ),
    "posix_timer_entry": row(
        "timer.proto:12",
        {
            # Where the kernel cannot be told a number, CRIU makes timers until it has come to it.
            "it_id": limited(range(1 << 31)),
            "clock_id": limited(CLOCKS, takes=("WAKE_ALARM",)),
            "si_signo": SIGNAL,
            "it_sigev_notify": limited((0, 1, 2, 4)),
            "sival_ptr": free(MEMORY),
            "overrun": free(CONTENT),
            "isec vsec": SECONDS,
            "insec vnsec": NANOSECONDS,
            "notify_thread_id": PID,
        },
    ),
    "task_rlimits_entry": row("core.proto:116", {"rlimits": each(PART, 16)}),
    "rlimit_entry": row("rlimit.proto:5", {"cur max": held("tasks._limits")}),
    "signal_queue_entry": row("siginfo.proto:9", {"signals": each(PART, 1 << 17)}),
    # sizeof(siginfo_t), which CRIU copies whatever the length.
    "siginfo_entry": row("siginfo.proto:5", {"siginfo": data(CONTENT, 128, 128)}),
    "sa_entry": row(
        "sa.proto:7",
        {
            "sigaction flags restorer mask mask_extended": free(MEMORY),
            "compat_sigaction": flag(MEMORY),
        },
    ),
    "thread_core_entry": row(
        "core.proto:94",
        {
            "futex_rla futex_rla_len blk_sigset blk_sigset_extended": free(MEMORY),
            "sched_nice": held("tasks._scheduling", range(-20, 20)),
            "sched_policy": held("tasks._scheduling"),
            "sched_prio": held("tasks._scheduling", range(100)),
            "sas signals_p creds rseq_entry": PART,
            "pdeath_sig": SIGNAL,
            "seccomp_mode seccomp_filter": held("filters.confined"),
            "comm": _COMM,
            "cg_set": _TASK,
        },
    ),
    "thread_sas_entry": row("core.proto:88", {"ss_sp ss_size ss_flags": free(MEMORY)}),
    "creds_entry": row(
        "creds.proto:5",
        {
            "uid gid euid egid suid sgid fsuid fsgid": _ID,
            "groups": each(_ID, 1 << 16),
            # CRIU copies two words of each, whatever their number.
            "cap_inh cap_prm cap_eff cap_bnd": _SETS,
            "cap_amb": each(held("tasks._capabilities"), 2),
            "secbits": held("tasks._capabilities"),
            "no_new_privs": held("tasks._identity", (0, 1)),
            "lsm_profile lsm_sockcreate": text(rule="tasks._label"),
            "apparmor_data": ABSENT,
        },
    ),
    "rseq_entry": row(
        "rseq.proto:5",
        {
            "rseq_abi_pointer signature rseq_cs_pointer": free(MEMORY),
            "rseq_abi_size": limited(range(4097), why=MEMORY),
        },
    ),
    "mm_entry": row(
        "mm.proto:14",
        {
            (
                "mm_start_code mm_end_code mm_start_data mm_end_data mm_start_stack mm_start_brk mm_brk mm_arg_start "
                "mm_arg_end mm_env_start mm_env_end"
            ): free(MEMORY),
            "exe_file_id": free(NAME),
            # AT_VECTOR_SIZE of every architecture is less (linux/auxvec.h).
            "mm_saved_auxv": each(free(MEMORY), 256),
            "vmas": each(PART, 1 << 17),
            "dumpable": limited(range(3)),
            "aios": each(PART, 1 << 10),
            "thp_disabled": flag(),
        },
    ),
    "vma_entry": row(
        "vma.proto:7",
        {
            "start end": held("mappings._layout"),
            "pgoff shmid": free(NAME),
            # READ, WRITE, EXEC, SEM, GROWSDOWN.
            "prot": limited(Bits(0xF | 1 << 24), why=MEMORY),
            # What mmap(2) has, and the sizes of huge pages.
            "flags": limited(Bits(0xFC1FF93F), why=MEMORY),
            # Not what CRIU notes there while it restores: VMA_CLOSE, VMA_NO_PROT_WRITE, VMA_PREMMAPED.
            "status": held("mappings._kinds", Bits(0x1FFEF)),
            "fd": only(-1),
            "madv": limited(Bits((1 << 32) - 1), why=MEMORY),
            "fdflags": limited(OPEN),
        },
    ),
    "aio_ring_entry": row(
        "mm.proto:8",
        {
            "id": free(MEMORY),
            # /proc/sys/fs/aio-max-nr, by default.
            "nr_req": limited(range(1 << 16)),
            "ring_len": limited(range(1 << 22)),
        },
    ),
    "fs_entry": row("fs.proto:5", {"cwd_id root_id": free(NAME), "umask": limited(range(0o1000))}),
    "seccomp_entry": row("seccomp.proto:11", {"seccomp_filters": each(PART, 1 << 16)}),
    "seccomp_filter": row(
        "seccomp.proto:5",
        {
            # BPF_MAXINSNS instructions of 8 bytes.
            "filter": Cell("held", data(CONTENT, 4096 * 8).values, rule="filters.confined"),
            "prev flags": held("filters.confined"),
        },
    ),
    "pagemap_head": row("pagemap.proto:7", {"pages_id": held("contents.check_pagemap")}),
    "pagemap_entry": row(
        "pagemap.proto:11",
        {"vaddr compat_nr_pages in_parent flags nr_pages": held("contents.check_pagemap")},
    ),
}
