"""Every crafted checkpoint against everything that is looked at before a restore, in one process: `pull -o` does that.

Nothing is restored, and the kernel is asked nothing: this alone catches them. What the kernel alone shows of them is
played by `run` (tests/e2e/test_crafted.py). The good ones that they are made of are of this host's own podman, runc
and crun.
"""

from __future__ import annotations

import base64
import io
import json
import mmap
import re
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ocickpt import pull, push
from ocickpt.artifact import parts
from ocickpt.engine import criu
from ocickpt.errors import IntegrityError, OcickptError, UnsupportedError
from ocickpt.gate import waits
from ocickpt.gate.images import Images
from ocickpt.memory.pagemap import PageMap, mark_lazy
from ocickpt.model import Content, Kind, Run
from ocickpt.pack.files import Tree
from tests.hostile.case import OPTIONS, command
from tests.hostile.cases import CASES
from tests.hostile.changing import TSYNC, Members, load
from tests.hostile.run import archive, members_of

# What pycriu's generated code is warned of is not ours to mend.
pytestmark = [pytest.mark.lab, pytest.mark.xdist_group("podman"), pytest.mark.filterwarnings("ignore")]


IMAGES = "checkpoint/"
CORE = re.compile(r"checkpoint/core-\d+\.img")
NETWORK = re.compile("checkpoint/(iptables|ip6tables|nftables|route6?|rule|ifaddr)-")


def podman(*arguments: str) -> None:
    subprocess.run(["podman", *arguments], check=True, capture_output=True)


@pytest.fixture(scope="module", params=["runc", "crun"])
def goods(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Members]]:
    """A good archive of each kind, under each runtime."""
    made = {}
    for name, options in OPTIONS.items():
        path = tmp_path_factory.mktemp("good") / "good.tar"
        podman(
            "--runtime",
            request.param,
            "run",
            "--detach",
            "--name",
            "good",
            *options,
            *command(name),
        )
        try:
            podman("exec", "good", "sh", "-c", "until [ -s /tmp/count ]; do sleep 0.1; done")
            podman("container", "checkpoint", "--compress", "none", "--export", str(path), "good")
        finally:
            podman("rm", "--force", "--time", "0", "good")
            podman("volume", "rm", "--all", "--force")
        made[name] = members_of(path)
    yield made


def there_and_back(members: Members, tmp_path: Path) -> Members:
    reference = f"oci:{tmp_path / 'layout'}:x"
    push(archive(members, tmp_path / "in.tar"), reference)
    pull(reference, output=tmp_path / "out.tar")
    return members_of(tmp_path / "out.tar")


def images_of(members: Members) -> Members:
    return {name: data for name, data in members.items() if name.startswith("checkpoint/")}


def forgotten(members: Members) -> Members:
    """Pagemaps in which CRIU has forgotten what may come later (`parts`), which `push` puts right."""
    found = {}
    for name, data in members.items():
        mm = members.get(name.replace("/pagemap-", "/mm-"), b"")
        if parts.PAGEMAP.fullmatch(name) and mm and not PageMap.parse(data, mmap.PAGESIZE).lazy_bytes:
            found[name] = mark_lazy(data, criu.lazy_areas(mm), mmap.PAGESIZE)
    return found


def begun_again(given: Members) -> Members:
    """Images of threads that CRIU would have fail in a call that waits (`waits`), as they are put right."""
    names = [name.removeprefix(IMAGES) for name in given if CORE.fullmatch(name)]
    found = waits.begun_again(Images(names, lambda name: given[IMAGES + name]), {})
    return {IMAGES + name: data for name, data in found.items()}


def check_filters(members: Members) -> None:
    """Every thread has the container's filter: by itself, or from the first thread, whose filters are for all."""
    from ocickpt import oci, structs
    from ocickpt.gate.profile import compiled

    profile = json.loads(members["spec.dump"])["linux"]["seccomp"]
    forms = tuple(compiled(structs.read(profile, oci.Seccomp, "profile")))
    filters = load(members, "checkpoint/seccomp.img")["entries"][0]["seccomp_filters"]
    for_all = False
    for thread in load(members, "checkpoint/pstree.img")["entries"][0]["threads"]:
        core = load(members, f"checkpoint/core-{thread}.img")["entries"][0]["thread_core"]
        position, found = core.get("seccomp_filter"), False
        if core.get("seccomp_mode", "disabled") == "disabled":
            assert for_all
            continue
        while position is not None:
            found = found or base64.b64decode(filters[position]["filter"]).endswith(forms)
            for_all = bool(filters[position]["flags"] & TSYNC)
            position = filters[position].get("prev")
        assert found


@pytest.mark.parametrize("container", OPTIONS)
def test_good_ones_pass(goods: dict[str, Members], container: str, tmp_path: Path) -> None:
    back = there_and_back(goods[container], tmp_path)
    given = images_of(goods[container])
    expected = given | forgotten(goods[container]) | begun_again(given)
    assert images_of(back) == expected
    assert expected != given or container == "asking", "what sleeps does so again"


@pytest.mark.parametrize("name", CASES)
def test_crafted_ones_do_not(goods: dict[str, Members], name: str, tmp_path: Path) -> None:
    case = CASES[name]
    members = dict(goods[case.container])
    case.change(members)
    if case.said:
        with pytest.raises(OcickptError) as raised:
            there_and_back(members, tmp_path)
        assert case.said in raised.value.message
        assert not (tmp_path / "out.tar").exists()
    else:
        back = there_and_back(members, tmp_path)
        words = b"".join(back[each] for each in ("config.dump", "spec.dump"))
        assert b"/bin/touch" not in words
        assert not [each for each in back if NETWORK.match(each)]
        if case.inside:
            images = images_of(back)
            check_filters(back)
            (tmp_path / "again").mkdir()
            assert images_of(there_and_back({**members, **images}, tmp_path / "again")) == images


@pytest.mark.parametrize("name", ["iptables", "ip6tables", "nftables", "route", "route6", "rule", "ifaddr"])
def test_what_push_leaves_out_is_refused(
    goods: dict[str, Members], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another writer need not be so kind as to leave it out."""
    monkeypatch.setattr(parts, "_NETWORK", re.compile("nothing"))
    with pytest.raises(UnsupportedError, match=f"{name}-10.img would have root's tools set up a network"):
        there_and_back(goods["plain"] | {f"checkpoint/{name}-10.img": b"*filter"}, tmp_path)


@pytest.mark.parametrize(
    "name", ["spec.dump", "config.dump", "checkpoint/inventory.img", "checkpoint/descriptors.json"]
)
@pytest.mark.parametrize("kind", [Kind.BOOT, Kind.STATE])
def test_a_name_that_is_there_twice(
    goods: dict[str, Members], name: str, kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One is checked, and the other one is what podman or CRIU would get."""
    evil, real = b"evil", parts.Parts.__iter__

    def twice(self: parts.Parts) -> Iterator[Content]:
        for content in real(self):
            yield content
            if content.entry.path == name:
                entry = replace(content.entry, kind=kind, size=len(evil))
                yield Content(entry, (Run(0, len(evil)),), lambda: io.BytesIO(evil))

    reference = f"oci:{tmp_path / 'layout'}:x"
    with monkeypatch.context() as writer:
        writer.setattr(parts.Parts, "__iter__", twice)
        for rule in ("add", "add_all"):
            writer.setattr(Tree, rule, lambda *_: None)
        push(archive(goods["plain"], tmp_path / "in.tar"), reference)
    with pytest.raises(IntegrityError, match=f"{name}' is there twice"):
        pull(reference, output=tmp_path / "out.tar", allow=["seccomp=unconfined"])
