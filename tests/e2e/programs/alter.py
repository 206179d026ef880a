"""Change one value in the artifact of an OCI layout and tag the result `altered`: alter.py LAYOUT PLACE JSON.

PLACE is a path of names and numbers with dots in the artifact's config, or after `manifest.` in its manifest.
"""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

REF = "org.opencontainers.image.ref.name"


def put(layout: Path, value: Any) -> tuple[str, int]:
    data = json.dumps(value).encode()
    digest = hashlib.sha256(data).hexdigest()
    (layout / "blobs" / "sha256" / digest).write_bytes(data)
    return f"sha256:{digest}", len(data)


def get(layout: Path, digest: str) -> Any:
    return json.loads((layout / "blobs" / "sha256" / digest.removeprefix("sha256:")).read_bytes())


def change(document: Any, place: str, value: Any) -> None:
    names: list[Any] = [int(each) if each.isdigit() else each for each in place.split(".")]
    *path, name = names
    for each in path:
        document = document[each]
    assert isinstance(document, list) or name in document, place
    document[name] = value


def main(layout: Path, place: str, value: Any) -> None:
    index = json.loads((layout / "index.json").read_bytes())
    first = next(entry for entry in index["manifests"] if entry["annotations"][REF] == "1")
    manifest = get(layout, first["digest"])
    if place.startswith("manifest."):
        change(manifest, place.removeprefix("manifest."), value)
    else:
        config = get(layout, manifest["config"]["digest"])
        change(config, place, value)
        manifest["config"]["digest"], manifest["config"]["size"] = put(layout, config)
    digest, size = put(layout, manifest)
    altered = {**first, "digest": digest, "size": size, "annotations": {REF: "altered"}}
    index["manifests"] = [first, altered]
    (layout / "index.json").write_text(json.dumps(index))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3]))
