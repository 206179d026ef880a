"""The container's profile is in every chain of seccomp filters, put there once; what no kernel takes is refused."""

from __future__ import annotations

import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocickpt.errors import IntegrityError, UnsupportedError
from ocickpt.gate import bpf, chains
from ocickpt.gate.chains import DISABLED, FILTER, LOG, SPEC_ALLOW, STRICT, TSYNC, Chains, Filter, Thread

ANSWERS = (0x7FFF0000, 0x7FFC0000, 0x00050001, 0x00050026)


def program(answer: int, length: int = 1) -> bytes:
    """Instructions that read the length of what they see, and an answer."""
    return struct.pack("<HBBI", 0x80, 0, 0, 0) * (length - 1) + struct.pack("<HBBI", 0x06, 0, 0, answer)


PROFILE = Filter(program(0x00030000), LOG, None)
OWN = [program(answer) for answer in ANSWERS]


def is_profile(found: Filter) -> bool:
    return found.code == PROFILE.code


def never(_: Filter) -> bool:
    return False


def chain(*codes: bytes, flags: int = 0, at: int = 0) -> list[Filter]:
    """A chain whose entries are from `at` on, oldest first."""
    last = len(codes) - 1
    return [Filter(code, flags, None if n == last else at + n + 1) for n, code in enumerate(codes)]


def thread(number: int, oldest: int | None = None) -> Thread:
    return Thread(number, DISABLED if oldest is None else FILTER, oldest)


def given_profile(
    filters: list[Filter], processes: list[list[Thread]], enough: bytes = b""
) -> tuple[list[Filter], list[list[Thread]]]:
    """Filters and threads as CRIU gets them."""
    found = Chains(filters, processes)
    more, oldest = found.begin_with(PROFILE, is_profile, lambda each: each.code == enough)
    threads = [
        [thread(each.number, oldest[each.number]) if each.number in oldest else each for each in process]
        for process in processes
    ]
    return [*filters, *more], threads


def codes(filters: list[Filter], process: list[Thread], number: int = 0) -> list[bytes]:
    """What is installed on a thread of a process, oldest first, as CRIU and the kernel do it."""

    def chain_of(position: int | None) -> Iterator[Filter]:
        while position is not None:
            yield filters[position]
            position = filters[position].younger

    own = list(chain_of(process[number].oldest)) if process[number].mode == FILTER else []
    leader = list(chain_of(process[0].oldest)) if process[0].mode == FILTER else []
    whole = [each for each in leader if each.flags & TSYNC]
    return [each.code for each in (own if number == 0 else [*whole, *own])]


def test_the_profile_is_kept() -> None:
    filters = chain(PROFILE.code, OWN[0])
    assert given_profile(filters, [[thread(1, 0)]]) == (filters, [[thread(1, 0)]])


def test_what_is_enough_is_kept_where_it_is_the_oldest() -> None:
    filters = chain(OWN[2], OWN[0])
    assert given_profile(filters, [[thread(1, 0)]], enough=OWN[2])[0] == filters
    filters = chain(OWN[0], OWN[2])
    assert len(given_profile(filters, [[thread(1, 0)]], enough=OWN[2])[0]) == 3


def test_the_profile_is_put_in_front_of_others() -> None:
    filters, [[found]] = given_profile(chain(OWN[0], OWN[1]), [[thread(1, 0)]])
    assert filters[2:] == [PROFILE._replace(younger=0)]
    assert found == thread(1, 2)
    assert codes(filters, [found]) == [PROFILE.code, OWN[0], OWN[1]]


def test_hosts_that_compile_differently_do_not_add_to_a_chain_at_every_move() -> None:
    other = OWN[3]
    filters, threads = chain(other), [[thread(1, 0)]]
    for move in range(100):
        mine = PROFILE if move % 2 else Filter(other, 0, None)
        more, oldest = Chains(filters, threads).begin_with(mine, lambda each, mine=mine: each.code == mine.code, never)  # type: ignore[misc]
        filters, threads = [*filters, *more], [[thread(1, oldest.get(1, threads[0][0].oldest))]]
    assert codes(filters, threads[0]) == [PROFILE.code, other]


