"""Whatever text comes from outside, the real command says what it has to say, and ends with the code it should."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from ocickpt import log, names
from ocickpt.description import Description
from ocickpt.errors import IntegrityError, StorageError
from ocickpt.model import Descriptor, Manifest, digest_of
from ocickpt.store.layout import LayoutStore
from tests.unit.test_description import FULL

INDEX = Descriptor(names.INDEX_TYPE, digest_of(b""), 0)
ENCODINGS = [{"PYTHONIOENCODING": "latin-1"}, {"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C"}, {"LC_ALL": "C.UTF-8"}]


def put(path: Path, described: Description, **annotations: str) -> str:
    """A layout with a checkpoint as far as `list` and `inspect` look; its reference."""
    with LayoutStore(path, create=True) as store:
        config = store.put_blob_bytes(names.CONFIG_TYPE, described.to_bytes())
        store.put_manifest(Manifest(config, (INDEX,), names.ARTIFACT_TYPE, annotations).to_bytes(), "1")
    return f"oci:{path}:1"


def alter(path: Path, change: Any) -> None:
    """Let `change` have its way with the manifest's bytes, and the layout's index know of it."""
    index = json.loads((path / "index.json").read_text())
    blobs = path / "blobs" / "sha256"
    data = change((blobs / index["manifests"][0]["digest"][7:]).read_bytes())
    index["manifests"][0] |= {"digest": digest_of(data), "size": len(data)}
    (blobs / digest_of(data)[7:]).write_bytes(data)
    (path / "index.json").write_text(json.dumps(index))


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "ocickpt", *arguments]
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG", "PYTHONIO"))}
    return subprocess.run(command, env=plain | environment, capture_output=True, check=False)


@pytest.mark.parametrize("verb", [["inspect"], ["inspect", "--format=json"], ["rm"]])
@pytest.mark.parametrize("text", [b"\\ud800", b"a\\udc80", b"\xed\xa0\x80", b"\xff"])
def test_text_that_is_not_unicode_is_refused(tmp_path: Path, verb: list[str], text: bytes) -> None:
    ref = put(tmp_path / "layout", FULL, x="HERE")
    alter(tmp_path / "layout", lambda data: data.replace(b"HERE", text))
    done = run(*verb, ref)
    assert b"is not JSON" in done.stderr
    assert (done.returncode, done.stdout) == (IntegrityError.exit_code, b"")


@pytest.mark.parametrize("environment", ENCODINGS, ids=str)
@pytest.mark.parametrize("verb", [["inspect"], ["inspect", "--format=json"], ["list"], ["list", "--format=json"]])
def test_text_that_the_terminal_has_no_characters_for(
    tmp_path: Path, verb: list[str], environment: dict[str, str]
) -> None:
    named = replace(FULL.container, name="\u65e5\u672c")
    ref = put(
        tmp_path / "layout",
        replace(FULL, container=named),
        **{names.ANNOTATION_CONTAINER: named.name, names.ANNOTATION_CREATED: FULL.created},
    )
    done = run(*verb, ref, **environment)
    assert (done.returncode, done.stderr) == (0, b"")
    shown = done.stdout.decode("utf-8")
    assert "\u65e5\u672c" in shown or "\\u65e5\\u672c" in shown


@pytest.mark.parametrize("verb", ["inspect", "list"])
def test_file_names_that_are_not_unicode(tmp_path: Path, verb: str) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
    path.mkdir()
    done = run(verb, f"oci:{path}")
    assert done.returncode in (2, 3)
    assert b"bug" not in done.stderr


def test_every_error_can_be_written_anywhere(capsys: pytest.CaptureFixture[str]) -> None:
    error = StorageError("/tmp/\udcff\0 cannot be read", hint="\ud800")
    assert (error.message, str(error), error.hint) == (r"/tmp/\udcff\x00 cannot be read",) * 2 + (r"\ud800",)
    log.say("\udcff\0", error=True)
    assert capsys.readouterr().err == "ocickpt: \\udcff\\x00\n"
