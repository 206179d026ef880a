"""Makes the golden artifact: ``python -m tests.unit.golden.make`` from the top of the checkout.

Golden files test *reading*. They are made once for a version of the format and then kept, whatever later
versions of zstd or of the packer would write: do not run this again to make a failing test pass.
"""

from __future__ import annotations

import base64
import json
import random
from pathlib import Path

from ocickpt.model import Content, Entry, FileType, Kind, digest_of
from ocickpt.pack.index import Index
from tests.unit.test_pack_support import PAGE, MemoryStore, pack, pages, regular, unpack

HERE = Path(__file__).parent / "v1"


def contents(generation: int) -> list[Content]:
    """Entries of every type; the second generation changes one page of memory and adds a file."""
    source = random.Random(1)
    noise = source.randbytes(3 * PAGE)
    changed = source.randbytes(PAGE) if generation else noise[:PAGE]
    text = b"All work and no play. " * 1000
    rootfs = [
        Entry(Kind.ROOTFS, FileType.DIRECTORY, ".", 0o755, mtime=1_700_000_000_000_000_001),
        Entry(Kind.ROOTFS, FileType.OPAQUE, "opaque", 0o1777, 1000, 1000, -1),
        Entry(Kind.ROOTFS, FileType.FIFO, "opaque/fifo", 0o600),
        Entry(Kind.ROOTFS, FileType.HARDLINK, "opaque/fifo2", link="opaque/fifo"),
        Entry(Kind.ROOTFS, FileType.SYMLINK, "opaque/link", 0o777, link="../../etc/passwd"),
        Entry(Kind.ROOTFS, FileType.CHARACTER, "null", 0o666, major=1, minor=3),
        Entry(Kind.ROOTFS, FileType.BLOCK, "sda", 0o660, gid=6, major=8, minor=0),
        Entry(Kind.ROOTFS, FileType.WHITEOUT, "gone"),
        Entry(
            Kind.ROOTFS,
            FileType.DIRECTORY,
            "not utf-8 \udcff",
            0o700,
            xattrs=(("security.capability", b"\1\0\0\2"), ("user.empty", b"")),
        ),
        Entry(Kind.VOLUME, FileType.DIRECTORY, "data", 0o700, 999, 999),
    ]
    found = [
        *(Content(entry) for entry in rootfs),
        regular(Kind.ROOTFS, "not utf-8 \udcff/text", text),
        regular(Kind.ROOTFS, "zeros", bytes(70_000) + b"end"),
        regular(Kind.VOLUME, "data/empty", b""),
        pages("checkpoint/pagemap-1.img", {0x400000: noise, 0x408000: b"h" * PAGE, 0x7FFC_0000_F000: bytes(5 * PAGE)}),
        pages(
            "checkpoint/pagemap-2.img",
            {0x400000: changed + noise[PAGE:], 0x408000: b"h" * PAGE, 0x7FFC_0000_F000: b"s" * PAGE},
        ),
        regular(Kind.STATE, "ctr.log", b"ready\n"),
        regular(Kind.BOOT, "config.dump", b'{"id":"golden"}'),
        regular(Kind.BOOT, "checkpoint/inventory.img", source.randbytes(200)),
    ]
    if generation:
        found.append(regular(Kind.VOLUME, "data/new", b"new\n" * 20))
    return found


def main() -> None:
    """Write two generations; the second inherits from the first."""
    store = MemoryStore()
    first = pack(store, contents(0))
    second = pack(store, contents(1), inherited=Index.load(store, first.index))
    HERE.mkdir(exist_ok=True)
    for packed in (first, second):
        for blob in (packed.index, *packed.packs):
            (HERE / blob.digest[7:]).write_bytes(store.blobs[blob.digest])
    for name, packed in (("first", first), ("second", second)):
        index = Index.load(store, packed.index)
        expected = {
            "index": packed.index.to_json(),
            "packs": [blob.to_json() for blob in packed.packs],
            "files": [
                {
                    "kind": entry.kind.name,
                    "type": entry.type.name,
                    "path": base64.b64encode(entry.path.encode("utf-8", "surrogateescape")).decode(),
                    "fields": [entry.mode, entry.uid, entry.gid, entry.mtime, entry.size, entry.major, entry.minor],
                    "link": entry.link,
                    "xattrs": [[name, base64.b64encode(value).decode()] for name, value in entry.xattrs],
                    "content": {
                        hex(offset): digest_of(data)
                        for offset, data in sorted(unpack(index, store)[entry.kind, entry.path].items())
                    },
                }
                for entry in index.files
            ],
        }
        (HERE / f"{name}.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    main()