def test_threads_that_share_a_chain_share_what_is_put_in_front() -> None:
    filters, threads = given_profile(chain(OWN[0]), [[thread(1, 0), thread(2, 0)], [thread(3, 0)]])
    assert filters[1:] == [PROFILE._replace(younger=0)]
    assert [each.oldest for process in threads for each in process] == [1, 1, 1]


def test_chains_that_end_the_same_way() -> None:
    """They may share entries: `prev` leads to younger ones."""
    filters = [Filter(OWN[0], 0, 2), Filter(PROFILE.code, 0, 2), Filter(OWN[1], 0, None)]
    filters, [process] = given_profile(filters, [[thread(1, 0), thread(2, 1)]])
    assert codes(filters, process) == [PROFILE.code, OWN[0], OWN[1]]
    assert codes(filters, process, 1) == [PROFILE.code, OWN[1]]
    assert len(filters) == 4


def test_what_is_for_all_threads_stays_for_all() -> None:
    filters, [process] = given_profile(chain(OWN[0], flags=TSYNC), [[thread(1, 0), thread(2), thread(3)]])
    assert filters[1] == Filter(PROFILE.code, LOG | TSYNC, 0)
    assert [each.mode for each in process] == [FILTER, DISABLED, DISABLED]
    assert codes(filters, process, 1) == [PROFILE.code, OWN[0]]


def test_a_process_without_filters_gets_the_profile_for_all_its_threads() -> None:
    """So that a filter which it puts on all of them later is taken, as before."""
    filters, [process] = given_profile([], [[thread(1), thread(2)]])
    assert filters == [Filter(PROFILE.code, LOG | TSYNC, None)]
    assert process == [thread(1, 0), thread(2)]


@pytest.mark.parametrize("bare", [0, 1])
def test_a_thread_without_filters_beside_one_that_has_some(bare: int) -> None:
    threads = [thread(1, 0), thread(2, 0)]
    threads[bare] = thread(bare + 1)
    filters, [process] = given_profile(chain(PROFILE.code, OWN[0]), [threads])
    assert codes(filters, process, bare) == [PROFILE.code]
    assert codes(filters, process, 1 - bare) == [PROFILE.code, OWN[0]]
    assert not any(each.flags & TSYNC for each in filters)


WRONG: list[tuple[list[Filter], list[list[Thread]], str]] = [
    (chain(OWN[0]), [[thread(1, 1)]], "that is not there"),
    ([Filter(OWN[0], 0, 7)], [[thread(1, 0)]], "followed by one that is not there"),
    ([Filter(OWN[0], 0, 0)], [[thread(1, 0)]], "in a circle"),
    ([Filter(OWN[0], 0, 1), Filter(OWN[0], 0, 2), Filter(OWN[0], 0, 1)], [], "in a circle"),
    (chain(OWN[0], flags=8), [[thread(1, 0)]], "flags 0x8"),
    (chain(OWN[0]), [[Thread(1, FILTER, None)]], "a seccomp mode but no filter"),
    (chain(OWN[0]), [[Thread(1, 3, 0)]], "a seccomp mode but no filter"),
    (chain(OWN[0]), [[thread(1, 0), thread(2, 0)], [thread(2)]], "belongs to two processes"),
    (chain(*[program(0, 4096)] * 9), [[thread(1, 0)]], "the kernel takes 32768"),
    (chain(OWN[0], flags=TSYNC), [[thread(1, 0), thread(2, 0)]], "for all of its threads, and others"),
    (chain(OWN[0], flags=TSYNC), [[thread(1), thread(2, 0)]], "for all of its threads, and others"),
    (chain(OWN[0], flags=TSYNC), [[thread(1, 0), Thread(2, STRICT, None)]], "for all of its threads, and others"),
    ([Filter(OWN[0], TSYNC, 1), Filter(OWN[0], 0, None)], [[thread(1, 0)]], "for all of its threads, and others"),
    ([Filter(OWN[0], 0, 1), Filter(OWN[0], TSYNC, None)], [[thread(1, 0)]], "for all of its threads, and others"),
    (chain(b""), [], "0 bytes long"),
]


