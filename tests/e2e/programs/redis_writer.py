"""redis_writer.py ADDRESS STOP: writes to Redis over one connection, key after key, until the file STOP is there.

Tells as JSON how many writes were acknowledged, and how many seconds the longest of them took.
"""

import json
import socket
import sys
import time
from pathlib import Path

connection = socket.create_connection((sys.argv[1], 6379), timeout=60)
answers = connection.makefile("rb")
acknowledged, longest = 0, 0.0
while not Path(sys.argv[2]).exists():
    started = time.monotonic()
    connection.sendall(f"SET key:{acknowledged} value:{acknowledged}\r\n".encode())
    answer = answers.readline()
    assert answer == b"+OK\r\n", answer
    longest = max(longest, time.monotonic() - started)
    acknowledged += 1
print(json.dumps({"acknowledged": acknowledged, "longest": longest}))
