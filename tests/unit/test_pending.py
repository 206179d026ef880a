"""What operations that died have left: each state that `list` or `doctor` shows has a verb that ends it."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

import pytest

from ocickpt import artifact, proc, processes, push, rendezvous
from ocickpt.description import HostInfo, Origin
from ocickpt.engine import podman
from ocickpt.engine.container import Container
from ocickpt.engine.podman import roots
from ocickpt.errors import BusyError, NotFoundError, OcickptError, StorageError, UsageError
from ocickpt.hostsetup.doctor import Check, _journals
from ocickpt.lazy import following, states
from ocickpt.library import catalog
from ocickpt.model import Silent
from ocickpt.operations import journal, pending, recovery
from ocickpt.operations.journal import UNPUBLISHED, Checkpoint, Intercept, Journal, Restore
from ocickpt.rendezvous import CAPTURED, EXPORT
from ocickpt.restoration import outcome
from ocickpt.store import Access, open_store
from ocickpt.store.local import LocalStore
from ocickpt.store.reference import Reference
from tests.unit.test_podman_archive import _pycriu, whole, written

ID, OTHER, KEY = "c1" * 32, "e7" * 32, "0f" * 16
__all__ = ["_pycriu"]


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """podman knows no container: `podman rm` was here. Where its storage is."""
    graph = tmp_path / "graph"
    monkeypatch.setattr(podman, "container_or_none", lambda _name: None)
    monkeypatch.setattr(roots, "roots", lambda: podman.Roots(graph, graph / "volumes", (graph,)))
    monkeypatch.setattr(rendezvous, "LAZY", tmp_path / "lazy")
    monkeypatch.setattr(rendezvous, "OPERATIONS", tmp_path / "op")
    LocalStore().close()
    return graph


def dump(
    tmp_path: Path,
    kind: type[Checkpoint] | type[Intercept] = Checkpoint,
    step: str = "dumped",
    container: str = ID,
    ref: str = "",
) -> Path:
    """What a process that died at `step` has left: its journal, and its work directory, which is given back."""
    key = container if kind is Checkpoint else KEY
    work = tmp_path / "graph" / "ocickpt" / key
    work.mkdir(parents=True)
    written(work / EXPORT, whole(tmp_path))
    if kind is Intercept:
        (work / CAPTURED).touch()
    ref = ref or f"oci:{tmp_path / 'layout'}:x"
    origin = Origin(HostInfo("arm64", "6.1", "v2", ("asimd",), 4096, "debian 13"), "5.0", "1.2", "4.2")
    record = kind(
        key=key,
        container=container,
        name="web",
        reference=ref,
        work=str(work),
        image_path=str(tmp_path / "gone"),
        origin=origin,
    )
    held: Journal[Checkpoint | Intercept] = Journal.begin(record)
    held.step(step)
    held.leave()
    return work


def left() -> list[str]:
    """What is still there of any operation."""
    store = Path(os.environ["OCICKPT_STORE"])
    return [each.name for each in (store / "journal").iterdir()] if (store / "journal").exists() else []


def checkpoints(layout: Path) -> list[str]:
    if not layout.exists():
        return []
    with closing(open_store(Reference.parse(f"oci:{layout}:x"), Access())) as store:
        return sorted(store.tags())


def findings() -> list[Check]:
    return [each for each in _journals() if each.state != "ok"]


@pytest.mark.parametrize("source", ["web", ID, ID[:12]])
@pytest.mark.parametrize("tag", [None, "y"])
def test_a_dump_whose_container_is_gone_is_published(tmp_path: Path, source: str, tag: str | None) -> None:
    work = dump(tmp_path)
    layout = tmp_path / "layout"
    published = push(source, f"oci:{layout}:{tag}" if tag else None)
    assert checkpoints(layout) == [tag or "x"]
    with closing(open_store(Reference.parse(published.reference), Access())) as store:
        told = artifact.open(store, Reference.parse(published.reference)).description
    assert told.container.id == ID
    # Of when it was dumped: the host may have been upgraded since.
    assert (told.host.kernel, told.host.cpu_features, told.criu.version) == ("6.1", ("asimd",), "4.2")
    assert (told.engine.version, told.runtime.version) == ("5.0", "1.2")
    assert not work.parent.exists()
    assert left() == []
    assert findings() == []


@pytest.mark.parametrize("source", ["web", ID, ID[:12]])
def test_or_it_goes(tmp_path: Path, source: str) -> None:
    work = dump(tmp_path)
    (shown,) = catalog.list_checkpoints(None, Access())
    size = (work / EXPORT).stat().st_size
    assert (shown.name, shown.container, shown.size) == ("web", "web", size)
    assert shown.state == f"unpublished as oci:{tmp_path / 'layout'}:x"
    (finding,) = findings()
    assert finding.remedy == "`ocickpt push web` publishes it, `ocickpt rm web` removes it"
    removed = catalog.remove(source, Access(), Silent())
    assert (removed.reference, removed.digest, removed.freed) == (source, "", size)
    assert not work.parent.exists()
    assert left() == []
    assert catalog.list_checkpoints(None, Access()) == []
    assert findings() == []


def test_a_push_that_fails_keeps_it(tmp_path: Path) -> None:
    work = dump(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(OcickptError):
        push("web", f"oci:{tmp_path / 'file'}:x")
    assert (work / EXPORT).exists()
    assert journal.records()[0].reference == f"oci:{tmp_path / 'layout'}:x"
    push("web", None)
    assert left() == []


@pytest.mark.parametrize("verb", ["push", "rm"])
def test_two_of_the_same_name(tmp_path: Path, verb: str) -> None:
    """The container was removed, made again, and dumped again."""
    dump(tmp_path)
    dump(tmp_path, container=OTHER, ref=f"oci:{tmp_path / 'layout'}:z")
    names = {each.name for each in catalog.list_checkpoints(None, Access())}
    assert names == {ID[:12], OTHER[:12]}
    assert {each.remedy.split("`")[1] for each in findings()} == {f"ocickpt push {name}" for name in names}

    def end(source: str) -> object:
        if verb == "push":
            return push(source, None)
        return catalog.remove(source, Access(), Silent())

    with pytest.raises(UsageError, match="several containers called 'web'") as refused:
        end("web")
    assert all(name in refused.value.hint for name in names)
    end(ID[:12])
    assert [each.name for each in catalog.list_checkpoints(None, Access()) if each.state] == ["web"]
    end("web")
    assert left() == []
    assert checkpoints(tmp_path / "layout") == (["x", "z"] if verb == "push" else [])


@pytest.mark.parametrize("step", Intercept.steps)
def test_one_that_podman_made(tmp_path: Path, step: str) -> None:
    work = dump(tmp_path, Intercept, step)
    catalog.remove("web", Access(), Silent())
    assert not work.parent.exists()
    assert left() == []


@pytest.mark.parametrize("by", ["name", "container"])
def test_one_that_podman_made_and_that_is_in_the_local_store(tmp_path: Path, by: str) -> None:
    dump(tmp_path, Intercept)
    before = catalog.list_checkpoints(None, Access())
    recovery.recover(Silent())
    (shown,) = catalog.list_checkpoints(None, Access())
    assert [each.name for each in before] == [shown.name], "it has the same name before it is there"
    assert journal.records()[0].step == UNPUBLISHED
    assert shown.state.startswith("unpublished as oci:")
    (finding,) = findings()
    assert f"`ocickpt push {shown.name}`" in finding.remedy
    removed = catalog.remove(shown.name if by == "name" else "web", Access(), Silent())
    assert removed.freed == shown.size
    assert catalog.list_checkpoints(None, Access()) == []
    assert left() == []


def test_one_that_the_local_store_cannot_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ocickpt.save import unpublished

    def full(*_: object) -> None:
        raise StorageError("no space left")

    dump(tmp_path, Intercept)
    monkeypatch.setattr(unpublished, "keep", full)
    push("web", None)
    assert checkpoints(tmp_path / "layout") == ["x"]
    assert left() == []


@pytest.mark.parametrize("step", [each for each in Checkpoint.steps if each != "dumped"])
def test_a_checkpoint_that_cannot_be_put_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """podman fails whenever it is asked; the container is left as it is."""

    def broken(_name: str) -> None:
        raise StorageError("podman is broken")

    work = dump(tmp_path, step=step)
    if step == "published":
        recovery.recover(Silent(), lambda _: False)
    else:
        monkeypatch.setattr(podman, "container_or_none", broken)
        (finding,) = findings()
        assert f"stopped at {step!r}" in finding.found
        assert f"`ocickpt rm {ID}` gives it up" in finding.remedy
    catalog.remove(ID, Access(), Silent())
    assert not work.parent.exists()
    assert left() == []


def test_what_somebody_is_at_work_on(tmp_path: Path) -> None:
    dump(tmp_path)
    (held,) = [each.keep() for each in journal.orphans()]
    (shown,) = catalog.list_checkpoints(None, Access())
    assert shown.state.startswith("being published as")
    assert findings() == []
    for end in (lambda: push("web", None), lambda: catalog.remove("web", Access(), Silent())):
        with pytest.raises(BusyError, match="somebody is at work on the checkpoint of container 'web'"):
            end()
    held.leave()


@pytest.mark.parametrize("torn", [b"", b"[]", b'{"verb": "checkp', b"\xff"])
def test_a_journal_that_cannot_be_read(tmp_path: Path, torn: bytes) -> None:
    work = dump(tmp_path)
    (Path(os.environ["OCICKPT_STORE"]) / "journal" / f"{ID}.json").write_bytes(torn)
    (finding,) = findings()
    assert "cannot be read" in finding.found
    assert f"`ocickpt rm {ID}`" in finding.remedy
    assert catalog.remove(ID, Access(), Silent()).freed > 0
    assert not work.exists()
    assert left() == []


def test_what_is_not_here_is_looked_for_in_stores(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no tag latest"):
        catalog.remove("web", Access(), Silent())
    assert pending.find(ID) is None


# Restores.


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A container that podman restored, and what is done to it."""
    done: list[str] = []
    container = Container.__new__(Container)
    for name, value in {
        "id": ID,
        "name": "web",
        "status": "running",
        "created_by": ("x",),
        "checkpointed": False,
    }.items():
        object.__setattr__(container, name, value)
    monkeypatch.setattr(podman, "container_or_none", lambda _name: container)

    def ended(how: str, its: Journal[Restore]) -> None:
        done.append(how)
        outcome._forget(its)

    def run(argv: list[str], **_: object) -> proc.Result:
        done.append(" ".join(argv))
        return proc.Result((), 0, "", "")

    monkeypatch.setattr(outcome, "take_back", lambda its: ended("taken back", its))
    monkeypatch.setattr(outcome, "end", lambda its, _running: ended("ended", its))
    monkeypatch.setattr(Container, "running", property(lambda _self: None), raising=False)
    monkeypatch.setattr(podman, "existing", lambda names: names)
    monkeypatch.setattr(proc, "run", run)
    return done


