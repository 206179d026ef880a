"""What podman wrote down about a container, read from a database like podman's."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ocickpt.engine.podman import database
from ocickpt.errors import StorageError, UnsupportedError

ID = "ab" * 32
CONFIG: dict[str, Any] = {
    "id": ID,
    "name": "web",
    "runtime": "crun",
    "rootfsImageID": "cd" * 32,
    "namedVolumes": [{"volumeName": "data", "dest": "/data"}, {"volumeName": "data", "dest": "/again"}],
    "logDriver": "k8s-file",
    "cgroupsMode": "enabled",
}
STATE: dict[str, Any] = {
    "startedTime": "2026-11-21T10:46:30Z",
    "checkpointedTime": "0001-01-01T00:00:00Z",
    "networkStatus": {"podman": {"interfaces": {}}},
    "pid": 7,
}


def bundle(graph: Path, config: dict[str, Any] | None = None, state: dict[str, Any] | None = None) -> Path:
    """A container as podman would have it below `graph`."""
    made = graph / "overlay-containers" / ID / "userdata"
    made.mkdir(parents=True)
    layer = graph / "overlay" / "layer"
    (layer / "diff").mkdir(parents=True)
    spec = {
        "root": {"path": str(layer / "merged")},
        "mounts": [{"destination": "/data", "source": "/v/data"}, {"destination": "/again", "source": "/v/data"}],
        "linux": {"namespaces": [{"type": each} for each in ("pid", "ipc", "mount", "network")]},
    }
    (made / "config.json").write_text(json.dumps(spec))
    (made / "ctr.log").touch()
    rows = {
        "ContainerConfig": CONFIG | {"logPath": str(made / "ctr.log")} | (config or {}),
        "ContainerState": STATE | (state or {}),
    }
    with closing(sqlite3.connect(graph / "db.sql")) as made_here:
        for table, value in rows.items():
            made_here.execute(f"CREATE TABLE {table} (ID TEXT, JSON TEXT)")
            made_here.execute(f"INSERT INTO {table} VALUES (?, ?)", (ID, json.dumps(value).encode()))
        made_here.execute("CREATE TABLE VolumeConfig (Name TEXT, JSON TEXT)")
        made_here.commit()
    return made


def test_a_container(tmp_path: Path) -> None:
    found = database.read(bundle(tmp_path))
    subject = found.container
    assert (subject.id, subject.name, subject.runtime, subject.pid) == (ID, "web", "crun", 7)
    assert (subject.upper, subject.lowers) == (tmp_path / "overlay" / "layer" / "diff", ())
    assert [(volume.name, str(volume.source)) for volume in subject.volumes] == [("data", "/v/data")]
    assert (subject.checkpointed, subject.private_pids, subject.own_cgroup, subject.host_ipc) == (
        False,
        True,
        True,
        False,
    )
    assert subject.graph_root == tmp_path
    assert json.loads(found.config)["name"] == "web"
    assert json.loads(found.network) == STATE["networkStatus"]
    assert found.log


def test_one_that_is_being_cleaned_up(tmp_path: Path) -> None:
    made = bundle(tmp_path, state={"networkStatus": None, "checkpointedTime": "2026-11-21T10:46:31Z"})
    (made / "network.status").write_text("{}")
    found = database.read(made)
    assert found.network == b"{}"
    assert found.container.checkpointed


@pytest.mark.parametrize(
    ("config", "name", "value"),
    [
        ({"rootfs": "/somewhere"}, "upper", None),
        ({"netNsCtr": "other"}, "depends", ("other",)),
        ({"cgroupsMode": "disabled"}, "own_cgroup", False),
        ({"overlayVolumes": [{"dest": "/o"}]}, "elsewhere", ("/o",)),
        ({"pod": "p"}, "pod", "p"),
    ],
)
def test_what_cannot_be_published_shows(tmp_path: Path, config: dict[str, Any], name: str, value: object) -> None:
    assert getattr(database.read(bundle(tmp_path, config)).container, name) == value


def test_what_is_not_podmans(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="not the bundle"):
        database.read(tmp_path)
    made = bundle(tmp_path)
    (tmp_path / "db.sql").write_bytes(b"no database, and longer than its header would be" * 10)
    with pytest.raises(StorageError, match="cannot be read"):
        database.read(made)
    (tmp_path / "db.sql").unlink()
    with pytest.raises(UnsupportedError, match="no SQLite database"):
        database.read(made)


def test_one_it_does_not_know(tmp_path: Path) -> None:
    made = bundle(tmp_path)
    with closing(sqlite3.connect(tmp_path / "db.sql")) as rows:
        rows.execute("UPDATE ContainerConfig SET ID = 'other'")
        rows.commit()
    with pytest.raises(UnsupportedError, match="knows no container"):
        database.read(made)


def test_one_of_another_shape(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="unlike any known"):
        database.read(bundle(tmp_path, {"namedVolumes": [7]}))


def test_one_that_names_another(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="unlike any known"):
        database.read(bundle(tmp_path, {"id": "ef" * 32}))
