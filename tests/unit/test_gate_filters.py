"""Seccomp filters are compared by what they answer, whoever compiled them, and whatever somebody has put into them."""

from __future__ import annotations

import struct
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocickpt.errors import IntegrityError
from ocickpt.gate import libseccomp, profile
from ocickpt.gate.bpf import Program, allows_no_more, only_refuses, permissive
from ocickpt.gate.chains import LOG, SPEC_ALLOW, TSYNC, Filter
from ocickpt.gate.filters import Wanted, allowed_more
from ocickpt.oci import Profile, Seccomp

KILL, ERRNO, TRACE, ALLOW = 0, 0x00050001, 0x7FF00000, 0x7FFF0000
LOAD, AND, RETURN, JUMP, EQUAL, GREATER = 0x20, 0x54, 0x06, 0x05, 0x15, 0x25
NAMES = ("read", "write", "clone", "personality", "bpf", "mount", "socket", "openat", "ptrace", "keyctl")
ARCHITECTURE = libseccomp.architectures()[0]


@pytest.fixture(autouse=True)
def _nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profile, "CACHE", tmp_path / "run" / "filters")
    (tmp_path / "run").mkdir(exist_ok=True)


def code(*instructions: tuple[int, int, int, int]) -> bytes:
    return b"".join(struct.pack("<HBBI", *each) for each in instructions)


def rules(*names: str, action: str = "SCMP_ACT_ALLOW", **more: Any) -> dict[str, Any]:
    return {"names": list(names), "action": action, **more}


def raw(*found: dict[str, Any], default: str = "SCMP_ACT_ERRNO") -> dict[str, Any]:
    return {"defaultAction": default, "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"], "syscalls": list(found)}


def of(*found: dict[str, Any]) -> Seccomp:
    return Profile(raw(*found)).says


def compiled(*found: dict[str, Any]) -> bytes:
    return next(profile.compiled(of(*found)))


def condition(index: int, value: int, op: str = "SCMP_CMP_EQ", two: int = 0) -> dict[str, Any]:
    return {"index": index, "value": value, "valueTwo": two, "op": op}


MASKED = [condition(0, 0x7E020000, "SCMP_CMP_MASKED_EQ")]
RULE = st.builds(
    lambda names, args: rules(*names, **({"args": args} if args else {})),
    st.lists(st.sampled_from(NAMES), min_size=1, max_size=6, unique=True),
    st.sampled_from([None, None, MASKED, [condition(0, 40, "SCMP_CMP_NE")], [condition(1, 1 << 40, "SCMP_CMP_GT")]]),
)


@given(st.lists(RULE, max_size=12))
@settings(max_examples=25, deadline=None)
def test_however_it_is_sorted_it_is_the_same(found: list[dict[str, Any]]) -> None:
    lots = [rules(f"{name}", action="SCMP_ACT_KILL") for name in ("swapon", "swapoff")] * 20
    one, other = profile.compiled(of(*found, *lots))
    assert allowed_more(one, other) == allowed_more(other, one) == ""


def test_runc_sorts_its_own_way() -> None:
    """The two ways are different programs, else the test above shows nothing."""
    many = [rules(name) for name in NAMES] + [rules("swapon", action="SCMP_ACT_KILL")] * 40
    one, other = profile.compiled(of(*many))
    assert one != other
    assert list(profile.compiled(of(*many), like=other)) == [other, one]


@pytest.mark.parametrize("name", NAMES)
def test_a_call_more_is_named(name: str) -> None:
    others = [each for each in NAMES if each != name]
    told = allowed_more(compiled(rules(*NAMES)), compiled(rules(*others)))
    assert told == f"it allows {name}, which the profile does not"
    assert allowed_more(compiled(rules(*others)), compiled(rules(*NAMES))) == ""


@pytest.mark.parametrize(
    "arguments",
    [
        None,
        [condition(0, 0x7E020001, "SCMP_CMP_MASKED_EQ")],
        [condition(0, 0x7E000000, "SCMP_CMP_MASKED_EQ")],
        [condition(1, 0x7E020000, "SCMP_CMP_MASKED_EQ")],
        [condition(0, 0, "SCMP_CMP_GE")],
    ],
)
def test_other_arguments_are_more(arguments: list[dict[str, Any]] | None) -> None:
    wanted = compiled(rules("clone", args=MASKED))
    more: dict[str, Any] = {"args": arguments} if arguments else {}
    found = compiled(rules("clone", **more))
    assert "clone" in allowed_more(found, wanted)
    assert allowed_more(compiled(), wanted) == ""


