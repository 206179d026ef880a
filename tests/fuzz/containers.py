"""What a checkpoint says of its container: podman's configuration, the specification, filters, CRIU's images.

Bytes alone get nowhere here, so most targets change an honest container's, value by value and field by field.
"""

from __future__ import annotations

import copy
import functools
import io
import json
import lzma
import struct
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from ocickpt import asked, oci
from ocickpt.artifact import origin
from ocickpt.artifact.extras import Extras, File, Lost, Process, Socket, Thread
from ocickpt.engine import criu
from ocickpt.engine.podman import etc
from ocickpt.engine.podman.imported import import_config
from ocickpt.errors import OcickptError
from ocickpt.gate import profile
from ocickpt.gate.bpf import Program, allows_no_more, only_refuses
from ocickpt.gate.check import check
from ocickpt.gate.expected import Expected
from ocickpt.gate.images import DECODED, FOLLOWED, OTHERS, REFUSED, Images
from ocickpt.model import parse_json
from ocickpt.trust import security
from tests.fuzz.target import SCRATCH, Choices, Find, Target


def _members() -> dict[str, bytes]:
    """What podman wrote of a container of busybox under runc, its memory replaced by zeros."""
    data = lzma.decompress((Path(__file__).parent / "seeds" / "checkpoint.tar.xz").read_bytes())
    found = {}
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for member in tar:
            content = tar.extractfile(member)
            assert content
            found[member.name] = content.read()
    return found


MEMBERS: Final = _members()


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


def _short(spec: Any) -> bytes:
    """A specification without most rules of its seccomp profile, which are many and all alike."""
    spec["linux"]["seccomp"]["syscalls"] = spec["linux"]["seccomp"]["syscalls"][:3]
    return _json(spec)


CONFIG: Final = MEMBERS["config.dump"]
SPEC: Final = _short(json.loads(MEMBERS["spec.dump"]))
PROFILE: Final = _json(json.loads(SPEC)["linux"]["seccomp"])
IMAGES: Final = {
    name.removeprefix("checkpoint/"): data
    for name, data in MEMBERS.items()
    if name.startswith("checkpoint/") and name.endswith(".img") and "pages-" not in name
}
_ROOT, _VOLUMES = Path("/g"), Path("/v")
_DEEPEST: Final = 12
_VALUES: Final[tuple[Any, ...]] = (
    None, True, False, 0, 1, -1, 7, 65536, 1 << 31, 1 << 32, (1 << 63) - 1, 1 << 63, (1 << 64) - 1, -(1 << 63), 0.5,
    1e300, "", ".", "/", "..", "/..", "//", "/proc", "/proc/self/root", "/sys/fs/cgroup", "/a/../../b", "a\0b",
    "\udcff", "\x1b[2J", "A" * 5000, "/" + "a/" * 3000, "é" * 300, "0" * 64, "host", "container:x", "bind", "tmpfs",
    "rbind", "ro", "rw", "upperdir=/etc", "SCMP_ACT_ALLOW", "SCMP_ACT_TRACE", "SCMP_CMP_MASKED_EQ", "SCMP_ARCH_X32",
    "CAP_SYS_ADMIN", "ALL", "sys_admin", "mknod", "RLIMIT_NOFILE", "SCHED_FIFO", "network", "user", [], {}, [None],
    [[]], [{}], ["x"], {"path": "/x"}, {"a": {"b": None}},
)  # fmt: skip


def changed(choices: Choices, text: bytes) -> bytes:
    """JSON like that in `text`, with a few values replaced, removed, doubled or moved."""
    value = json.loads(text)
    for _ in range(1 + choices.below(6)):
        holder, key = _place(choices, value)
        if key is None:
            continue
        way = choices.below(5)
        if way == 0:
            del holder[key]
        elif way == 1 and isinstance(holder, list):
            holder.insert(key, copy.deepcopy(holder[key]))
        elif way == 2:
            other, where = _place(choices, value)
            holder[key] = copy.deepcopy(other[where]) if where is not None else None
        elif way == 3 and isinstance(holder, dict):
            holder[choices.pick((str(key).swapcase(), f"{key}x", str(choices.pick(_VALUES))))] = holder.pop(key)
        else:
            holder[key] = copy.deepcopy(choices.pick(_VALUES))
    return _json(value)