@pytest.mark.parametrize(("filters", "processes", "said"), WRONG)
def test_what_no_kernel_takes_is_refused(filters: list[Filter], processes: list[list[Thread]], said: str) -> None:
    with pytest.raises(IntegrityError, match=said):
        Chains(filters, processes)


def test_the_strict_mode_is_for_who_has_no_profile() -> None:
    found = Chains([], [[Thread(1, STRICT, None)]])
    with pytest.raises(IntegrityError, match="strict mode"):
        found.begin_with(PROFILE, is_profile, never)


def test_room_for_the_profile() -> None:
    """The longest chain that the kernel takes; with the profile it is too long, and without, one more is."""
    each = bpf.expanded(OWN[0]) + 4
    most = (32768 + 4) // each
    found = Chains(chain(*[OWN[0]] * most), [[thread(7, 0)]])
    with pytest.raises(IntegrityError, match="thread 7 of the checkpoint with that of its container are"):
        found.begin_with(PROFILE, is_profile, never)
    with pytest.raises(IntegrityError, match="thread 7 of the checkpoint are"):
        Chains(chain(*[OWN[0]] * (most + 1)), [[thread(7, 0)]])


def test_what_is_added_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chains, "_MOST_ADDED", 3 * len(PROFILE.code))
    bare = [[thread(number, number)] for number in range(4)]
    filters = [Filter(OWN[0], 0, None)] * 4
    assert len(given_profile(filters, bare[:3])[0]) == 7
    with pytest.raises(UnsupportedError, match="too many threads"):
        given_profile(filters, bare)


def test_long_chains_take_no_time() -> None:
    count = 50_000
    filters = [Filter(OWN[0], 0, at + 1 if at % 3000 else None) for at in range(count)]
    filters[-1] = filters[-1]._replace(younger=None)
    found, _ = given_profile(filters, [[thread(at, at)] for at in range(0, count, 100)])
    assert len(found) == count + count // 100


@st.composite
def checkpoints(draw: st.DrawFn) -> tuple[list[Filter], list[list[Thread]]]:
    """Forests of chains, and processes whose threads have them as CRIU writes that."""
    filters: list[Filter] = []
    count = draw(st.integers(0, 12))
    for at in range(count):
        younger = draw(st.one_of(st.none(), st.integers(0, at - 1))) if at else None
        code = draw(st.sampled_from([*OWN, PROFILE.code]))
        flags = draw(st.sampled_from([LOG, 0, SPEC_ALLOW])) | (
            filters[younger].flags & TSYNC if younger is not None else draw(st.sampled_from([0, TSYNC]))
        )
        filters.append(Filter(code, flags, younger))
    order: list[int] = draw(st.permutations(range(count)))  # an entry may come before those that it is followed by
    place = {at: number for number, at in enumerate(order)}
    filters = [
        filters[at]._replace(younger=None if (younger := filters[at].younger) is None else place[younger])
        for at in order
    ]
    for_all = [at for at in range(count) if filters[at].flags & TSYNC]
    alone = [at for at in range(count) if not filters[at].flags & TSYNC]
    processes, number = [], 0
    for size in draw(st.lists(st.integers(1, 4), max_size=4)):
        whole = bool(for_all) and draw(st.booleans())
        process = []
        for position in range(size):
            number += 1
            if whole:
                oldest = draw(st.sampled_from(for_all)) if position == 0 else None
            else:
                oldest = draw(st.one_of(st.none(), st.sampled_from(alone))) if alone else None
            process.append(thread(number, oldest))
        processes.append(process)
    return filters, processes