def test_a_weaker_answer_is_more() -> None:
    wanted = compiled(rules("clone", action="SCMP_ACT_KILL"))
    for action in ("SCMP_ACT_LOG", "SCMP_ACT_TRACE", "SCMP_ACT_NOTIFY", "SCMP_ACT_ERRNO"):
        found = compiled(rules("clone", action=action))
        assert "clone" in allowed_more(found, wanted), action
    assert sorted([ALLOW, KILL, TRACE, 0x80000000, ERRNO], key=permissive) == [0x80000000, KILL, ERRNO, TRACE, ALLOW]


def test_another_architecture_is_more() -> None:
    for_one = Profile(raw(rules("read")) | {"architectures": ["SCMP_ARCH_X86_64"]}).says
    assert "it allows" in allowed_more(compiled(rules("read")), next(profile.compiled(for_one)))


def test_what_runc_puts_in_front_only_refuses() -> None:
    assert only_refuses(code((LOAD, 0, 0, 4), (EQUAL, 1, 0, 7), (JUMP, 0, 0, 1), (RETURN, 0, 0, ERRNO)))
    for front in (
        code((RETURN, 0, 0, ALLOW)),
        code((RETURN, 0, 0, TRACE)),
        code((JUMP, 0, 0, 1)),
        code((EQUAL, 1, 0, 7)),
        code((LOAD, 0, 0, 0), (0x04, 0, 0, 1)),
        b"",
        b"odd",
    ):
        assert not only_refuses(front), front


def bomb(depth: int) -> bytes:
    """A question about an argument after the other; each has two ways to the next one."""
    pair = [(LOAD, 0, 0, 16), (AND, 0, 0, 1), (EQUAL, 0, 1, 0), (LOAD, 0, 0, 20)]
    return code(*(each for number in range(depth) for each in pair), (RETURN, 0, 0, ALLOW))


@pytest.mark.parametrize(
    "program",
    [
        b"",
        b"x" * 9,
        code((JUMP, 0, 0, 0xFFFFFFFF)),
        code((LOAD, 0, 0, 8), (RETURN, 0, 0, ALLOW)),
        code((LOAD, 0, 0, 17), (RETURN, 0, 0, ALLOW)),
        code((LOAD, 0, 0, 64), (RETURN, 0, 0, ALLOW)),
        code((0x16, 0, 0, 0)),
        code((0x81, 0, 0, 0), (0x87, 0, 0, 0), (0x16, 0, 0, 0)),
        code(*([(JUMP, 0, 0, 0)] * 5000)),
        code((LOAD, 0, 0, 16), *((GREATER, 0, 0, number) for number in range(300)), (RETURN, 0, 0, ALLOW)),
    ],
)
def test_a_program_that_no_runtime_makes_is_refused(program: bytes) -> None:
    with pytest.raises(IntegrityError):
        Program(program).answer(ARCHITECTURE, 0)


@pytest.mark.parametrize("depth", [3, 30, 150, 1000])
def test_many_ways_through_a_program_take_no_time(depth: int) -> None:
    begun = time.process_time()
    try:
        found = Program(bomb(depth)).answer(ARCHITECTURE, 0)
        assert not allows_no_more(found, ERRNO)
        allows_no_more(found, Program(bomb(depth)).answer(ARCHITECTURE, 0))
    except IntegrityError as error:
        assert depth > 100, error.message
    assert time.process_time() - begun < 5


STUB = code((LOAD, 0, 0, 4), (EQUAL, 0, 2, 0xC000003E), (LOAD, 0, 0, 0), (GREATER, 0, 0, 450), (LOAD, 0, 0, 0))
MANY = [rules(name) for name in NAMES] + [rules("swapon", action="SCMP_ACT_KILL")] * 40


def test_what_the_runtimes_compile_is_the_profile() -> None:
    wanted = Wanted(of(*MANY), b"")
    for form in profile.compiled(of(*MANY)):
        assert wanted.is_profile(Filter(form, TSYNC | SPEC_ALLOW, None))
        assert wanted.is_profile(Filter(STUB + form, LOG, 3))
        assert not wanted.is_profile(Filter(code((RETURN, 0, 0, ALLOW)) + form, 0, None))
        assert not wanted.is_profile(Filter(form[:-8], 0, None))


