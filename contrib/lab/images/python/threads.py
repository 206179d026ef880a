"""threads.py [PORT]: 16 threads, each counting a hundred times a second; `/` answers with their counts, as JSON."""

import json
import sys
import threading
import time

import web

THREADS = 16
counts = [0] * THREADS


def count(number: int) -> None:
    """Thread `number`."""
    while True:
        counts[number] += 1
        time.sleep(0.01)


for number in range(THREADS):
    threading.Thread(target=count, args=(number,), daemon=True).start()
web.serve(lambda path: json.dumps(counts) if path == "/" else None, int(sys.argv[1]) if sys.argv[1:] else web.PORT)