def restore(tmp_path: Path, step: str, *told: str) -> Path:
    work = tmp_path / "graph" / "ocickpt" / KEY
    work.mkdir(parents=True)
    for name in told:
        (work / name).write_text("x")
    record = Restore(
        key=KEY,
        container=ID,
        name="web",
        reference="reg:5000/web:1",
        work=str(work),
        created_by=("x",),
        guard_pid=os.getpid(),
        guard_start=1,
    )
    held = Journal.begin(record)
    held.step(step)
    held.leave()
    return work


@pytest.mark.parametrize(
    ("step", "told", "end"),
    [
        ("guarded", (), "taken back"),
        ("running", (), "taken back"),
        ("lazy", (), "taken back"),
        ("running", (rendezvous.COMPLETE,), "ended"),
        ("lazy", (rendezvous.CONTAINER, rendezvous.COMPLETE), "ended"),
        ("lazy", (rendezvous.CONTAINER,), "ended"),
    ],
)
def test_a_lazy_restore_whose_helpers_are_dead(
    tmp_path: Path, running: list[str], step: str, told: tuple[str, ...], end: str
) -> None:
    work = restore(tmp_path, step, *told)
    recovery.recover(Silent())
    assert running == [end]
    assert not work.exists()
    assert left() == []


@pytest.mark.parametrize("kill", [[], ["runc", "kill", ID, "KILL"]])
def test_a_container_whose_memory_nobody_brings_is_killed(tmp_path: Path, running: list[str], kill: list[str]) -> None:
    """Be it restored by `ocickpt restore`, or on its start, of which there is no journal."""
    here, gone = (os.getpid(), processes.start_time(os.getpid()) or 0), (os.getpid(), 1)
    told: states.State = {
        "container": ID,
        "name": "web",
        "state": "running",
        "kill": kill,
        "work": str(tmp_path),
        "helpers": KEY,
    }
    states.begin(KEY, {**told, "guard": gone, "process": here})
    states.begin("ended", {**told, "guard": gone, "process": gone})
    states.begin("well", {**told, "guard": here, "process": here})
    assert sorted(each.state for each in following.following(lambda _: True)) == ["failed", "failed", "running"]
    recovery.recover(Silent())
    assert running == [" ".join(kill) or f"podman kill --signal KILL {ID}"]
    assert [states.read(each)["state"] for each in (KEY, "ended", "well")] == ["failed", "failed", "running"]


@pytest.mark.parametrize("kind", [Checkpoint, Intercept])
@pytest.mark.parametrize("step", ["dumped", "frozen"])
def test_no_name_at_all_means_nothing(tmp_path: Path, kind: type[Checkpoint], step: str) -> None:
    work = dump(tmp_path, kind, step)
    assert pending.find("") is None
    assert pending.remove("", Silent()) is None
    assert work.exists()
    with pytest.raises(OcickptError):
        catalog.remove("", Access(), Silent())
    assert len(left()) == 2