def _place(choices: Choices, value: Any) -> tuple[Any, Any]:
    """Somewhere in a JSON value, by its holder and key; the key is None where there is nothing."""
    holder, key, inner = value, None, value
    for _ in range(_DEEPEST):
        if not isinstance(inner, dict | list) or not inner:
            break
        holder = inner
        key = choices.pick(sorted(inner)) if isinstance(inner, dict) else choices.below(len(inner))
        inner = holder[key]
        if choices.below(4) == 0:
            break
    return holder, key


# podman's configuration and the specification.


def read_container(data: bytes) -> None:
    choices = Choices(data)
    which = choices.below(4)
    config = CONFIG if which == 1 else changed(choices, CONFIG)
    spec = SPEC if which == 0 else changed(choices, SPEC)
    _import(config, spec)


def read_specification(data: bytes) -> None:
    _import(CONFIG, data)


def read_configuration(data: bytes) -> None:
    _import(data, SPEC)


def _import(config: bytes, spec: bytes) -> None:
    record, read = origin.configuration(config), origin.specification(spec)
    security.summary(read, "none", origin.labels(record.config))
    Expected.of(read)
    found = import_config(record, read, _ROOT, _VOLUMES)
    for name, written in found.members(("ocickpt", "restore")).items():
        again = json.loads(written)
        if not isinstance(again, dict):
            raise Find(f"{name} is no object")
    for each in asked.not_allowed(found.asked, ()):
        if not each.option.isprintable():
            raise Find(f"an option that cannot be shown: {each.option!r}")
    if asked.not_allowed(found.asked, [each.option for each in found.asked]):
        raise Find("what is asked for is not allowed by the option that is shown")


def choice_seeds() -> Iterator[bytes]:
    for number in range(24):
        yield bytes((number * 37 + at * at * 11) % 256 for at in range(16))


def specification_seeds() -> Iterator[bytes]:
    yield SPEC
    yield b'{"process": {"args": ["a"], "user": {"uid": 0}}, "linux": {"namespaces": [{"type": "pid"}]}}'


def configuration_seeds() -> Iterator[bytes]:
    yield CONFIG
    config = json.loads(CONFIG)
    yield _json(
        {name: config[name] for name in ("id", "name", "rootfsImageID", "rootfsImageName", "staticDir", "runtime")}
    )


# Filters.


def read_profile(data: bytes) -> None:
    value = parse_json(data if data[:1] == b"{" else changed(Choices(data), PROFILE), "profile")
    profile.CACHE = SCRATCH.path / "none" / "none" / "none"
    for code in profile.compiled(oci.Profile(value).says):
        Program(code).answer(0xC000003E, 1)


def profile_seeds() -> Iterator[bytes]:
    yield PROFILE
    args = [
        {"index": 0, "value": 1, "valueTwo": 2, "op": "SCMP_CMP_MASKED_EQ"},
        {"index": 0, "value": 3, "op": "SCMP_CMP_NE"},
    ]
    rule = {"names": ["read", "personality"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38, "args": args}
    yield _json(
        {"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"], "syscalls": [rule]}
    )
    yield from choice_seeds()


def read_filter(data: bytes) -> None:
    half = int.from_bytes(data[:2], "little") * 8
    one, other = data[2 : 2 + half], data[2 + half :]
    only_refuses(one)
    found = [Program(each) for each in (one, other) if each]
    for number in (0, 1, 257, 0x40000001):
        answers = [each.answer(0xC000003E, number) for each in found]
        for answer in answers:
            if not allows_no_more(answer, answer):
                raise Find("a filter allows more than itself")
        if len(answers) == 2:
            allows_no_more(*answers)


