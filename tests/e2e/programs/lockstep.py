"""lockstep.py FILE…: counts in files and in memory in lock step: a byte more in every file, then one more in memory.

Before each step the files must have as many bytes as the number says. If once they have not, as when they were
saved at another instant than memory, they never have again. `/` on 8080 tells the number, the files' sizes and how
often they differed.
"""

import json
import os
import sys
import threading

import web  # type: ignore[import-not-found]  # it is in the image

files = [os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND) for path in sys.argv[1:]]
number = 0
differences: dict[str, int] = dict.fromkeys(sys.argv[1:], 0)


def step() -> None:
    """As fast as it goes."""
    global number  # noqa: PLW0603 - a number in memory is the point
    while True:
        for path, file in zip(sys.argv[1:], files, strict=True):
            if os.fstat(file).st_size != number:
                differences[path] += 1
        for file in files:
            os.write(file, b".")
        number += 1


def answer(path: str) -> str | None:
    """What `GET path` says."""
    return json.dumps({"number": number, "differences": differences}) if path == "/" else None


threading.Thread(target=step, daemon=True).start()
web.serve(answer)
