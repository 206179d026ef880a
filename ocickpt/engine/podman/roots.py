"""Where podman keeps things on this host.

`podman info` says it, and takes four times as long as any other command, for all the other things it finds out. So
it is asked only where this does not do: any command, asked to say more, names the graph root that it uses. There
podman keeps on record, in its SQLite database, where graph root and volumes were when that was made. It holds its
configuration against this record at each call, and follows the record or refuses to work (libpod/runtime.go,
``mergeDBConfig``; libpod/sqlite_state.go, ``ValidateDBConfig``). Our own reading of the configuration would have to
find all files, drop-ins and variables that podman knows, and be wrong without noticing.
"""

from __future__ import annotations

import json
import re
import sqlite3
from contextlib import closing
from pathlib import Path

from ocickpt import proc
from ocickpt.engine.podman import PROGRAM, Roots
from ocickpt.errors import CommandError
from ocickpt.model import parse_json

_MESSAGE = re.compile(r'\bmsg=("(?:[^"\\]|\\.)*")')
"""Of logrus' text format: quoted as in Go."""
_GRAPH, _IMAGES = "Using graph root ", "overlay: imagestore="
_DATABASES = "db.sql", "libpod/db.sql"
_PATIENCE = 1.0
_USUAL = Path("/var/lib/containers/storage")
USUAL = Roots(_USUAL, _USUAL / "volumes", (_USUAL,))
"""Where it does by default."""


def roots() -> Roots:
    """Where podman keeps things; CommandError with podman's words where it does not work."""
    done = proc.run([PROGRAM, "--log-level", "debug", "volume", "exists", "ocickpt"], check=False)
    messages = _messages(done.stderr) if done.returncode in (0, 1) else []
    graphs, images = (
        [Path(each.removeprefix(what)) for each in messages if each.startswith(what)] for what in (_GRAPH, _IMAGES)
    )
    if len(graphs) == 1 and (volumes := _volumes_on_record(graphs[0])):
        return Roots(graphs[0], volumes, (graphs[0], *images))
    return _asked()


def _asked() -> Roots:
    """What `podman info` says."""
    store = parse_json(proc.run([PROGRAM, "info", "--format", "{{json .Store}}"]).stdout.encode(), "answer of podman")
    try:
        graph, volumes = Path(store["graphRoot"]), Path(store["volumePath"])
        more = (store.get("graphOptions") or {}).get("overlay.additionalImageStores") or ()
        return Roots(graph, volumes, (graph, *map(Path, more)))
    except (KeyError, TypeError, AttributeError) as error:
        raise CommandError("podman info did not say where its storage is") from error


def _messages(log: str) -> list[str]:
    """The messages in podman's log; what no JSON string can say is left out, and is in none that are looked for."""
    found = []
    for quoted in _MESSAGE.findall(log):
        try:
            found.append(str(json.loads(quoted)))
        except ValueError:
            continue
    return found


def _volumes_on_record(graph: Path) -> Path | None:
    """Where volumes are, when podman's database in the graph root is that of this graph root."""
    for path in (graph / name for name in _DATABASES):
        if path.is_file():
            try:
                with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=_PATIENCE)) as database:
                    rows = database.execute("SELECT GraphRoot, VolumeDir FROM DBConfig").fetchall()
            except sqlite3.Error:
                return None
            return Path(rows[0][1]) if len(rows) == 1 and rows[0][0] == str(graph) and rows[0][1] else None
    return None
