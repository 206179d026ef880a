"""memory.py MIB [PORT]: holds MIB mebibytes of memory, half of each page random and half of it text.

`/` answers with the number of requests so far, `/hash` with the SHA-256 of all that memory. `/change/N` writes N pages
anew, all of them random, and scattered.
"""

import hashlib
import mmap
import os
import random
import sys

import web

PAGE = 4096
PER_MIB = (1 << 20) // PAGE

mib = int(sys.argv[1])
port = int(sys.argv[2]) if sys.argv[2:] else web.PORT
memory = mmap.mmap(-1, mib << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
for block in range(mib):
    first = block * PER_MIB
    memory.write(
        b"".join(
            os.urandom(PAGE // 2) + (b"page %09d\n" % page * 136 + b" " * 8)[: PAGE // 2]
            for page in range(first, first + PER_MIB)
        )
    )
count = web.Counter()


def answer(path: str) -> str | None:
    """What `GET path` says."""
    if path.startswith("/change/"):
        changed = random.sample(range(mib * PER_MIB), int(path.removeprefix("/change/")))
        for page in changed:
            memory[page * PAGE : (page + 1) * PAGE] = os.urandom(PAGE)
        return str(len(changed))
    if path == "/hash":
        return hashlib.sha256(memory).hexdigest()
    return count() if path == "/" else None


web.serve(answer, port)
