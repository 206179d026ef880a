"""What processors hold of a thread: registers of every architecture that CRIU knows.

They are the thread's own, and what they hold acts on nothing until it runs; CRIU has the kernel check what it must
(sigreturn, ptrace).
"""

from __future__ import annotations

from typing import Final

from ocickpt.gate.fields.cells import MEMORY, PART, PARTS, Row, each, free, row

ROWS: Final[dict[str, Row]] = {
    "thread_info_x86": row(
        "core-x86.proto:113",
        {
            "clear_tid_addr": free(MEMORY),
            "gpregs fpregs": PART,
            "tls": PARTS,
        },
    ),
    "user_x86_regs_entry": row(
        "core-x86.proto:13",
        {
            (
                "r15 r14 r13 r12 bp bx r11 r10 r9 r8 ax cx dx si di orig_ax ip cs flags sp ss fs_base gs_base ds "
                "es fs gs mode"
            ): free(MEMORY),
        },
    ),
    "user_x86_fpregs_entry": row(
        "core-x86.proto:78",
        {
            "cwd swd twd fop rip rdp mxcsr mxcsr_mask": free(MEMORY),
            "st_space xmm_space padding": each(free(MEMORY)),
            "xsave": PART,
        },
    ),
    "user_x86_xsave_entry": row(
        "core-x86.proto:49",
        {
            "xstate_bv": free(MEMORY),
            "ymmh_space bndreg_state bndcsr_state opmask_reg zmm_upper hi16_zmm pkru": each(free(MEMORY)),
            "cet": PART,
        },
    ),
    "user_x86_cet_entry": row(
        "core-x86.proto:44",
        {
            "cet ssp": free(MEMORY),
        },
    ),
    "user_desc_t": row(
        "core-x86.proto:99",
        {
            (
                "entry_number base_addr limit seg_32bit contents_h contents_l read_exec_only limit_in_pages "
                "seg_not_present usable"
            ): free(MEMORY),
        },
    ),
    "thread_info_arm": row(
        "core-arm.proto:36",
        {
            "clear_tid_addr tls": free(MEMORY),
            "gpregs fpstate": PART,
        },
    ),
    "user_arm_regs_entry": row(
        "core-arm.proto:7",
        {
            "r0 r1 r2 r3 r4 r5 r6 r7 r8 r9 r10 fp ip sp lr pc cpsr orig_r0": free(MEMORY),
        },
    ),
    "user_arm_vfpstate_entry": row(
        "core-arm.proto:28",
        {
            "vfp_regs": each(free(MEMORY)),
            "fpscr fpexc fpinst fpinst2": free(MEMORY),
        },
    ),
    "thread_info_aarch64": row(
        "core-aarch64.proto:42",
        {
            "clear_tid_addr tls": free(MEMORY),
            "gpregs fpsimd pac_keys": PART,
        },
    ),
    "user_aarch64_regs_entry": row(
        "core-aarch64.proto:7",
        {
            "regs": each(free(MEMORY)),
            "sp pc pstate": free(MEMORY),
        },
    ),
    "user_aarch64_fpsimd_context_entry": row(
        "core-aarch64.proto:14",
        {
            "vregs": each(free(MEMORY)),
            "fpsr fpcr": free(MEMORY),
        },
    ),
    "pac_keys": row(
        "core-aarch64.proto:37",
        {
            "pac_address_keys pac_generic_keys": PART,
        },
    ),
    "pac_address_keys": row(
        "core-aarch64.proto:20",
        {
            (
                "apiakey_lo apiakey_hi apibkey_lo apibkey_hi apdakey_lo apdakey_hi apdbkey_lo apdbkey_hi "
                "pac_enabled_key"
            ): free(MEMORY),
        },
    ),
    "pac_generic_keys": row(
        "core-aarch64.proto:32",
        {
            "apgakey_lo apgakey_hi": free(MEMORY),
        },
    ),
    "thread_info_ppc64": row(
        "core-ppc64.proto:66",
        {
            "clear_tid_addr": free(MEMORY),
            "gpregs fpstate vrstate vsxstate tmstate": PART,
        },
    ),
    "user_ppc64_regs_entry": row(
        "core-ppc64.proto:7",
        {
            "gpr": each(free(MEMORY)),
            "nip msr orig_gpr3 ctr link xer ccr trap texasr tfhar tfiar": free(MEMORY),
        },
    ),
    "user_ppc64_fpstate_entry": row(
        "core-ppc64.proto:24",
        {
            "fpregs": each(free(MEMORY)),
        },
    ),
    "user_ppc64_vrstate_entry": row(
        "core-ppc64.proto:29",
        {
            "vrregs": each(free(MEMORY)),
            "vrsave": free(MEMORY),
        },
    ),
    "user_ppc64_vsxstate_entry": row(
        "core-ppc64.proto:45",
        {
            "vsxregs": each(free(MEMORY)),
        },
    ),
    "user_ppc64_tm_regs_entry": row(
        "core-ppc64.proto:59",
        {
            "gpregs fpstate vrstate vsxstate": PART,
        },
    ),
    "thread_info_s390": row(
        "core-s390.proto:44",
        {
            "clear_tid_addr": free(MEMORY),
            "gpregs fpregs vxrs_low vxrs_high gs_cb gs_bc ri_cb": PART,
        },
    ),
    "user_s390_regs_entry": row(
        "core-s390.proto:7",
        {
            "psw_mask psw_addr orig_gpr2 system_call": free(MEMORY),
            "gprs acrs": each(free(MEMORY)),
        },
    ),
    "user_s390_fpregs_entry": row(
        "core-s390.proto:30",
        {
            "fpc": free(MEMORY),
            "fprs": each(free(MEMORY)),
        },
    ),
    "user_s390_vxrs_low_entry": row(
        "core-s390.proto:16",
        {
            "regs": each(free(MEMORY)),
        },
    ),
    "user_s390_vxrs_high_entry": row(
        "core-s390.proto:26",
        {
            "regs": each(free(MEMORY)),
        },
    ),
    "user_s390_gs_cb_entry": row(
        "core-s390.proto:35",
        {
            "regs": each(free(MEMORY)),
        },
    ),
    "user_s390_ri_entry": row(
        "core-s390.proto:39",
        {
            "ri_on": free(MEMORY),
            "regs": each(free(MEMORY)),
        },
    ),
    "thread_info_mips": row(
        "core-mips.proto:87",
        {
            "clear_tid_addr tls": free(MEMORY),
            "gpregs fpregs": PART,
        },
    ),
    "user_mips_regs_entry": row(
        "core-mips.proto:7",
        {
            (
                "r0 r1 r2 r3 r4 r5 r6 r7 r8 r9 r10 r11 r12 r13 r14 r15 r16 r17 r18 r19 r20 r21 r22 r23 r24 r25 "
                "r26 r27 r28 r29 r30 r31 lo hi cp0_epc cp0_badvaddr cp0_status cp0_cause"
            ): free(MEMORY),
        },
    ),
    "user_mips_fpregs_entry": row(
        "core-mips.proto:48",
        {
            (
                "r0 r1 r2 r3 r4 r5 r6 r7 r8 r9 r10 r11 r12 r13 r14 r15 r16 r17 r18 r19 r20 r21 r22 r23 r24 r25 "
                "r26 r27 r28 r29 r30 r31 lo hi fpu_fcr31 fpu_id"
            ): free(MEMORY),
        },
    ),
    "thread_info_loongarch64": row(
        "core-loongarch64.proto:18",
        {
            "clear_tid_addr tls": free(MEMORY),
            "gpregs fpregs": PART,
        },
    ),
    "user_loongarch64_gpregs_entry": row(
        "core-loongarch64.proto:7",
        {
            "regs": each(free(MEMORY)),
            "pc": free(MEMORY),
        },
    ),
    "user_loongarch64_fpregs_entry": row(
        "core-loongarch64.proto:12",
        {
            "regs": each(free(MEMORY)),
            "fcc fcsr": free(MEMORY),
        },
    ),
    "thread_info_riscv64": row(
        "core-riscv64.proto:48",
        {
            "clear_tid_addr tls": free(MEMORY),
            "gpregs fpsimd": PART,
        },
    ),
    "user_riscv64_regs_entry": row(
        "core-riscv64.proto:8",
        {
            ("pc ra sp gp tp t0 t1 t2 s0 s1 a0 a1 a2 a3 a4 a5 a6 a7 s2 s3 s4 s5 s6 s7 s8 s9 s10 s11 t3 t4 t5 t6"): free(
                MEMORY
            ),
        },
    ),
    "user_riscv64_d_ext_entry": row(
        "core-riscv64.proto:43",
        {
            "f": each(free(MEMORY)),
            "fcsr": free(MEMORY),
        },
    ),
}