def test_what_is_put_in_front_is_sorted_as_what_is_there() -> None:
    one, other = profile.compiled(of(*MANY))
    assert [Wanted(of(*MANY), like).filter.code for like in (one, other, b"")] == [one, other, one]


def test_what_permits_no_more_is_enough() -> None:
    wanted = Wanted(of(rules("read", "write")), b"")
    assert wanted.is_enough(Filter(compiled(rules("write", "read")), 0, None))
    assert wanted.is_enough(Filter(compiled(rules("read")), 0, None))
    assert not wanted.is_enough(Filter(compiled(rules("read", "write", "bpf")), 0, None))
    assert not wanted.is_enough(Filter(code((0x04, 0, 0, 1), (RETURN, 0, 0, ERRNO)), 0, None))


def test_few_filters_are_compared() -> None:
    """It takes long, and a checkpoint may have as many as it likes."""
    wanted = Wanted(of(rules("read")), b"")
    for number in range(4):
        assert not wanted.is_enough(Filter(code((RETURN, 0, 0, ALLOW + number)), 0, None))
    assert not wanted.is_enough(Filter(code((RETURN, 0, 0, ERRNO)), 0, None))
    assert wanted.is_profile(Filter(compiled(rules("read")), 0, None))


@pytest.mark.parametrize(
    ("said", "flags", "kept"),
    [
        (None, SPEC_ALLOW, (0, LOG, SPEC_ALLOW, LOG | SPEC_ALLOW)),
        ([], 0, (0, LOG)),
        (["SECCOMP_FILTER_FLAG_LOG"], LOG, (LOG,)),
        (["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"], LOG | SPEC_ALLOW, (LOG, LOG | SPEC_ALLOW)),
        (["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"], 0, (0, LOG)),
    ],
)
def test_as_much_is_logged_and_as_little_speculated(said: list[str] | None, flags: int, kept: tuple[int, ...]) -> None:
    wanted = Wanted(Profile(raw(rules("read")) | {"flags": said}).says, b"")
    assert wanted.filter.flags == flags
    found = wanted.filter.code
    every = (0, LOG, SPEC_ALLOW, LOG | SPEC_ALLOW)
    assert tuple(each for each in every if wanted.is_profile(Filter(found, each | TSYNC, None))) == kept
    assert tuple(each for each in every if wanted.is_enough(Filter(found, each | TSYNC, None))) == kept


def test_a_flag_that_is_none_is_refused() -> None:
    with pytest.raises(IntegrityError, match="has the flag 'SECCOMP_FILTER_FLAG_X', which is none"):
        profile.flags(Profile(raw() | {"flags": ["SECCOMP_FILTER_FLAG_X"]}).says)


def test_the_library_says_which_it_is() -> None:
    assert libseccomp.version().startswith("2.")


PROFILES: list[dict[str, Any]] = [
    {},
    {"defaultAction": "ALLOW"},
    {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": "all"},
    {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["read"]}]},
    {"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1 << 20},
    raw(rules("read", args=[{"index": 9, "op": "SCMP_CMP_EQ"}])),
    raw(rules("read", args=[{"index": 0, "op": "SCMP_CMP_LIKE"}])),
    raw(rules("read", args=[condition(0, -1)])),
    raw(rules(*["read"] * 20_000)),
]


@pytest.mark.parametrize("wrong", PROFILES)
def test_a_profile_that_is_none_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(IntegrityError, match="seccomp profile"):
        next(profile.compiled(Profile(wrong).says))


def test_what_was_compiled_is_kept_but_not_all_of_it() -> None:
    first = compiled(rules("read"))
    assert [path.read_bytes() for path in profile.CACHE.iterdir()] == [first]
    assert profile.CACHE.stat().st_mode & 0o777 == 0o700
    next(profile.CACHE.iterdir()).write_bytes(b"kept")
    assert compiled(rules("read")) == b"kept"
    for number in range(100):
        compiled(rules("clone", args=[condition(0, number)]))
    assert len(list(profile.CACHE.iterdir())) == 64
