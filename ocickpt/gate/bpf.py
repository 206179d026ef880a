"""What a seccomp filter answers, found out without running it: the classic BPF that runtimes make of a profile.

For one architecture and system call everything is known but the arguments, so that what is left of a program is a tree
of questions about these. Two such trees can be compared.

Source: linux/Documentation/userspace-api/seccomp_filter.rst; include/uapi/linux/seccomp.h, filter.h.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple, TypeAlias

from ocickpt.errors import IntegrityError

_INSTRUCTION: Final = struct.Struct("<HBBI")
_LOAD, _AND, _RETURN, _JUMP = 0x20, 0x54, 0x06, 0x05
"""BPF_LD|W|ABS, BPF_ALU|AND|K, BPF_RET|K, BPF_JMP|JA."""
_TESTS: Final = {0x15: "==", 0x25: ">", 0x35: ">=", 0x45: "&"}
"""BPF_JMP|JEQ|K and its like."""
_ERRNO: Final = 0x00050000
_NUMBER, _ARCHITECTURE, _ARGUMENTS, _END = 0, 4, 16, 64
"""Offsets in struct seccomp_data."""
_LONGEST: Final = 4096
"""Instructions of one filter (BPF_MAXINSNS)."""
_STEPS: Final = 2_000_000
"""For all answers of a program together."""
_COPY_A: Final = 0x16
"""BPF_RET|A."""
_BIT_TEST: Final = 0x40
"""BPF_JSET, of the bits that say what a jump tests."""
_ARITHMETIC: Final = frozenset(
    kind | source for kind in (0x04, 0x14, 0x24, 0x34, 0x44, 0x54, 0x64, 0x74, 0xA4) for source in (0x00, 0x08)
)
"""BPF_ALU with add, sub, mul, div, or, and, lsh, rsh, xor, each of K and of X."""
_DIVIDE, _DIVIDE_BY_X, _SHIFTS = 0x34, 0x3C, (0x64, 0x74)
_MEMORY: Final = frozenset((0x60, 0x61, 0x02, 0x03))
"""BPF_LD|MEM, BPF_LDX|MEM, BPF_ST, BPF_STX: of 16 words."""
_CONDITIONAL: Final = frozenset(kind | source for kind in _TESTS for source in (0x00, 0x08))
_TAKEN: Final = (
    _ARITHMETIC | _MEMORY | _CONDITIONAL | {_LOAD, _RETURN, _COPY_A, _JUMP, 0x84, 0x80, 0x81, 0x00, 0x01, 0x07, 0x87}
)
"""And what remains: BPF_ALU|NEG, BPF_LD and BPF_LDX with LEN and with IMM, BPF_MISC|TAX and |TXA."""
_PROLOGUE: Final = 3
"""Instructions with which the kernel begins every program."""
_DEEPEST: Final = 200
"""Questions about arguments, one behind the other; a profile has a dozen."""


class Question(NamedTuple):
    """A test of a 32-bit word of the arguments, and what follows from it."""

    offset: int
    mask: int
    test: str
    value: int
    yes: Tree
    no: Tree
    least: int
    """The least and the most that any of its answers permits (see `permissive`)."""
    most: int


Tree: TypeAlias = "int | Question"
"""What is left of a program: the action that it returns, or a question first."""


class Program:
    """A filter as the kernel takes it. IntegrityError for one that is not of the kind that runtimes make."""

    def __init__(self, data: bytes) -> None:
        self._code = _instructions(data)
        self._steps = 0

    def answer(self, architecture: int, number: int) -> Tree:
        """What is left of it for one system call of one architecture (AUDIT_ARCH_…)."""
        return self._follow(0, {_NUMBER: number, _ARCHITECTURE: architecture}, 0, {}, 0)

    def _follow(
        self, at: int, known: dict[int, int], value: int | tuple[int, int], seen: dict[object, Tree], depth: int
    ) -> Tree:
        """From instruction `at` on, with `value` in the accumulator: a number, or an argument's (offset, mask)."""
        begin = (at, value)
        while begin not in seen:
            self._steps += 1
            if at >= len(self._code) or self._steps > _STEPS or depth > _DEEPEST:
                raise IntegrityError("a seccomp filter of the checkpoint does not come to an end")
            code, yes, no, operand = self._code[at]
            at += 1
            if code == _RETURN:
                seen[begin] = operand
            elif code == _LOAD:
                value = self._load(operand, known)
            elif code == _AND:
                value = value & operand if isinstance(value, int) else (value[0], value[1] & operand)
            elif code == _JUMP:
                at += operand
            elif code not in _TESTS:
                raise IntegrityError(
                    f"a seccomp filter of the checkpoint has the instruction {code:#x}, as no runtime's has"
                )
            elif isinstance(value, int):
                at += yes if _holds(_TESTS[code], value, operand) else no
            else:
                first = self._follow(at + yes, known, value, seen, depth + 1)
                other = self._follow(at + no, known, value, seen, depth + 1)
                seen[begin] = _question(value, _TESTS[code], operand, first, other)
        return seen[begin]

    def _load(self, offset: int, known: dict[int, int]) -> int | tuple[int, int]:
        if offset in known:
            return known[offset]
        if offset % 4 or not _ARGUMENTS <= offset < _END:
            raise IntegrityError(
                f"a seccomp filter of the checkpoint looks at byte {offset} of a call, as no runtime's does"
            )
        return offset, 0xFFFFFFFF