def filter_seeds() -> Iterator[bytes]:
    allow = struct.pack("<HBBI", 0x06, 0, 0, 0x7FFF0000)
    argument = struct.pack("<HBBI", 0x20, 0, 0, 16) + struct.pack("<HBBI", 0x15, 0, 1, 7) + allow
    refuse = struct.pack("<HBBI", 0x06, 0, 0, 0x50001)
    yield b"\1\0" + allow + allow
    yield b"\4\0" + argument + refuse + argument + allow
    profile.CACHE = SCRATCH.path / "none" / "none" / "none"
    for code in profile.compiled(oci.Profile(json.loads(PROFILE)).says):
        yield struct.pack("<H", len(code) // 8) + code + code


# CRIU's images.

_NAMES: Final = tuple(IMAGES)
_OTHER_NAMES: Final = (
    *(pattern.replace(r"\d+", "1").replace("[0-9a-f]+", "a") for pattern in (*DECODED, *FOLLOWED, *OTHERS)),
    *(each.replace(r"\d+", "1") for pattern in REFUSED for each in pattern.split("|")),
    "core-01", "core-2", "core-99999999999999999999", "x", "", "../x", "core-1.img", "pagemap-1\n",
)  # fmt: skip


def check_images(data: bytes) -> None:
    """The images of an honest container with some fields of some messages changed, held against its specification."""
    choices = Choices(data)
    images = dict(IMAGES)
    for _ in range(1 + choices.below(5)):
        _change_image(choices, images)
    _check(images)


def _check(images: dict[str, bytes]) -> None:
    profile.CACHE = SCRATCH.path / "run" / "filters"
    check(Images(images, images.__getitem__), _expected())


@functools.cache
def _expected() -> Expected:
    return Expected.of(origin.specification(MEMBERS["spec.dump"]))


def check_honest_images(data: bytes) -> None:
    """Any bytes as one of the images of a container whose others are honest."""
    choices = Choices(data)
    name = choices.pick(_NAMES)
    _check(IMAGES | {name: choices.rest()})


def _change_image(choices: Choices, images: dict[str, bytes]) -> None:
    name = choices.pick(sorted(images))
    way = choices.below(12)
    if way == 0:
        images.pop(name)
    elif way == 1:
        images[f"{choices.pick(_OTHER_NAMES)}.img"] = images[name] + choices.some()
    elif way == 2:
        at = choices.below(len(images[name]) + 1)
        new = choices.some()
        images[name] = images[name][:at] + new + images[name][at + len(new) * choices.below(2) :]
    else:
        images[name] = _with_fields(choices, name, images[name])


def _with_fields(choices: Choices, name: str, data: bytes) -> bytes:
    found = _messages(name, data)
    if found is None:
        return data
    head, messages = found
    for _ in range(1 + choices.below(3)):
        way = choices.below(10)
        if way == 0 and messages:
            messages.pop(choices.below(len(messages)))
        elif way == 1 and messages:
            messages.append(copy.deepcopy(choices.pick(messages)))
        elif messages:
            _change_message(choices, choices.pick(messages))
    written = [each.SerializePartialToString() for each in messages]
    return head + b"".join(struct.pack("<I", len(each)) + each for each in written)


def _messages(name: str, data: bytes) -> tuple[bytes, list[Any]] | None:
    """The magic numbers and the messages of an image; None for one that has others, or is not as it was."""
    images = criu.pycriu_images()
    head = 4 if name == "inventory.img" else 8
    by_number = {number: kind for kind, number in images.magic.by_name.items()}
    handler = images.handlers.get(by_number.get(int.from_bytes(data[head - 4 : head], "little"), ""))
    messages, at = [], head
    while handler and hasattr(handler, "payload") and at < len(data):
        size = int.from_bytes(data[at : at + 4], "little")
        message = handler.payload()
        try:
            message.ParseFromString(data[at + 4 : at + 4 + size])
        except Exception:  # noqa: BLE001 - whatever protobuf raises for bytes that were changed before
            return None
        messages.append(message)
        at += 4 + size
    return data[:head], messages


def _change_message(choices: Choices, message: Any) -> None:
    """Change one field, here or in a message within."""
    for _ in range(_DEEPEST):
        field = choices.pick(message.DESCRIPTOR.fields)
        repeated = field.label == field.LABEL_REPEATED
        inner = getattr(message, field.name)
        if choices.below(6) == 0:
            message.ClearField(field.name)
            return
        if field.type != field.TYPE_MESSAGE:
            _set(choices, message, field, inner if repeated else None)
            return
        if not repeated:
            if not message.HasField(field.name):
                inner.SetInParent()
            message = inner
        elif inner and choices.below(4):
            message = choices.pick(inner)
        elif len(inner) < 64:
            message = inner.add()


def _set(choices: Choices, message: Any, field: Any, repeated: Any) -> None:
    value: Any
    if field.type == field.TYPE_ENUM:
        value = choices.pick(field.enum_type.values).number
    elif field.type == field.TYPE_BOOL:
        value = bool(choices.below(2))
    elif field.type == field.TYPE_BYTES:
        value = choices.some()
    elif field.type == field.TYPE_STRING:
        value = str(choices.pick([each for each in _VALUES if isinstance(each, str) and each.isascii()]))
    else:
        signed = field.cpp_type in (field.CPPTYPE_INT32, field.CPPTYPE_INT64)
        bits = 32 if field.cpp_type in (field.CPPTYPE_INT32, field.CPPTYPE_UINT32) else 64
        value = choices.number(bits)
        value -= (1 << bits) if signed and value >> (bits - 1) else 0
    if repeated is None:
        setattr(message, field.name, value)
    elif len(repeated) and choices.below(2):
        repeated[choices.below(len(repeated))] = value
    elif len(repeated) < 256:
        repeated.append(value)


def read_image(data: bytes) -> None:
    """Whatever else is read out of an image, without the rules."""
    for read in (
        criu.images_lsm,
        criu.architecture,
        criu.lazy_areas,
        criu.processes,
        lambda each: criu.mount_flags([each]),
    ):
        try:
            read(data)
        except OcickptError:
            continue
    changed = criu.without_network_lock(data)
    if len(criu.without_network_lock(changed)) <= len(changed):
        raise Find("an inventory without a network lock is none")


def read_extras(data: bytes) -> None:
    """What neither podman nor CRIU saved; an /etc/hosts of it beside one that podman made."""
    found = Extras.from_bytes(data)
    for each in found.lost:
        if not str(each).isprintable():
            raise Find("what is lost cannot be shown")
    for file in found.files:
        if b"10.88.0.9\tother" not in etc.merged(file.content, b"10.88.0.9\tother\n", {"web"}, {"other"}):
            raise OcickptError("it has no line of its own addresses")


def extras_seeds() -> Iterator[bytes]:
    yield b"{}"
    yield Extras(
        (Lost("personality", "1", "0x20000"), Lost("socket", "/tmp/a")),
        (Thread(1, "5", 2, 7, 50),),
        (Process(1, 0x33),),
        (File("/etc/hosts", b"127.0.0.1 localhost\n10.88.0.2\tweb\n"),),
        (Socket("/run/a", "/run/b"),),
    ).to_bytes()


def image_seeds() -> Iterator[bytes]:
    yield from IMAGES.values()


def honest_image_seeds() -> Iterator[bytes]:
    for number, name in enumerate(_NAMES):
        yield bytes([number]) + IMAGES[name]


TARGETS: Final = {
    "container": Target(read_container, choice_seeds, share=3),
    "specification": Target(read_specification, specification_seeds),
    "configuration": Target(read_configuration, configuration_seeds),
    "extras": Target(read_extras, extras_seeds),
    "seccomp-profile": Target(read_profile, profile_seeds),
    "seccomp-filter": Target(read_filter, filter_seeds),
    "images": Target(check_images, choice_seeds, needs_lab=True, share=5),
    "image-bytes": Target(check_honest_images, honest_image_seeds, needs_lab=True, share=2),
    "image-facts": Target(read_image, image_seeds, needs_lab=True),
}
