"""rows_writer.py: a client of PostgreSQL: inserts row after row, and notes in /tmp/rows what was acknowledged."""

import subprocess
import time
from pathlib import Path

while subprocess.run(["pg_isready", "-q"], check=False).returncode:
    time.sleep(0.05)
client = subprocess.Popen(
    ["psql", "-qAt", "-v", "ON_ERROR_STOP=1"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
)
assert client.stdin
assert client.stdout
client.stdin.write("create table written (n int primary key, at timestamptz default clock_timestamp());\n")
with Path("/tmp/rows").open("w", buffering=1) as rows:
    number = 0
    while True:
        client.stdin.write(f"insert into written values ({number}) returning n;\n")
        assert int(client.stdout.readline()) == number
        rows.write(f"{number}\n")
        number += 1