def expanded(data: bytes) -> int:
    """How many instructions the kernel makes of a filter and counts; IntegrityError for what it does not take.

    Source: linux/kernel/seccomp.c (seccomp_check_filter), net/core/filter.c (bpf_check_classic, bpf_convert_filter).
    """
    code = _instructions(data)
    count = _PROLOGUE
    for at, (kind, yes, no, operand) in enumerate(code):
        after = len(code) - at - 1
        if (
            kind not in _TAKEN
            or (kind == _LOAD and (operand % 4 or operand >= _END))
            or (kind in _MEMORY and operand >= 16)
            or (kind == _DIVIDE and operand == 0)
            or (kind in _SHIFTS and operand >= 32)
            or (kind == _JUMP and operand >= after)
            or (kind in _CONDITIONAL and max(yes, no) >= after)
        ):
            raise IntegrityError(
                f"a seccomp filter of the checkpoint has the instruction {kind:#x}, as the kernel does not take it"
            )
        if kind in _CONDITIONAL:
            inverted = yes == 0 and kind & 0xF0 != _BIT_TEST
            count += 1 if no == 0 or inverted else 2
            count += kind & 0x08 == 0 and operand >> 31  # it is not taken for a negative number
        else:
            count += {_RETURN: 2, _DIVIDE_BY_X: 5}.get(kind, 1)
    if code[-1][0] not in (_RETURN, _COPY_A):
        raise IntegrityError("a seccomp filter of the checkpoint does not come to an end")
    return count


def permissive(action: int) -> int:
    """How much an action permits: of several filters' answers the kernel takes the least (seccomp_run_filters)."""
    kind = action & 0xFFFF0000
    return kind - (1 << 32) if kind & 1 << 31 else kind


def allows_no_more(found: Tree, wanted: Tree) -> bool:
    """Whether a filter that answers `found` permits nothing that one which answers `wanted` does not."""
    waiting, seen = [(found, wanted)], set[tuple[int, int]]()
    while waiting:
        ours, theirs = waiting.pop()
        if _bounds(ours)[1] <= _bounds(theirs)[0] or (id(ours), id(theirs)) in seen:
            continue
        if not (isinstance(ours, Question) and isinstance(theirs, Question)) or _asks(ours) != _asks(theirs):
            return False
        seen.add((id(ours), id(theirs)))
        waiting += [(ours.yes, theirs.yes), (ours.no, theirs.no)]
    return True


def only_refuses(front: bytes) -> bool:
    """Whether instructions in front of a filter let nothing pass by it: they refuse, or come to where it begins.

    runc puts such before libseccomp's, for system calls that are younger than the profile (patchbpf/enosys_linux.go).
    """
    code = list(_INSTRUCTION.iter_unpack(front)) if len(front) % _INSTRUCTION.size == 0 else []
    for at, (kind, yes, no, operand) in enumerate(code, 1):
        if kind == _RETURN:
            if permissive(operand) > permissive(_ERRNO):
                return False
        elif kind == _JUMP or kind in _TESTS:
            if at + (operand if kind == _JUMP else max(yes, no)) > len(code):
                return False
        elif kind not in (_LOAD, _AND):
            return False
    return bool(code)


def _instructions(data: bytes) -> list[tuple[int, int, int, int]]:
    if not data or len(data) % _INSTRUCTION.size or len(data) > _LONGEST * _INSTRUCTION.size:
        raise IntegrityError(f"a seccomp filter of the checkpoint is {len(data)} bytes long, which no filter can be")
    return list(_INSTRUCTION.iter_unpack(data))


def _asks(question: Question) -> tuple[int, int, str, int]:
    return question.offset, question.mask, question.test, question.value


def _bounds(tree: Tree) -> tuple[int, int]:
    return (permissive(tree), permissive(tree)) if isinstance(tree, int) else (tree.least, tree.most)


def _question(argument: tuple[int, int], test: str, value: int, yes: Tree, no: Tree) -> Tree:
    if yes is no or (isinstance(yes, int) and yes == no):
        return yes
    (least, most), (lower, higher) = _bounds(yes), _bounds(no)
    return Question(*argument, test, value, yes, no, min(least, lower), max(most, higher))


def _holds(test: str, value: int, operand: int) -> bool:
    if test == "==":
        return value == operand
    if test == ">":
        return value > operand
    if test == ">=":
        return value >= operand
    return bool(value & operand)