@given(checkpoints())
@settings(max_examples=100, deadline=None)
def test_every_thread_has_the_profile_and_then_its_own(found: tuple[list[Filter], list[list[Thread]]]) -> None:
    filters, processes = found
    now, threads = given_profile(filters, processes)
    assert now[: len(filters)] == filters
    for before, process in zip(processes, threads, strict=True):
        for number in range(len(process)):
            was, has = codes(filters, before, number), codes(now, process, number)
            assert has == (was if PROFILE.code in was else [PROFILE.code, *was])
    assert given_profile(now, threads) == (now, threads)


KERNEL = """
import ctypes, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
class Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))
def install(code):
    program = Program(len(code) // 8, code)
    return ctypes.get_errno() if libc.prctl(22, 2, ctypes.byref(program), 0, 0) else 0
for line in sys.stdin:
    code, read, write = bytes.fromhex(line), *os.pipe()
    if not (pid := os.fork()):
        libc.prctl(38, 1, 0, 0, 0)
        count = 0
        while not (error := install(code)):
            count += 1
        os.write(write, struct.pack("<II", count, error))
        os._exit(0)
    os.waitpid(pid, 0)
    os.close(write)
    print(*struct.unpack("<II", os.read(read, 8)), flush=True)
"""
"""How often a program that allows everything can be installed, and with which error it fails then."""
LOADS = [(0x20, 0, 0, 0), (0x20, 0, 0, 60), (0x00, 0, 0, 9), (0x01, 0, 0, 9), (0x80, 0, 0, 0), (0x81, 0, 0, 0)]
SHIFTS = [(kind, 0, 0, value) for kind in (0x64, 0x74) for value in (31, 32)]
OTHERS = [
    *[(kind | source, 0, 0, 7) for kind in range(0x04, 0xB4, 0x10) for source in (0, 8)],
    *[(0x34, 0, 0, 0), (0x20, 0, 0, 64), (0x20, 0, 0, 2), (0x28, 0, 0, 0), (0x30, 0, 0, 0), (0x40, 0, 0, 0)],
    *[(kind, 0, 0, word) for kind in (0x02, 0x03) for word in (15, 16)],
    *[(0x05, 0, 0, 0), (0x05, 0, 0, 1), (0x05, 0, 0, 0xFFFFFFFF), (0x07, 0, 0, 0), (0x87, 0, 0, 0), (0xB1, 0, 0, 0)],
]
JUMPS = [
    (kind | source, yes, no, value)
    for kind in (0x15, 0x25, 0x35, 0x45)
    for source in (0, 8)
    for yes, no in ((0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (0, 2), (255, 0))
    for value in (1, 0x80000000)
]
END = (0x06, 0, 0, 0x7FFF0000)


def test_the_kernel_takes_and_counts_what_is_expected(tmp_path: Path) -> None:
    """Every kind of instruction, many times, behind one that sets the index register, which it may divide by."""
    index = (0x01, 0, 0, 9)
    programs = [[index, *[each] * 1000, END, END] for each in (*LOADS, *SHIFTS, *OTHERS, *JUMPS)]
    programs += [[(0x00, 0, 0, 0x7FFF0000), (0x16, 0, 0, 0)], [(0x02, 0, 0, 3), (0x60, 0, 0, 3), END], [index]]
    data = [b"".join(struct.pack("<HBBI", *each) for each in found) for found in programs]
    script = tmp_path / "kernel.py"
    script.write_text(KERNEL)
    lines = "".join(f"{each.hex()}\n" for each in data)
    done = subprocess.run([sys.executable, str(script)], input=lines, capture_output=True, text=True, check=True)
    invalid, no_memory, taken = 22, 12, 0
    for code, line in zip(data, done.stdout.splitlines(), strict=True):
        count, error = map(int, line.split())
        if count:
            taken += 1
            each = bpf.expanded(code)
            assert error == no_memory
            assert each * count + 4 * (count - 1) <= 32768 < each * (count + 1) + 4 * count, code.hex()
        else:
            assert error == invalid
            with pytest.raises(IntegrityError):
                bpf.expanded(code)
    assert 50 < taken < len(data) - 20
